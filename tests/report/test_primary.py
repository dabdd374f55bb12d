"""One word of certainty for the same runs, in whichever notebook they are shown."""

import numpy as np
import pandas as pd
import pytest

from nlalib.report import frame
from nlalib.report.certainty import ACCURACIES, holm, paired_differences
from nlalib.report.frame import published_table
from nlalib.report.primary import SHORT_STUDIES, corrected, published_contrasts, told, with_images

STUDIES = (*SHORT_STUDIES, "weak", "ablation")
SHARING = ("face_votes", "human_noise")


def shown(study: str, reference: str = "ce") -> pd.DataFrame:
    table = published_table(study, "_differences").query("reference == @reference")
    return told(table.query("selection == 'last'"))


def test_primary_contrasts_are_nla_less_cross_entropy_and_corrected_among_themselves():
    table = published_contrasts().query("primary")
    table = table[table["study"].isin(SHORT_STUDIES)]
    assert set(table["metric"]) == set(ACCURACIES)
    assert set(table["method"]) == {"nla"}
    assert set(table["study"]) == set(SHORT_STUDIES)
    assert np.allclose(table["p_seeds_holm"], holm(table["p_seeds"].to_numpy()))


@pytest.mark.parametrize("study", STUDIES)
def test_the_same_runs_get_the_same_word_everywhere(study):
    # In weak and ablation the plain runs of NLA and cross-entropy are those of noise.
    reference = "nla" if study == "ablation" else "ce"
    rows = shown(study, reference)
    rows = rows[rows["primary"]]
    known = pd.concat([shown(one) for one in SHORT_STUDIES]).query("primary")
    assert len(rows) == (
        2 if study in ("weak", "ablation") else len(known.query("study == @study"))
    )
    for row in rows.itertuples():
        same = known[(known["metric"] == row.metric) & np.isclose(
            known["difference"].abs(), abs(row.difference), atol=2e-6)]  # fmt: skip
        assert set(same["certainty"]) == {row.certainty}
        assert same["p_seeds_holm"].tolist() == pytest.approx([row.p_seeds_holm] * len(same))


def test_a_study_that_declares_its_contrasts_is_a_family():
    table = published_table("face", "_differences")
    rows = told(table.query("method == 'nla'"))
    assert rows["primary"].all()  # under both selection rules
    declared = published_contrasts().query("primary and study == 'face'")
    for name in ("p_seeds_holm", "p_images_holm"):
        assert rows[name].tolist() == declared[name].tolist() == table.loc[
            table["primary"], name].tolist()  # fmt: skip
    # What it did not ask first is corrected apart.
    assert not told(table.query("method == 'eac'"))["primary"].any()


def test_others_are_corrected_among_the_others_of_their_study():
    table = pd.concat([shown("noise"), shown("weak")], ignore_index=True)
    for study in ("noise", "weak"):
        rest = table[(table["study"] == study) & ~table["primary"]]
        ordered = rest["p_images"].sort_values()
        highest, expected = 0.0, []
        for place, p in enumerate(ordered):  # Holm, step by step
            highest = max(highest, min(1.0, (len(rest) - place) * p))
            expected.append(highest)
        assert rest.loc[ordered.index, "p_images_holm"].tolist() == pytest.approx(expected)


def test_others_that_a_study_declares_and_has_not_run_count():
    """As its table has them, and no fewer because a notebook knows of those that ran alone."""
    table = published_table("human_noise", "_differences").query("not primary")
    shown_as = told(table)
    is_eac = table["method"] == "eac"  # which stands in no other study on these labels
    for name in ("p_seeds", "p_images"):
        of_run = table.groupby("selection")[name].transform(holm)
        assert shown_as.loc[is_eac.to_numpy(), f"{name}_holm"].tolist() == (
            table.loc[is_eac, f"{name}_holm"].tolist()
        )
        assert (table[f"{name}_holm"] >= of_run).all()
        assert (table[f"{name}_holm"] > of_run)[is_eac].all()


def test_runs_that_two_studies_share_get_the_larger_p_of_both():
    # LDL less cross-entropy is in face_votes among five others, in human_noise among few.
    ldl = "method == 'ldl' and reference == 'ce' and label_source == 'rule'"
    tables = [published_table(study, "_differences").query(ldl) for study in SHARING]
    words = [told(table).set_index(["selection", "metric"]) for table in tables]
    of_files = [table.set_index(["selection", "metric"]) for table in tables]
    for key in of_files[0].index:
        assert of_files[0].at[key, "difference"] == of_files[1].at[key, "difference"]
        for name in ("p_seeds_holm", "p_images_holm"):
            larger = max(table.at[key, name] for table in of_files)
            shown_as = [table.at[key, name] for table in words]
            assert shown_as == pytest.approx([larger, larger], abs=1e-5)  # six decimals
    last = ("last", "overall_accuracy")
    assert of_files[0].at[last, "p_seeds_holm"] != of_files[1].at[last, "p_seeds_holm"]


def test_rules_for_the_epoch_are_corrected_apart_as_in_the_tables():
    table = published_table("face_long", "_differences")
    again = corrected(table)
    for name in ("p_seeds_holm", "p_images_holm"):
        assert again[name].tolist() == pytest.approx(table[name].tolist(), abs=2e-6)


@pytest.mark.parametrize("study", ["face_peers", "noise", "ablation", "weak"])
def test_a_part_of_a_study_gets_the_words_of_the_whole(study):
    table = published_table(study, "_differences")
    whole, part = told(table), told(table[::3])
    assert part["verdict"].tolist() == whole["verdict"][::3].tolist()
    assert part["p_seeds_holm"].tolist() == whole["p_seeds_holm"][::3].tolist()
    # Of numbers that are not published, what is at hand is all there is.
    moved = told(table[::3].assign(difference=lambda rows: rows["difference"] + 0.001))
    rest = moved[~moved["primary"]]
    for _, own in rest.groupby("selection"):
        np.testing.assert_allclose(own["p_seeds_holm"], holm(own["p_seeds"].to_numpy()))


def test_a_table_without_a_comparison_leaves_the_others_as_they_are(monkeypatch, tmp_path):
    """A study of one method has one, and its columns would have no numbers' type."""
    (tmp_path / "results").mkdir()
    table = published_table("noise", "_differences")
    for name, rows in {"noise": table, "alone": table[:0]}.items():
        rows.to_csv(tmp_path / "results" / f"{name}_differences.csv", index=False)
    monkeypatch.setattr(frame, "ROOT", tmp_path)
    published_contrasts.cache_clear()
    found = published_contrasts()
    published_contrasts.cache_clear()
    assert found["p_seeds_holm"].dtype == float
    assert set(found["study"]) == {"noise"}


def test_other_runs_under_the_same_condition_are_no_primary_contrast():
    results = published_table("noise")
    rows = paired_differences(results, "mean_accuracy", "last").assign(p_images=np.nan)
    assert corrected(rows)["primary"].sum() == 4  # noise rates
    moved = rows.assign(difference=rows["difference"] + 0.001)
    assert not corrected(moved)["primary"].any()
    chosen = rows.assign(selection="best_validation")
    assert not corrected(chosen)["primary"].any()


def test_intervals_over_images_are_those_published():
    results = published_table("ablation")
    rows = paired_differences(results, "mean_accuracy", "last", "nla")
    table = with_images(rows, published_table("ablation", "_differences"))
    published = published_table("ablation", "_differences")
    for row in table.itertuples():
        (same,) = published[
            (published["method"] == row.method) & (published["settings"] == row.settings)
            & (published["metric"] == row.metric) & (published["selection"] == "last")
            & (published["reference"] == "nla")
        ].itertuples()  # fmt: skip
        assert (row.images_low, row.images_high) == (same.images_low, same.images_high)
    assert with_images(rows, published[:0])["p_images"].isna().all()
