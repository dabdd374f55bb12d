"""The ledger of claims: recomputed from the published tables, and its verdicts by hand."""

import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nlalib.report import ledger as ledgers
from nlalib.report.claims import CLAIMS, CONVERGED, MAIN, RECORDED, SHORT
from nlalib.report.collect import identity_columns
from nlalib.report.gate import Gate
from nlalib.report.ledger import declared_seeds, in_short, ledger
from nlalib.report.studies import read_study
from places import ROOT


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return ledger()


def test_published_ledger_is_what_the_tables_say(table):
    """So no sentence outlives its number: `make readme` writes it anew."""
    found = pd.read_csv(ROOT / "results" / "claims.csv")
    expected = table.round(6).convert_dtypes().astype(object)
    found = found.convert_dtypes().astype(object)
    assert list(found.columns) == list(expected.columns)
    for name in found:
        for one, other in zip(found[name], expected[name], strict=True):
            if pd.isna(one) or pd.isna(other):
                assert pd.isna(one), name
                assert pd.isna(other), name
            elif isinstance(one, str):
                assert one == other
            else:
                assert one == pytest.approx(other, abs=2e-6), name


def test_fourteen_claims_in_two_regimes(table):
    assert [claim.number for claim in CLAIMS] == list(range(1, 15))
    assert set(table.groupby("number")["regime"].nunique()) == {2}
    assert set(table["verdict"]) <= {"verified", "falsified", "toy", "inconclusive", "not run"}
    there = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(table.loc[table["verdict"] != "not run", "shown_in"]) <= there


def rows_of(file: str, **wanted) -> list[dict]:
    with (ROOT / "results" / file).open() as lines:
        return [row for row in csv.DictReader(lines) if all(row[k] == v for k, v in wanted.items())]


COMPARED = [
    (1, "overall_accuracy", "nla", "ce", {"noise_rate": "0.0"}),
    (2, "mean_accuracy", "nla", "ce", {"noise_rate": "0.0"}),
    (8, "overall_accuracy", "nla", "ce", {"noise_rate": "0.2"}),
    (10, "overall_accuracy", "nla", "eac", {"noise_rate": "0.2"}),
]
IMBALANCE = (9, "mean_accuracy", "nla", "ce", {"imbalance_factor": "100.0"})


@pytest.mark.parametrize(
    ("file", "regime", "compared"),
    [
        *(("noise.csv", SHORT, one) for one in COMPARED),
        ("imbalance.csv", SHORT, IMBALANCE),
        *((f"{MAIN}.csv", CONVERGED, one) for one in COMPARED),
    ],
)
@pytest.mark.parametrize("rule", ["last", "best_validation"])
def test_differences_by_a_plain_loop(table, file, regime, compared, rule):
    number, metric, method, other, more = compared
    values = {}
    for row in rows_of(file, metric=metric, selection=rule, **more):
        if row["method"] in (method, other):
            values[row["method"], row["seed"]] = float(row["value"])
    seeds = {seed for _, seed in values}
    gains = [values[method, seed] - values[other, seed] for seed in seeds]
    found = table[(table["number"] == number) & (table["regime"] == regime)]
    found = found[found["selection"] == rule].iloc[0]
    assert found["n"] == len(seeds)
    assert found["difference"] == pytest.approx(np.mean(gains))
    if len(seeds) > 1:
        reach = stats.t.ppf(0.975, len(seeds) - 1) * np.std(gains, ddof=1) / np.sqrt(len(seeds))
        assert found["low"] == pytest.approx(np.mean(gains) - reach)


@pytest.mark.parametrize(
    ("regime", "file", "last"),
    [(SHORT, "noise_epochs.csv", "5"), (CONVERGED, f"{RECORDED}_epochs.csv", "19")],
)
@pytest.mark.parametrize(
    ("number", "metric", "rate", "chance", "since"),
    [
        (5, "entropy_correlation_weight", "0.0", 0, None),
        (6, "auroc_within_label_low_weight", "0.2", 0.5, None),
        (7, "minority_share_of_top_weight", "0.0", 0, "1"),
    ],
)
def test_facts_of_training_by_a_plain_loop(
    table, regime, file, last, number, metric, rate, chance, since
):
    values = {}
    for row in rows_of(file, method="nla", noise_rate=rate):
        if row[metric]:
            values[row["seed"], row["epoch"]] = float(row[metric])
    seeds = sorted({seed for seed, _ in values})
    gains = [values[seed, last] - (values[seed, since] if since else chance) for seed in seeds]
    found = table[(table["number"] == number) & (table["regime"] == regime)]
    assert found["n"].tolist() == [len(seeds)]
    assert found["difference"].tolist() == pytest.approx([np.mean(gains)])


def test_a_fact_is_compared_with_chance_or_an_earlier_epoch():
    rows = [(seed, epoch, metric, value)
            for seed, values in ((0, (1.0, 3.0, 0.5)), (1, (1.5, 2.0, 0.25)))
            for epoch, metric, value in ((0, "share", values[0]), (1, "share", values[1]),
                                         (1, "of_all", values[2]))]  # fmt: skip
    told = pd.DataFrame(rows, columns=["seed", "epoch", "metric", "value"]).assign(epochs=2)
    share = replace(CONTRAST, metric="share")
    assert ledgers._facts(told, replace(share, chance=0.5)).tolist() == [2.5, 1.5]
    assert ledgers._facts(told, replace(share, since=0)).tolist() == [2.0, 0.5]
    assert not len(ledgers._facts(told, replace(share, metric="no such", since=0)))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: str(claim.number))
def test_the_declared_studies_run_what_the_claims_compare(claim):
    """So that a contrast is not blank for a setting that no run is told by."""
    for contrast in (claim.short, claim.converged):
        name = contrast.study.removesuffix("_robustness")
        if not name or contrast.init:
            continue
        runs = read_study(f"configs/{name}.yaml").runs.values()
        table = pd.DataFrame([identity_columns(run, name) for run in runs])
        seeds = [set(rows["seed"]) for rows in ledgers._pair(table, contrast)]
        assert seeds[0], contrast.words
        assert contrast.is_of_training or seeds[0] & seeds[1], contrast.words


def test_less_is_better_turns_the_sign(table):
    ece = {
        (row["method"], row["seed"]): float(row["value"])
        for row in rows_of("weak.csv", metric="ece", selection="last")
        if row["backbone"] == "resnet10_narrow16_stride2"
        and row["settings"] in ("", "candidate_threshold=2.0")
    }
    gains = [ece["ce", seed] - ece["proden", seed] for seed in "012"]
    found = table[(table["number"] == 13) & (table["selection"] == "last")].iloc[0]
    assert found["difference"] == pytest.approx(np.mean(gains))


def test_hours_are_those_of_the_studys_runs(table):
    seconds = rows_of("noise.csv", metric="training_seconds", selection="last")
    assert len({row["run_id"] for row in seconds}) == len(seconds)
    expected = sum(float(row["value"]) for row in seconds) / 3600
    found = table.loc[table["study"] == "noise", "hours"].astype(float)
    assert found.to_numpy() == pytest.approx(expected)


CONTRAST = CLAIMS[0].short
NO_IMAGES = (float("nan"), float("nan"))


def told(low: float, high: float, primary=np.nan, *p_values: float) -> pd.Series:
    """Return what a table of differences says of a contrast."""
    p_values = p_values or NO_IMAGES
    return pd.Series([low, high, primary, *p_values], ledgers._OF_DIFFERENCES)


def ledger_of(monkeypatch, gains, interval, published, passed=True) -> dict:
    """Return what the ledger says of these differences by seed, all of which were declared."""
    fit = 0.95 if passed else 0.5
    low, high = interval
    monkeypatch.setattr(ledgers, "_gains", lambda contrast, rule: np.array(gains))
    monkeypatch.setattr(ledgers, "_published_difference", lambda contrast, rule: published)
    monkeypatch.setattr(ledgers, "published_gate", lambda content: Gate(fit, 0.0, 0.02, "eac"))
    monkeypatch.setattr(ledgers, "declared_seeds", lambda content: len(gains))
    found = {
        "n": len(gains),
        "difference": np.mean(gains),
        "low": low,
        "high": high,
        "p_seeds": 0.01,
    }
    monkeypatch.setattr(ledgers, "student_interval", lambda gains: found)
    return ledgers.measured(CONTRAST, "last")


@pytest.mark.parametrize(
    ("low", "high", "images", "gains", "passed", "verdict"),
    [
        (0.01, 0.03, (0.005, 0.04), [0.01, 0.02, 0.03], True, "verified"),
        (0.01, 0.03, NO_IMAGES, [0.01, 0.02, 0.03], True, "verified"),
        (0.01, 0.03, (-0.005, 0.04), [0.01, 0.02, 0.03], True, "inconclusive"),
        (-0.03, -0.01, (-0.04, -0.005), [-0.01, -0.02, -0.03], True, "falsified"),
        (-0.05, 0.06, (-0.03, 0.04), [-0.03, 0.001, 0.04], True, "inconclusive"),
        # Runs that could not tell.
        (0.01, 0.03, (0.005, 0.04), [0.01, 0.02, 0.03], False, "inconclusive"),
        (float("nan"), float("nan"), (0.005, 0.04), [0.02], True, "inconclusive"),
        # Seeds that differ all by the same have no interval either.
        (float("nan"), float("nan"), (0.005, 0.04), [0.02, 0.02], True, "inconclusive"),
    ],
)
def test_verdicts_by_hand(monkeypatch, low, high, images, gains, passed, verdict):
    published = told(*images)
    assert ledger_of(monkeypatch, gains, (low, high), published, passed)["verdict"] == verdict


def test_limits_by_hand(monkeypatch):
    gains, sure = [0.01, 0.02, 0.03], (0.01, 0.03)
    found = ledger_of(monkeypatch, gains, sure, told(*sure))
    assert found["limit"] == "one data set, one network"
    found = ledger_of(monkeypatch, gains, sure, told(*NO_IMAGES))
    assert found["limit"] == "one data set, one network, no interval over images"
    # Where an interval holds zero, that is the limit, whatever the correction says.
    far = [-0.02, 0.02, 0.03]
    found = ledger_of(monkeypatch, far, (-0.03, 0.05), told(0.005, 0.04, True, 1, 1))
    assert found["limit"] == "an interval holds zero"
    # A lead below a point is no lead that matters; to show so is no refutation of "ahead".
    found = ledger_of(monkeypatch, [0.0, 0.001, 0.0005], (-0.001, 0.002), told(-0.003, 0.004))
    assert found["verdict"] == "inconclusive"
    assert found["limit"] == "an interval holds zero; equal within a point, not corrected"
    found = ledger_of(monkeypatch, gains, sure, told(*sure), passed=False)
    assert found["limit"] == "the runs could not have told (gate)"
    found = ledger_of(monkeypatch, gains[:1], NO_IMAGES, told(*sure))
    assert (found["verdict"], found["limit"]) == ("inconclusive", "one seed, no interval")


@pytest.mark.parametrize(
    ("gains", "expected"),
    [([], False), ([0.011, 0.012, 0.014], False), ([0.001, -0.012, 0.02], True),
     ([-0.011, -0.012, -0.014], True)],
)  # fmt: skip
def test_a_verdict_holds_against_the_reference_of_both_machines(monkeypatch, gains, expected):
    """The main study's runs of the reference may be there from another machine."""
    assert ledgers._is_other_side(1, np.array(gains)) == expected
    monkeypatch.setattr(ledgers, "_is_other_side", lambda *_: expected)
    found = ledger_of(monkeypatch, [0.01, 0.02, 0.03], (0.01, 0.03), told(0.01, 0.03))
    assert found["verdict"] == ("inconclusive" if expected else "verified")
    assert ("another machine" in found["limit"]) == expected


def test_the_main_studys_reference_by_a_plain_loop():
    """Of the weight alone: those runs have one id in both studies, and other numbers."""
    contrast = CLAIMS[2].converged
    here, there = ({}, {})
    for name, values in (("face_parts.csv", here), (f"{MAIN}.csv", there)):
        for row in rows_of(name, metric="overall_accuracy", selection="last", noise_rate="0.0"):
            values[row["method"], row["settings"], row["seed"]] = float(row["value"])
    expected = [here["nla", "consistency=none", s] - there["ce", "", s] for s in "012"]
    assert here["ce", "", "0"] != there["ce", "", "0"]
    assert ledgers._against_main(contrast, "last").tolist() == pytest.approx(expected)
    for number in (1, 5, 10, 14):  # of the main study itself, of training, of corrupted images
        assert not len(ledgers._against_main(CLAIMS[number - 1].converged, "last"))


def test_a_declared_contrast_brings_the_larger_p_value_of_its_study(monkeypatch):
    gains = [0.01, 0.02, 0.03]
    declared = told(0.005, 0.04, True, 0.01, 0.03)
    assert ledger_of(monkeypatch, gains, (0.01, 0.03), declared)["p_holm"] == 0.03
    undeclared = told(0.005, 0.04, False, 0.01, 0.03)
    assert ledger_of(monkeypatch, gains, (0.01, 0.03), undeclared)["p_holm"] is None


def test_what_no_study_declared_is_corrected_among_the_claims(monkeypatch):
    """Six claims of one p-value; one brings a corrected p-value of its study, which decides."""
    p_values = {claim.number: 0.02 for claim in CLAIMS[:6]}
    declared, of_study = CLAIMS[0].words, 0.04

    def measured(contrast, rule):
        number = next(c.number for c in CLAIMS if contrast in (c.short, c.converged))
        if number not in p_values or rule != "last":
            return {"verdict": "not run"}
        p_holm = of_study if number == CLAIMS[0].number else None
        return {"n": 3, "p": p_values[number], "p_holm": p_holm, "verdict": "falsified",
                "limit": "one network"}  # fmt: skip

    monkeypatch.setattr(ledgers, "measured", measured)
    table = ledger().query("selection == 'last' and number <= 6")
    # The smallest of six equal ones is multiplied by six, and so are the others.
    assert table.query("claim != @declared")["p_holm"].tolist() == pytest.approx([0.12] * 10)
    verdicts = table.groupby("claim")["verdict"].agg(set)
    assert verdicts.pop(declared) == {"falsified"}
    assert all(found == {"inconclusive"} for found in verdicts)
    p_values |= dict.fromkeys(p_values, 0.008)
    table = ledger().query("selection == 'last' and number <= 6")
    assert set(table["verdict"]) == {"falsified"}
    of_study = 0.06
    table = ledger().query("selection == 'last' and number <= 6")
    assert set(table.query("claim == @declared")["verdict"]) == {"inconclusive"}
    assert set(table.query("claim == @declared")["limit"]) == {
        "corrected for their number, it may be chance"
    }


def test_both_rules_are_one_family(monkeypatch):
    def measured(contrast, rule):
        return {"n": 3, "p": 0.03, "verdict": "verified", "limit": ""}

    monkeypatch.setattr(ledgers, "measured", measured)
    table = ledger()
    number = table.groupby("regime").size()
    assert (table["p_holm"] == (0.03 * table["regime"].map(number)).clip(upper=1)).all()


def test_corrections_of_the_main_study_are_found(table):
    """Of its declared contrasts, and of no others."""
    for claim, is_declared in ((1, True), (2, True), (8, True), (10, False)):
        published = ledgers._published_difference(CLAIMS[claim - 1].converged, "last")
        assert (published["primary"] == 1) == is_declared


def test_no_verdict_before_every_declared_seed_has_run(monkeypatch):
    """The first seeds alone would be a look that may stop when it pleases."""
    gains = np.array([0.03, 0.031, 0.029])
    monkeypatch.setattr(ledgers, "_gains", lambda contrast, rule: gains)
    monkeypatch.setattr(ledgers, "_published_difference", lambda *_: told(*NO_IMAGES))
    monkeypatch.setattr(ledgers, "published_gate", lambda content: Gate(0.95, 0.0, 0.02, "eac"))
    config = {"fixed": {}, "grid": [{"seed": [0, 1]}, {"seed": [1, 2, 3]}]}
    monkeypatch.setattr(ledgers, "_config", lambda study: config)
    found = ledgers.measured(CONTRAST, "last")
    assert found["verdict"] == "inconclusive"
    assert found["limit"] == "interim: 3 of 4 declared seeds"
    config["grid"].pop()
    assert ledgers.measured(CONTRAST, "last")["verdict"] == "verified"


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ({"fixed": {"seed": 100}, "grid": {"lr": [1, 2]}}, 1),
        ({"fixed": {}, "grid": {"seed": [0, 1, 2]}}, 3),
        ({"fixed": {}, "grid": [{"seed": [0, 1]}, {"seed": [1, 2]}]}, 3),
    ],
)
def test_declared_seeds(content, number):
    assert declared_seeds(content) == number


def test_first_screen_has_a_row_a_claim_and_both_verdicts_where_they_differ(table):
    changed = table.copy()
    of_eight = (changed["number"] == 8) & (changed["regime"] == CONVERGED)
    changed.loc[of_eight, "verdict"] = ["verified", "inconclusive"]
    of_ten = (changed["number"] == 10) & (changed["regime"] == CONVERGED)
    changed.loc[of_ten, "verdict"] = "inconclusive"
    changed.loc[of_ten, ["limit", "n"]] = ["interim: 3 of 5 declared seeds", 3]
    of_one = (changed["number"] == 1) & (changed["regime"] == CONVERGED)
    changed.loc[of_one, ["verdict", "n"]] = ["not run", None]
    short = in_short(changed).set_index(changed["number"].unique())
    assert len(short) == 14
    last, chosen = (changed[of_eight].iloc[k]["difference"] for k in (0, 1))
    assert short.loc[8, "verdict"] == "verified / inconclusive, n = 5"
    assert short.loc[10, "verdict"] == "inconclusive (interim), n = 3"
    assert short.loc[8, "last epoch"].startswith(f"{100 * last:+.1f} [")
    assert short.loc[8, "epoch chosen on held-out images"].startswith(f"{100 * chosen:+.1f} [")
    assert short.loc[8, "claim"].startswith("[8](notebooks/14_memorisation.ipynb). It gains")
    assert short.loc[1, ["verdict", "last epoch"]].tolist() == ["not run", ""]
    # A correlation is shown as one.
    assert short.loc[5, "last epoch"].startswith("+0.32 [")
    # Of a fact of training there is one number: no rule selects an epoch.
    assert short.loc[5, "epoch chosen on held-out images"] == ""
