"""How sure a difference is, against SciPy, plain loops and cases made by hand."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from nlalib.report.certainty import (
    bootstrap_differences,
    bootstrap_interval,
    certainty,
    detectable_difference,
    equivalence,
    holm,
    paired_differences,
    resampled_counts,
    student_interval,
)
from nlalib.report.frame import SETTING


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_student_interval_is_that_of_scipy(confidence):
    first, second = [0.75, 0.74, 0.83], [0.70, 0.72, 0.77]
    found = student_interval(np.subtract(first, second), confidence)
    test = stats.ttest_rel(first, second)
    interval = test.confidence_interval(confidence)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["p_seeds"] == pytest.approx(test.pvalue)
    assert found["difference"] == pytest.approx(0.13 / 3)
    assert found["n"] == 3


def test_interval_of_one_pair_and_of_equal_pairs():
    alone = student_interval([0.02])
    assert (alone["n"], alone["difference"]) == (1, 0.02)
    assert all(np.isnan(alone[name]) for name in ("low", "high", "p_seeds", "deviation"))
    same = student_interval([0.5, 0.5])
    assert same["difference"] == 0.5
    assert all(np.isnan(same[name]) for name in ("low", "high", "p_seeds"))
    nothing = student_interval([0.0, 0.0])
    assert (nothing["p_seeds"], nothing["low"], nothing["high"]) == (1, 0, 0)


@pytest.mark.parametrize("n", [3, 10])
def test_detectable_difference_has_its_power_in_a_simulation(n):
    difference = detectable_difference(0.02, n)
    generator = np.random.default_rng(0)
    samples = generator.normal(difference, 0.02, size=(20_000, n))
    rejected = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert rejected.mean() == pytest.approx(0.8, abs=0.015)


def test_detectable_difference_of_many_pairs_is_the_normal_one():
    normal = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * 0.02 / np.sqrt(1000)
    assert detectable_difference(0.02, 1000) == pytest.approx(normal, rel=0.01)
    assert detectable_difference(0.0, 3) == 0
    assert np.isnan(detectable_difference(np.nan, 1))


def test_holm_by_hand():
    # 4 x .01, 3 x .02 and never below the one before, then 2 x .03 and .04, at most 1.
    found = holm(np.array([0.03, 0.01, 0.02, 0.9]))
    assert found.tolist() == pytest.approx([0.06, 0.04, 0.06, 0.9])
    assert holm(np.array([0.5, 0.6])).tolist() == [1, 1]
    with_hole = holm(np.array([0.01, np.nan, 0.04]))
    assert with_hole[[0, 2]].tolist() == pytest.approx([0.02, 0.04])
    assert np.isnan(with_hole[1])


def test_holm_is_that_of_statsmodels():
    generator = np.random.default_rng(0)
    p_values = np.concatenate([generator.random(20) ** 3, [0.01, 0.01, 0.0, 1.0]])  # with ties
    generator.shuffle(p_values)
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_array_equal(holm(p_values), expected)
    assert holm(np.array([])).shape == (0,)
    assert np.isnan(holm(np.array([np.nan]))).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_rejects_as_the_step_down_procedure(p_values):
    rejected, order = set(), sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, position in enumerate(order):
        if p_values[position] * (len(order) - rank) > 0.05:
            break
        rejected.add(position)
    assert set(np.flatnonzero(holm(np.array(p_values)) <= 0.05)) == rejected


def test_bootstrap_is_a_plain_loop_over_resampled_images():
    generator = np.random.default_rng(0)
    labels = generator.choice(3, 40, p=[0.7, 0.25, 0.05])
    gains = generator.choice([-3, -1, 0, 1, 3], 40)
    found = bootstrap_differences(gains, 3, labels, resampled_counts(40)[:30])
    draws = np.random.default_rng(0)
    for number in range(30):
        chosen = draws.integers(0, 40, 40)
        own, drawn = gains[chosen] / 3, labels[chosen]
        recalls = [own[drawn == k].mean() for k in range(3) if (drawn == k).any()]
        assert found["overall_accuracy"][number] == pytest.approx(own.mean(), abs=1e-11)
        assert found["mean_accuracy"][number] == pytest.approx(np.mean(recalls), abs=1e-11)


def test_bootstrap_interval_is_about_the_normal_one():
    generator = np.random.default_rng(0)
    gains = generator.choice([-1, 0, 1], 1000, p=[0.1, 0.75, 0.15])
    counts = resampled_counts(1000)
    found = bootstrap_interval(
        bootstrap_differences(gains, 1, np.zeros(1000, dtype=int), counts)["overall_accuracy"]
    )
    error = gains.std() / np.sqrt(1000)
    assert found["images_low"] == pytest.approx(gains.mean() - 1.96 * error, abs=0.15 * error)
    assert found["images_high"] == pytest.approx(gains.mean() + 1.96 * error, abs=0.15 * error)
    assert found["p_images"] == pytest.approx(2 * stats.norm.sf(gains.mean() / error), abs=0.01)


def test_ties_of_a_bootstrap_are_ties():
    """Counted in fractions, so that no rounding puts a tie on one side of zero."""
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 3
    gains = generator.integers(-3, 4, 30)
    counts = resampled_counts(30)
    found = bootstrap_differences(gains, 3, labels, counts)
    expected = {name: [] for name in found}
    for drawn in counts.astype(int).tolist():
        gained, images = [0] * 3, [0] * 3
        for label, gain, times in zip(labels.tolist(), gains.tolist(), drawn, strict=True):
            gained[label] += gain * times
            images[label] += times
        recalls = [Fraction(g, n) for g, n in zip(gained, images, strict=True) if n]
        expected["overall_accuracy"].append(sum(gained))
        expected["mean_accuracy"].append(sum(recalls))
    for name, values in expected.items():
        assert 0 in values, name
        np.testing.assert_array_equal(np.sign(found[name]), [(v > 0) - (v < 0) for v in values])


def test_bootstrap_p_value_at_its_ends():
    assert bootstrap_interval(np.full(1999, 0.1))["p_images"] == pytest.approx(2 / 2000)
    assert bootstrap_interval(np.zeros(1999))["p_images"] == 1


# Tables.


def results_of(values: dict[tuple, list[float]], **setting) -> pd.DataFrame:
    """A long table with one accuracy for each (method, settings, noise rate) and seed."""
    rows = [
        {
            "run_id": f"{method}{settings}{rate}-{seed}",
            **{"method": method, "settings": settings, "noise_rate": rate, "seed": seed},
            **{"selection": "last", "metric": "overall_accuracy", "value": value},
        }
        for (method, settings, rate), accuracies in values.items()
        for seed, value in enumerate(accuracies)
    ]
    fixed = {"study": "tiny", "dataset": "rendered", "backbone": "small", "init": "random"}
    fixed |= {"precision": "fp32", "label_source": "rule"}
    return pd.DataFrame(rows).assign(**{**fixed, "epochs": 4, "imbalance_factor": 1.0, **setting})


RESULTS = results_of(
    {
        ("ce", "", 0.0): [0.7, 0.72, 0.77],
        ("ce", "", 0.3): [0.5, 0.5, 0.5],
        ("nla", "", 0.0): [0.75, 0.74, 0.83],
        ("nla", "", 0.3): [0.6, 0.5, 0.4],
        ("scn", "relabel_from=0.5", 0.3): [0.6, 0.6, 0.6],
    }
)


def test_each_setting_is_compared_under_its_own_conditions():
    table = paired_differences(RESULTS.sample(frac=1, random_state=0), "overall_accuracy", "last")
    found = table.set_index(["method", "settings", "noise_rate"])["difference"].to_dict()
    assert found == pytest.approx(
        {
            ("nla", "", 0.0): (0.05 + 0.02 + 0.06) / 3,
            ("nla", "", 0.3): 0.0,
            ("scn", "relabel_from=0.5", 0.3): 0.1,
        }
    )
    assert set(table["n"]) == {3}
    assert set(table["reference"]) == {"ce"}


def test_each_source_of_labels_has_its_own_reference():
    values = {"rule": (0.7, 0.8), "fer2013": (0.5, 0.45), "fer2013, matched": (0.6, 0.7)}
    tables = [
        results_of({("ce", "", 0.0): [ce] * 3, ("nla", "", 0.0): [nla] * 3}, label_source=source)
        for source, (ce, nla) in values.items()
    ]
    table = paired_differences(pd.concat(tables), "overall_accuracy", "last")
    found = table.set_index("label_source")["difference"].to_dict()
    assert found == pytest.approx({"rule": 0.1, "fer2013": -0.05, "fer2013, matched": 0.1})


def test_pairs_are_the_seeds_that_both_have():
    missing = RESULTS[~((RESULTS["method"] == "ce") & (RESULTS["seed"] == 0))]
    table = paired_differences(missing, "overall_accuracy", "last")
    clean = table.query("noise_rate == 0")
    assert clean["difference"].item() == pytest.approx((0.02 + 0.06) / 2)
    assert clean["n"].item() == 2
    apart = RESULTS.query("(method == 'ce') == (seed == 0)")
    with pytest.raises(ValueError, match="share no seed"):
        paired_differences(apart, "overall_accuracy", "last")


def test_reference_is_the_plain_one_of_several():
    other = results_of({("ce", "precision=bf16", 0.0): [0.1, 0.1, 0.1]})
    table = paired_differences(pd.concat([RESULTS, other], ignore_index=True), "overall_accuracy",
                               "last")  # fmt: skip
    found = table.set_index(["method", "settings", "noise_rate"])["difference"]
    assert found["ce", "precision=bf16", 0.0] == pytest.approx(0.1 - 0.73)
    assert found["nla", "", 0.0] == pytest.approx(0.13 / 3)
    neither = pd.concat([other, other.assign(settings="label_rule=majority"), RESULTS.iloc[6:9]])
    with pytest.raises(ValueError, match="several settings and never plainly"):
        paired_differences(neither.reset_index(drop=True), "overall_accuracy", "last")


def test_conditions_without_the_reference_have_no_row():
    other = RESULTS.assign(dataset="ferplus").query("method != 'ce'")
    both = pd.concat([RESULTS, other], ignore_index=True)
    assert set(paired_differences(both, "overall_accuracy", "last")["dataset"]) == {"rendered"}
    with pytest.raises(ValueError, match=r"nothing to compare with 'rul'; there are .*'ce'"):
        paired_differences(RESULTS, "overall_accuracy", "last", reference="rul")


def test_equality_is_shown_by_close_differences_alone():
    assert equivalence([0.001, -0.002, 0.0005, 0.001]) < 0.05
    # No difference shown, and no equality either: too few and too far apart.
    scattered = [0.03, -0.03, 0.02, -0.025]
    assert student_interval(scattered)["p_seeds"] > 0.5
    assert equivalence(scattered) > 0.05
    assert equivalence([0.02, 0.021, 0.019]) > 0.95
    assert np.isnan(equivalence([0.0]))
    assert equivalence([0.0, 0.0]) == 0
    assert np.isnan(equivalence([0.003, 0.003]))  # no spread is no certainty


def test_rows_of_tables_laid_together_are_all_paired():
    """Their indices repeat, and a method's row is none of the reference's for it."""
    table = results_of({("nla", "", 0.0): [0.7, 0.8], ("ce", "", 0.0): [0.6, 0.65]})
    own, other = (table[table["method"] == method] for method in ("nla", "ce"))
    together = pd.concat([own.set_axis(range(len(own))), other.set_axis(range(len(other)))])
    found = paired_differences(together, "overall_accuracy", "last", "ce")
    expected = paired_differences(table, "overall_accuracy", "last", "ce")
    pd.testing.assert_frame_equal(found, expected)
    assert found["n"].tolist() == [2]


def test_equivalence_is_the_larger_of_two_one_sided_tests():
    differences = np.array([0.004, 0.001, 0.006, -0.002])
    t = (differences.mean() - 0.01) / (differences.std(ddof=1) / 2)  # the nearer bound
    assert equivalence(differences) == pytest.approx(stats.t.cdf(t, 3))


NOT_TAKEN = float("nan")


@pytest.mark.parametrize(
    ("seeds", "images", "p_values", "expected"),
    [
        ((0.1, 0.3), (0.15, 0.25), (0.01, 0.02), "holds"),
        ((-0.3, -0.1), (-0.25, -0.15), (0.01, 0.02), "holds"),
        ((0.1, 0.3), (0.15, 0.25), (0.06, 0.02), "hint"),
        ((0.1, 0.3), (0.15, 0.25), (0.01, 0.06), "hint"),
        ((0.1, 0.3), (-0.01, 0.25), (0.01, 0.02), "not told apart"),
        ((-0.1, 0.3), (0.15, 0.25), (0.01, 0.02), "not told apart"),
        ((0.1, 0.3), (-0.25, -0.15), (0.01, 0.02), "not told apart"),
        ((0.0, 0.3), (0.15, 0.25), (0.01, 0.02), "not told apart"),
        ((0.0, 0.0), (0.0, 0.0), (1.0, 1.0), "not told apart"),
        # Measures without a bootstrap, and a single seed.
        ((0.1, 0.3), (NOT_TAKEN, NOT_TAKEN), (0.01, NOT_TAKEN), "holds"),
        ((0.1, 0.3), (NOT_TAKEN, NOT_TAKEN), (0.06, NOT_TAKEN), "hint"),
        ((NOT_TAKEN, NOT_TAKEN), (0.15, 0.25), (NOT_TAKEN, 0.001), "not told apart"),
    ],
)
def test_certainty_wants_both_intervals_and_both_p_values(seeds, images, p_values, expected):
    names = ("low", "high", "images_low", "images_high", "p_seeds_holm", "p_images_holm")
    row = pd.Series(dict(zip(names, (*seeds, *images, *p_values), strict=True)))
    assert certainty(row) == expected


def test_certainty_is_a_matter_of_the_level():
    row = pd.Series({"low": 0.1, "high": 0.3, "images_low": 0.1, "images_high": 0.3})
    row = pd.concat([row, pd.Series({"p_seeds_holm": 0.07, "p_images_holm": 0.02})])
    assert [certainty(row, level) for level in (0.05, 0.1)] == ["hint", "holds"]


def test_a_reference_under_another_rule_by_a_plain_loop():
    """Each method at its last epoch less the reference stopped early; the reference itself too."""
    generator, rows, expected = np.random.default_rng(0), [], {}
    for rate in (0.0, 0.2):
        for method in ("ce", "nla"):
            for seed in (0, 1, 2):
                for rule in ("last", "best_validation"):
                    shared = dict.fromkeys(SETTING, "x") | {"noise_rate": rate, "settings": ""}
                    row = {"study": "tiny", **shared, "run_id": f"{rate}{method}{seed}"}
                    row |= {"method": method, "seed": seed, "selection": rule}
                    rows.append({**row, "metric": "accuracy", "value": generator.random()})
    values = {(r["noise_rate"], r["method"], r["seed"], r["selection"]): r["value"] for r in rows}
    for rate in (0.0, 0.2):
        for method in ("ce", "nla"):
            gains = [
                values[rate, method, seed, "last"] - values[rate, "ce", seed, "best_validation"]
                for seed in (0, 1, 2)
            ]
            expected[rate, method] = sum(gains) / 3
    found = paired_differences(
        pd.DataFrame(rows), "accuracy", "last", reference_selection="best_validation"
    ).set_index(["noise_rate", "method"])["difference"]
    assert found.to_dict() == pytest.approx(expected)
