"""The published tables again from the kept predictions alone, and what happens if they differ."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_runs import LABELS, write_run

from nlalib.report.recompute import KEYS, compared, published_part, recomputed
from nlalib.report.studies import read_study
from nlalib.training.config import RunConfig
from places import ROOT


@pytest.fixture
def published(project):
    """A published study of four runs whose folders are gone."""
    root, run = project
    study = str(root / "configs" / "tiny.yaml")
    for method in ("ce", "nla"):
        for seed in (0, 1):
            hit = (2 + seed > LABELS) | ((LABELS == 5) & (method == "nla"))
            write_run(RunConfig(epochs=4, method=method, seed=seed), [LABELS < 1, hit, hit, hit])
    for command in ("collect", "publish"):
        assert run(command, study) == 0
    shutil.rmtree(root / "runs")
    return root, run


def test_all_numbers_come_again_without_runs(published, capsys):
    root, run = published
    numbers = len(pd.read_csv(root / "results" / "tiny.csv"))
    assert run("recompute") == 0
    out = capsys.readouterr().out
    assert f"4 runs: {numbers} of {numbers} numbers recomputed, all as published" in out
    assert "tiny_differences.csv, 4 runs: 56 of 56 numbers recomputed" in out
    assert "for want of" not in out
    # Of a named study the tables are shown; and a run that the reader trained is not looked at.
    write_run(RunConfig(epochs=4, method="ce", seed=0), [LABELS < 7] * 4)
    assert run("recompute", str(root / "configs" / "tiny.yaml")) == 0
    out = capsys.readouterr().out
    assert "A tiny study" in out
    assert "last: nla - ce, overall accuracy: +14.3 [" in out


def test_a_prediction_that_was_changed_is_named(published, capsys):
    root, run = published
    path = root / "results" / "predictions" / "tiny.parquet"
    table = pd.read_parquet(path)
    changed = RunConfig(epochs=4, method="nla", seed=1).run_id
    row = table.index[(table["run_id"] == changed) & (table["epoch"] == 3) & (table["label"] == 0)]
    names = [name for name in table if name.startswith("log_p_")]
    table.loc[row[0], names] = table.loc[row[0], names].to_numpy()[::-1].copy()
    table.to_parquet(path)
    assert run("recompute") == 1
    out, error = capsys.readouterr()
    # Of 42 images 24 were right, and one is not any more.
    right, wrong = round(24 / 42, 6), round(23 / 42, 6)
    line = f"{changed}, last, overall_accuracy: published {right}, recomputed {wrong}"
    assert line in out
    assert "nla, resnet18_narrow16, random" in out.split("tiny_differences.csv")[1]
    assert "numbers that are not as published: " in error
    assert not [line for line in out.splitlines() if line.startswith("    rendered-ce")]


def test_numbers_that_take_votes_are_named(published, capsys):
    root, run = published
    path = root / "results" / "tiny.csv"
    table = pd.read_csv(path)
    of_votes = table.query("metric == 'nll'").assign(metric="kl_to_votes", value=0.5)
    pd.concat([table, of_votes]).to_csv(path, index=False)
    assert run("recompute") == 0
    out = capsys.readouterr().out
    assert f"{len(table)} of {len(table) + 8} numbers recomputed, all as published" in out
    assert "for want of the data set's votes (data/README.md): kl_to_votes\n" in out


def test_what_is_not_there_is_one_line(published, capsys):
    root, run = published
    assert run("recompute", str(root / "configs" / "other.yaml")) == 1
    assert "no study at" in capsys.readouterr().err
    (root / "results" / "predictions" / "tiny.parquet").unlink()
    assert run("recompute", str(root / "configs" / "tiny.yaml")) == 1
    error = capsys.readouterr().err
    assert "4 of the 4 published runs of study tiny, such as rendered-ce-seed0-" in error
    assert error.count("\n") == 1


def test_only_sums_and_means_over_epochs_may_be_rounded():
    def table(**values) -> pd.DataFrame:
        rows = [("r", *name.split("__"), value) for name, value in values.items()]
        return pd.DataFrame(rows, columns=[*KEYS[""], "value"])

    names = ("last__nll", "last_five__mean_accuracy", "last__training_seconds", "last__ece")
    values = dict(zip(names, (0.5, 0.5, 9.0, np.nan), strict=True))
    before, metrics = table(**values), ["nll", "mean_accuracy", "training_seconds", "ece"]

    def equal(off: float) -> list[bool]:
        after = before.assign(value=before["value"] + off)
        return compared(before, after, KEYS[""], metrics)["is_equal"].tolist()

    assert equal(4e-7) == [True, True, True, True]
    assert equal(1e-6) == [False, True, True, True]
    assert equal(2e-6) == [False, False, True, True]
    assert equal(1e-4) == [False, False, False, True]
    # Nor is a number the same that is not found, or where there was none.
    less = compared(before, before.iloc[:2], KEYS[""], ["nll", "ece"])
    assert less["is_equal"].tolist() == [True, True, False, False]
    assert less["is_recomputed"].tolist() == [True, False, False, True]
    assert not compared(before, before.fillna(1.0), KEYS[""], metrics)["is_equal"].iloc[3]


def test_accuracies_of_the_main_study_by_plain_arithmetic():
    """From the file of predictions to the published accuracy, with nothing of this project."""
    study = published_part(read_study(ROOT / "configs" / "face_long.yaml"))
    run_id = next(r for r, c in study.runs.items() if c.method == "nla" and c.noise_rate > 0)
    table = pq.read_table(ROOT / "results" / "predictions" / "face_long.parquet").to_pandas()
    of_run = table[(table["run_id"] == run_id) & (table["epoch"] == 19)]
    predicted = of_run.filter(like="log_p_").to_numpy().argmax(axis=1)
    labels = of_run["label"].to_numpy()
    recalls = [(predicted[labels == k] == k).mean() for k in range(7)]
    wanted = {"overall_accuracy": (predicted == labels).mean(), "mean_accuracy": np.mean(recalls)}
    with (ROOT / "results" / "face_long.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["run_id"] == run_id]
    shown = {row["metric"]: float(row["value"]) for row in rows if row["selection"] == "last"}
    part = replace(study, runs={run_id: study.runs[run_id]})
    found = recomputed(part)[""].query("selection == 'last'").set_index("metric")["value"]
    for metric, value in wanted.items():
        assert found[metric] == pytest.approx(value, abs=1e-12)
        assert shown[metric] == pytest.approx(value, abs=6e-7)
