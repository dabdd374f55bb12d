"""The table of a study's differences, from runs made by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_runs import LABELS, study_of, write_run

from nlalib.report import collect, frame
from nlalib.report.certainty import detectable_difference, holm
from nlalib.report.collect import study_table
from nlalib.report.differences import DIFFERENCE_COLUMNS, hits_on_test, study_differences
from nlalib.report.frame import SETTING
from nlalib.training.config import RunConfig


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    monkeypatch.setattr(frame, "ROOT", tmp_path)
    monkeypatch.setattr(collect, "load_dataset", lambda choice: (pd.DataFrame(), None))


@pytest.fixture
def study(runs):
    """ce, nla and gce of two seeds at two rates; nla is right where ce is and on one class more."""
    generator = np.random.default_rng(0)
    configs = []
    for seed in (0, 1):
        for rate in (0.0, 0.1):
            base = RunConfig(method="ce", seed=seed, noise_rate=rate, epochs=2)
            hit = (generator.random(len(LABELS)) < 0.5) & (LABELS != 2)
            for method in ("ce", "nla", "gce"):
                own = {"ce": hit, "nla": hit | (LABELS == 2), "gce": generator.random(42) < 0.5}
                config = replace(base, method=method)
                write_run(config, [own[method], np.ones(42, dtype=bool) & own[method]])
                configs.append(config)
    return study_of(*configs)


def test_differences_of_a_study(study):
    table = study_differences(study, study_table(study))
    assert list(table.columns) == DIFFERENCE_COLUMNS
    assert len(table) == 2 * 2 * 2 * 2  # methods, rates, selections, accuracies
    assert not table.duplicated([*SETTING, "selection", "metric"]).any()
    nla = table.query("method == 'nla'")
    assert nla["difference"].tolist() == pytest.approx([1 / 7] * 8)
    # Mean and bootstrap speak of one thing: the interval lies about the difference.
    assert (table["images_low"] <= table["difference"] + 1e-6).all()
    assert (table["images_high"] >= table["difference"] - 1e-6).all()
    # nla is never worse, so no resample is below zero.
    assert (nla["images_low"] > 0).all()
    assert (nla["p_images"] < 0.01).all()
    for _, same in table.groupby("selection"):
        for name in ("p_seeds", "p_images"):
            np.testing.assert_array_equal(same[f"{name}_holm"], holm(same[name].to_numpy()))
    row = table.query("method == 'gce'").iloc[0]
    assert row["detectable"] == pytest.approx(detectable_difference(row["deviation"], row["n"]))
    pd.testing.assert_frame_equal(table, study_differences(study, study_table(study)))
    # Both seeds gain alike, which says nothing of how far seeds lie apart.
    assert nla[["p_seeds", "p_equivalent"]].isna().all(axis=None)
    assert not table["primary"].any()


def test_declared_contrasts_are_corrected_among_themselves(study):
    declared = replace(study, primary=["nla"])
    table = study_differences(declared, study_table(study))
    assert set(table.loc[table["primary"], "method"]) == {"nla"}
    nla, gce = (table.query("method == @name") for name in ("nla", "gce"))
    assert len(nla) == 8  # rates, rules, accuracies
    assert nla["p_images_holm"].tolist() == holm(nla["p_images"].to_numpy()).tolist()
    for _, same in gce.groupby("selection"):
        assert same["p_images_holm"].tolist() == holm(same["p_images"].to_numpy()).tolist()


def test_declared_contrasts_that_have_not_run_count(study):
    """As chance would have them, so that what holds so far goes on to hold."""
    whole = replace(study, primary=["nla"], declared=study.runs)
    later = [RunConfig(method=m, seed=0, noise_rate=0.3, epochs=2) for m in ("ce", "nla", "gce")]
    alone = [RunConfig(method="nla", seed=0, noise_rate=0.4, epochs=2)]  # without a reference
    more = replace(whole, declared=study.runs | {c.run_id: c for c in [*later, *alone]})
    table = study_differences(whole, study_table(study))
    assert (
        table["p_images_holm"].tolist()
        == study_differences(replace(whole, declared={}), study_table(study))[
            "p_images_holm"
        ].tolist()
    )
    padded = study_differences(more, study_table(study))
    nla = padded["method"] == "nla"
    p_values = padded.loc[nla, "p_images"].to_numpy()
    # One rate more: two accuracies under two rules.
    assert (
        padded.loc[nla, "p_images_holm"].tolist()
        == holm(np.append(p_values, np.ones(4)))[:8].tolist()
    )
    assert (padded.loc[nla, "p_images_holm"] > table.loc[nla, "p_images_holm"]).all()
    # And two accuracies under each rule for the other method.
    for _, same in padded[~nla].groupby("selection"):
        wanted = holm(np.append(same["p_images"], np.ones(2)))[: len(same)]
        assert same["p_images_holm"].tolist() == wanted.tolist()


def test_selected_epoch_is_the_one_that_is_compared(runs):
    config = RunConfig(method="ce", epochs=2)
    first, last = LABELS == 0, LABELS > 0
    write_run(config, [first, last])
    assert hits_on_test(config, "last", "tiny")["hit"].sum() == last.sum()
    assert hits_on_test(config, "best_validation", "tiny")["hit"].sum() == first.sum()
    found = hits_on_test(config, "last", "tiny")
    assert found.index.tolist() == sorted(f"i{n:03d}" for n in range(len(LABELS)))


def test_study_with_a_hole_is_refused(study):
    hole = next(iter(study.runs.values()))
    (hole.folder / "done").unlink()
    with pytest.raises(FileNotFoundError, match="is not done; make it with\n  mkdir -p runs"):
        study_table(study)


def test_runs_tested_on_other_labels_are_refused(runs):
    ce, nla = (RunConfig(method=method, epochs=1) for method in ("ce", "nla"))
    write_run(ce, [LABELS == 0])
    write_run(nla, [LABELS == 0], labels=LABELS[::-1].copy())
    with pytest.raises(ValueError, match="tested on other images or labels"):
        study_differences(study_of(ce, nla), study_table(study_of(ce, nla)))


def test_study_without_the_reference_has_no_rows(runs):
    nla = RunConfig(method="nla", epochs=1)
    write_run(nla, [LABELS == 0])
    table = study_differences(study_of(nla), study_table(study_of(nla)))
    assert list(table.columns) == DIFFERENCE_COLUMNS
    assert table.empty
