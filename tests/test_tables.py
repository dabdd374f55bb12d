"""From the files of finished runs to rows, summaries and the tables that readers see."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nlalib import __main__ as command_line
from nlalib.runs import RunConfig
from nlalib.studies import Study
from nlalib.tables import (
    COLUMNS,
    SETTING,
    headline,
    markdown,
    paired_difference,
    percent,
    run_rows,
    study_table,
    summary,
)

CONFIG = RunConfig(epochs=4, noise_rate=0.1)
METRICS = """\
epoch,train_loss,validation_overall_accuracy,validation_nll,test_overall_accuracy,test_mean_accuracy,test_nll
0,2.0,0.10,2.0,0.11,0.91,2.1
1,1.5,0.60,1.0,0.22,0.42,1.2
2,1.2,0.60,0.9,0.73,0.33,1.3
3,1.0,0.20,0.8,0.44,0.14,1.4
"""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def write_run(config: RunConfig, metrics: str = METRICS, seconds: float = 12.5) -> None:
    config.folder.mkdir(parents=True)
    (config.folder / "metrics.csv").write_text(metrics)
    (config.folder / "done").write_text(json.dumps({"seconds": seconds}))


def study_of(*configs: RunConfig) -> Study:
    return Study("tiny", "A tiny study", {}, {config.run_id: config for config in configs})


def test_rows_of_a_run_by_hand(runs):
    write_run(CONFIG)
    rows = run_rows(CONFIG, "tiny")
    assert list(rows.columns) == COLUMNS
    found = {(row.selection, row.metric): row.value for row in rows.itertuples()}
    assert len(found) == len(rows)
    assert found == {
        ("last", "overall_accuracy"): 0.44,
        ("last", "mean_accuracy"): 0.14,
        ("last", "nll"): 1.4,
        ("last", "selected_epoch"): 3,
        ("last", "training_seconds"): 12.5,
        ("best_validation", "overall_accuracy"): 0.22,
        ("best_validation", "mean_accuracy"): 0.42,
        ("best_validation", "nll"): 1.2,
        ("best_validation", "selected_epoch"): 1,
        # Each of its own best epoch, as the released code has it.
        ("best_test", "overall_accuracy"): 0.73,
        ("best_test", "mean_accuracy"): 0.91,
    }
    identity = rows[["study", "run_id", *SETTING, "seed"]].drop_duplicates()
    assert identity.to_dict("records") == [
        {
            "study": "tiny",
            "run_id": CONFIG.run_id,
            "dataset": "rendered",
            "method": "nla",
            "backbone": "resnet18_narrow16",
            "init": "random",
            "epochs": 4,
            "noise_rate": 0.1,
            "imbalance_factor": 1.0,
            "seed": 0,
        }
    ]


def test_table_of_a_study_has_all_runs(runs):
    configs = [replace(CONFIG, seed=seed) for seed in (0, 1)]
    for config in configs:
        write_run(config)
    table = study_table(study_of(*configs))
    assert table["run_id"].unique().tolist() == [config.run_id for config in configs]
    assert len(table) == 22
    assert table.index.tolist() == list(range(22))


def test_missing_run_is_named_with_its_command(runs):
    write_run(CONFIG)
    missing = replace(CONFIG, seed=7)
    with pytest.raises(FileNotFoundError, match=f"run {missing.run_id} of study tiny") as caught:
        study_table(study_of(CONFIG, missing))
    assert "papermill notebooks/04_training.ipynb" in str(caught.value)
    assert "-p seed 7" in str(caught.value)
    # Metrics alone are no finished run.
    write_run(missing)
    (missing.folder / "done").unlink()
    with pytest.raises(FileNotFoundError, match="is not done"):
        study_table(study_of(CONFIG, missing))


def results_of(values: dict[str, list[float]], **setting) -> pd.DataFrame:
    """A long table with one accuracy for each method and seed, the same under each rule."""
    rows = []
    for method, accuracies in values.items():
        for seed, value in enumerate(accuracies):
            for selection in ("last", "best_validation", "best_test"):
                for metric, factor in (("overall_accuracy", 1.0), ("mean_accuracy", 0.5)):
                    row = {"run_id": f"{method}{seed}", "method": method, "seed": seed}
                    row |= {"selection": selection, "metric": metric, "value": factor * value}
                    rows.append(row)
    fixed = {"study": "tiny", "dataset": "rendered", "backbone": "small", "init": "random"}
    fixed |= {"epochs": 4, "noise_rate": 0.1, "imbalance_factor": 1.0, **setting}
    return pd.DataFrame(rows).assign(**fixed)[COLUMNS]


RESULTS = results_of({"ce": [0.70, 0.72, 0.77], "nla": [0.75, 0.74, 0.83]})


def test_summary_is_mean_deviation_and_number():
    table = summary(RESULTS, "overall_accuracy", "last").set_index("method")
    assert table.loc["ce", "mean"] == pytest.approx(0.73)
    # Squared deviations .0009 + .0001 + .0016, over n - 1 = 2.
    assert table.loc["ce", "std"] == pytest.approx(0.0013**0.5)
    assert table["n"].tolist() == [3, 3]
    assert summary(RESULTS, "mean_accuracy", "last")["mean"].iloc[0] == pytest.approx(0.365)


def test_summary_of_one_seed_has_no_deviation():
    table = summary(results_of({"ce": [0.7]}), "overall_accuracy", "last")
    assert table["n"].tolist() == [1]
    assert table["std"].isna().all()


def test_summary_keeps_settings_apart():
    both = pd.concat([RESULTS, results_of({"ce": [0.1, 0.3]}, noise_rate=0.3)])
    table = summary(both, "overall_accuracy", "last")
    assert table["mean"].tolist() == pytest.approx([0.73, 0.7733333, 0.2])
    assert table["n"].tolist() == [3, 3, 2]


def test_runs_that_differ_in_something_untold_are_not_averaged():
    other = RESULTS.query("method == 'nla'").assign(run_id="nla with another lambda")
    for function in (summary, lambda *given: paired_difference(given[0], "nla", "ce", *given[1:])):
        with pytest.raises(ValueError, match="have one setting and seed: they differ in something"):
            function(pd.concat([RESULTS, other]), "overall_accuracy", "last")


def test_summary_of_nothing_says_what_there_is():
    with pytest.raises(ValueError, match=r"no rows for metric 'nll'.*mean_accuracy.*best_test"):
        summary(RESULTS, "nll", "last")


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paired_difference_is_that_of_scipy(confidence):
    found = paired_difference(RESULTS, "nla", "ce", "overall_accuracy", "last", confidence)
    test = stats.ttest_rel([0.75, 0.74, 0.83], [0.70, 0.72, 0.77])
    interval = test.confidence_interval(confidence)
    assert found["difference"] == pytest.approx((0.05 + 0.02 + 0.06) / 3)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["n"] == 3


def test_pairs_are_matched_by_seed_and_not_by_order():
    shuffled = RESULTS.sample(frac=1, random_state=0)
    incomplete = shuffled[~((shuffled["method"] == "ce") & (shuffled["seed"] == 0))]
    found = paired_difference(incomplete, "nla", "ce", "overall_accuracy", "last")
    assert found["difference"] == pytest.approx((0.02 + 0.06) / 2)
    assert found["n"] == 2


def test_one_pair_has_no_interval():
    found = paired_difference(
        RESULTS.query("seed == 1"), "nla", "ce", "overall_accuracy", "best_test"
    )
    assert found["difference"] == pytest.approx(0.02)
    assert np.isnan(found["low"])
    assert np.isnan(found["high"])
    assert found["n"] == 1


def test_difference_that_cannot_be_taken():
    with pytest.raises(ValueError, match=r"no results of method 'rul'; there are \['ce', 'nla'\]"):
        paired_difference(RESULTS, "rul", "ce", "overall_accuracy", "last")
    apart = RESULTS.query("(method == 'ce') == (seed == 0)")
    with pytest.raises(ValueError, match="have no seed in common"):
        paired_difference(apart, "nla", "ce", "overall_accuracy", "last")
    two_sets = pd.concat([RESULTS, RESULTS.assign(dataset="ferplus")])
    with pytest.raises(ValueError, match="differ in dataset too; give those of one setting"):
        paired_difference(two_sets, "nla", "ce", "overall_accuracy", "last")


def test_percent():
    assert percent(0.7123, 0.0042) == "71.2 ± 0.4"
    assert percent(0.7123, float("nan")) == "71.2"


def test_headline_reads_in_words():
    table = headline(pd.concat([RESULTS, results_of({"other": [0.5]})]))
    assert len(table) == 9
    rules = ["last", "best on validation", "best on test"]
    assert table["epoch chosen"].drop_duplicates().tolist() == rules
    assert table.iloc[0].to_dict() == {
        "data set": "rendered",
        "method": "ce",
        "network": "small",
        "init": "random",
        "epochs": 4,
        "epoch chosen": "last",
        "overall accuracy %": "73.0 ± 3.6",
        "mean accuracy %": "36.5 ± 1.8",
        "seeds": 3,
    }
    alone = table[table["method"] == "other"].iloc[0]
    assert (alone["overall accuracy %"], alone["seeds"]) == ("50.0", 1)


def test_markdown_of_a_table():
    table = pd.DataFrame({"a b": [1, 2], "c": ["x", "y ± z"]})
    assert markdown(table) == "| a b | c |\n| --- | --- |\n| 1 | x |\n| 2 | y ± z |"


# The command line.

STUDY = """\
study: tiny
title: A tiny study
notebooks: {}
fixed: {epochs: 4}
grid: {method: [ce, nla]}
"""


@pytest.fixture
def project(tmp_path, monkeypatch, runs):
    """A project's root of its own; returns a function that runs one command there."""
    monkeypatch.setattr(command_line, "ROOT", tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY)

    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["nlalib", *words])
        return command_line.main()

    return tmp_path, run


def test_collect_show_publish_and_readme(project, capsys):
    root, run = project
    study = str(root / "tiny.yaml")
    for command in ("show", "publish"):
        assert run(command, study) == 1
        assert "study-tiny/results.csv; run the study tiny" in capsys.readouterr().err
    assert run("collect", study) == 1
    assert "is not done; make it with" in capsys.readouterr().err
    for method in ("ce", "nla"):
        write_run(RunConfig(epochs=4, method=method))
    assert run("collect", study) == 0
    collected = root / "runs" / "study-tiny" / "results.csv"
    assert len(pd.read_csv(collected)) == 22
    assert run("show", study) == 0
    shown = capsys.readouterr().out
    assert "A tiny study" in shown
    assert "best on validation" in shown
    assert run("publish", study) == 0
    assert (root / "results" / "tiny.csv").read_bytes() == collected.read_bytes()


BEGIN, END = command_line._BEGIN, command_line._END


def test_readme_changes_between_its_marks_alone(project):
    root, run = project
    (root / "results").mkdir()
    RESULTS.to_csv(root / "results" / "tiny.csv", index=False)
    before, after = "# Title\n\ntext | with | bars\n\n", "\n\n## More\nlast line without end"
    (root / "README.md").write_text(f"{before}{BEGIN}\nold table\n{END}{after}")
    assert run("readme") == 0
    first = (root / "README.md").read_text()
    assert first.startswith(f"{before}{BEGIN}\n")
    assert first.endswith(f"\n{END}{after}")
    assert "old table" not in first
    assert "73.0 ± 3.6" in first
    assert "| tiny |" in first
    assert run("readme") == 0
    assert (root / "README.md").read_text() == first


@pytest.mark.parametrize(
    "text", ["no marks", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"], ids=repr
)
def test_readme_without_its_marks_is_left_alone(project, capsys, text):
    root, run = project
    (root / "results").mkdir()
    RESULTS.to_csv(root / "results" / "tiny.csv", index=False)
    (root / "README.md").write_text(text)
    assert run("readme") == 1
    assert "README.md must hold once, in this order" in capsys.readouterr().err
    assert (root / "README.md").read_text() == text


def test_readme_without_published_results(project, capsys):
    root, run = project
    (root / "README.md").write_text(f"{BEGIN}{END}")
    assert run("readme") == 1
    assert "no table in results/; publish a finished study first" in capsys.readouterr().err
