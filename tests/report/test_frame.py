"""From the files of finished runs to rows, summaries and the tables that readers see."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from nlalib import __main__ as command_line
from nlalib.report.frame import (
    COLUMNS,
    SETTING,
    difference_in_words,
    difference_table,
    headline,
    markdown,
    percent,
    read_table,
    run_rows,
    study_table,
    summary,
)
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig

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
            "settings": "",
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
    fixed |= {"epochs": 4, "noise_rate": 0.1, "imbalance_factor": 1.0, "settings": "", **setting}
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
    with pytest.raises(ValueError, match="have one setting and seed: they differ in something"):
        summary(pd.concat([RESULTS, other]), "overall_accuracy", "last")


def test_settings_of_a_method_are_told_apart():
    other = RESULTS.query("method == 'nla'").assign(run_id="other", settings="trade_off=0.25")
    table = summary(pd.concat([RESULTS, other]), "overall_accuracy", "last")
    assert table["settings"].tolist() == ["", "", "trade_off=0.25"]
    assert table["n"].tolist() == [3, 3, 3]


def test_row_names_the_choices_of_its_run(runs):
    settings = {"method_settings": {"trade_off": 0.25}, "precision": "bf16"}
    config = replace(CONFIG, method="nla", **settings)
    write_run(config)
    assert run_rows(config, "tiny")["settings"].unique() == ["precision=bf16, trade_off=0.25"]


def test_tables_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "tiny.csv"
    mixed = pd.concat([RESULTS, RESULTS.assign(settings="trade_off=0.25")], ignore_index=True)
    for table in (RESULTS, mixed):
        table.to_csv(path, index=False)
        pd.testing.assert_frame_equal(read_table(path), table, check_dtype=False)
    # Written before there was the column.
    RESULTS.drop(columns="settings").to_csv(path, index=False)
    old = read_table(path)
    assert list(old.columns) == COLUMNS
    assert set(old["settings"]) == {""}


def test_summary_of_nothing_says_what_there_is():
    with pytest.raises(ValueError, match=r"no rows for metric 'nll'.*mean_accuracy.*best_test"):
        summary(RESULTS, "nll", "last")


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
        "setting": "noise 10%",
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


def test_setting_is_told_in_words():
    rows = results_of({"nla": [0.5]}, imbalance_factor=20.0, settings="trade_off=0.25")
    assert headline(rows)["setting"].iloc[0] == "noise 10%, imbalance 20, trade_off=0.25"
    plain = rows.assign(noise_rate=0.0, imbalance_factor=1.0, settings="")
    assert set(headline(plain)["setting"]) == {""}


def differences_of(method: str, noise_rate: float, accuracies: list, **other) -> list[dict]:
    """Return rows of a table of differences, as many points as given, one point either way."""
    row = {**dict.fromkeys(SETTING, ""), "noise_rate": noise_rate, "imbalance_factor": 1.0, "n": 3}
    row |= {"dataset": "rendered", "backbone": "small"}
    row |= {"method": method, "reference": "ce", "selection": "last", **other}
    rows = []
    for metric, points in accuracies:
        value = points / 100
        seeds = {"difference": value, "low": value - 0.01, "high": value + 0.01}
        images = {"images_low": value - 0.005, "images_high": value + 0.005}
        rows.append({**row, "metric": metric, **seeds, **images, **other})
    return rows


def test_difference_in_words():
    row = differences_of("nla", 0.1, [("mean_accuracy", -1.2)])[0]
    assert difference_in_words(pd.Series(row)) == (
        "nla, noise 10% - ce, mean accuracy: -1.2 [-2.2, -0.2] [-1.7, -0.7], n = 3"
    )


def test_differences_of_a_method_as_a_table():
    accuracies = [("overall_accuracy", -1.2), ("mean_accuracy", 3)]
    one_seed = {"n": 1, "low": float("nan"), "high": float("nan"), "settings": "precision=bf16"}
    rows = differences_of("nla", 0.1, accuracies)
    rows += differences_of("scn", 0.1, accuracies)
    rows += differences_of("nla", 0.1, accuracies, selection="best_validation")
    rows += differences_of("nla", 0.2, accuracies, **one_seed)
    table = difference_table(pd.DataFrame(rows), "nla")
    assert table.to_dict("records") == [
        {
            "difference": "nla - ce",
            "data set": "rendered",
            "setting": "noise 10%",
            "network": "small",
            "overall accuracy": "-1.2 [-2.2, -0.2] [-1.7, -0.7]",
            "mean accuracy": "+3.0 [+2.0, +4.0] [+2.5, +3.5]",
            "seeds": 3,
        },
        {
            "difference": "nla - ce",
            "data set": "rendered",
            "setting": "noise 20%, precision=bf16",
            "network": "small",
            "overall accuracy": "-1.2 [-1.7, -0.7]",  # over test images
            "mean accuracy": "+3.0 [+2.5, +3.5]",
            "seeds": 1,
        },
    ]


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
    monkeypatch.setattr(command_line, "README_STUDIES", ("tiny",))
    monkeypatch.setattr(command_line, "COMPARED_STUDIES", ("tiny",))
    (tmp_path / "tiny.yaml").write_text(STUDY)

    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["nlalib", *words])
        return command_line.main()

    return tmp_path, run


def test_collect_show_and_publish(project, monkeypatch, capsys):
    root, run = project
    # What is in the two tables beside the results is tested with the modules that make them.
    facts = pd.DataFrame({"epoch": [0, 1], "metric": "accuracy_given", "value": [1 / 3, 0.5]})
    row = {**dict.fromkeys(SETTING, ""), "noise_rate": 0.0, "imbalance_factor": 1.0, "n": 3}
    row |= {"method": "nla", "reference": "ce", "selection": "last", "metric": "mean_accuracy"}
    row |= {"difference": 0.01, "low": -0.02, "high": 0.04, "images_low": 0.0, "images_high": 0.02}
    monkeypatch.setattr(command_line, "study_epoch_facts", lambda study: facts)
    monkeypatch.setattr(
        command_line, "study_differences", lambda study, reference: pd.DataFrame([row])
    )
    study = str(root / "tiny.yaml")
    for command in ("show", "publish"):
        assert run(command, study) == 1
        assert "study-tiny/results.csv; run the study tiny" in capsys.readouterr().err
    assert run("collect", study) == 1
    assert "is not done; make it with" in capsys.readouterr().err
    for method in ("ce", "nla"):
        write_run(RunConfig(epochs=4, method=method))
    assert run("collect", study) == 0
    collected = root / "runs" / "study-tiny"
    assert len(pd.read_csv(collected / "results.csv")) == 22
    # Six decimals are enough for anything that is printed.
    assert "0,accuracy_given,0.333333\n" in (collected / "epochs.csv").read_text()
    assert run("show", study) == 0
    shown = capsys.readouterr().out
    assert "A tiny study" in shown
    assert "best on validation" in shown
    assert "nla - ce, mean accuracy: +1.0 [-2.0, +4.0] [+0.0, +2.0], n = 3" in shown
    assert run("publish", study) == 0
    for name, file in {"": "results", "_epochs": "epochs", "_differences": "differences"}.items():
        published = root / "results" / f"tiny{name}.csv"
        assert published.read_bytes() == (collected / f"{file}.csv").read_bytes()
    # The table for readers is made of results alone.
    assert command_line.headline_section().count("| data set |") == 1


def test_publish_without_its_side_tables_says_what_to_do(project, capsys):
    root, run = project
    (root / "runs" / "study-tiny").mkdir(parents=True)
    RESULTS.to_csv(root / "runs" / "study-tiny" / "results.csv", index=False)
    assert run("publish", str(root / "tiny.yaml")) == 1
    assert "no " in (error := capsys.readouterr().err)
    assert "study-tiny/epochs.csv; run the study tiny" in error
    assert not (root / "results" / "tiny.csv").exists()


HEADLINE, HEADLINE_END = command_line.readme_marks("headline table")
DIFFERENCES, DIFFERENCES_END = command_line.readme_marks("differences")
BOTH = f"{HEADLINE}{HEADLINE_END} {DIFFERENCES}{DIFFERENCES_END}"


@pytest.fixture
def published(project):
    """The project with a published study."""
    root, run = project
    (root / "results").mkdir()
    RESULTS.to_csv(root / "results" / "tiny.csv", index=False)
    differences = differences_of("nla", 0.1, [("overall_accuracy", -1), ("mean_accuracy", 2)])
    pd.DataFrame(differences).to_csv(root / "results" / "tiny_differences.csv", index=False)
    return root, run


def test_readme_changes_between_its_marks_alone(published):
    root, run = published
    before, between = "# Title\n\ntext | with | bars\n\n", "\n\nand the differences\n\n"
    after = "\n\n## More\nlast line without end"
    (root / "README.md").write_text(
        f"{before}{HEADLINE}\nold table\n{HEADLINE_END}{between}"
        f"{DIFFERENCES}\nold table\n{DIFFERENCES_END}{after}"
    )
    assert run("readme") == 0
    first = (root / "README.md").read_text()
    assert first.startswith(f"{before}{HEADLINE}\n")
    assert f"\n{HEADLINE_END}{between}{DIFFERENCES}\n" in first
    assert first.endswith(f"\n{DIFFERENCES_END}{after}")
    assert "old table" not in first
    assert "73.0 ± 3.6" in first.partition(between)[0]
    assert "-1.0 [-2.0, +0.0]" in first.partition(between)[2]
    assert first.count("| tiny |") == 6 + 1
    assert run("readme") == 0
    assert (root / "README.md").read_text() == first


@pytest.mark.parametrize(
    "text",
    ["no marks", BOTH.replace(HEADLINE, ""), BOTH.replace(DIFFERENCES_END, ""), BOTH + BOTH,
     f"{DIFFERENCES_END}{DIFFERENCES}{HEADLINE}{HEADLINE_END}"],
    ids=repr,
)  # fmt: skip
def test_readme_without_its_marks_is_left_alone(published, capsys, text):
    root, run = published
    (root / "README.md").write_text(text)
    assert run("readme") == 1
    assert "README.md must hold once, in this order" in capsys.readouterr().err
    assert (root / "README.md").read_text() == text


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("tiny.csv", "no table in results/; publish a finished study first"),
        ("tiny_differences.csv", "no differences in results/; publish a finished study first"),
    ],
)
def test_readme_without_published_results(published, capsys, removed, message):
    root, run = published
    (root / "README.md").write_text(BOTH)
    (root / "results" / removed).unlink()
    assert run("readme") == 1
    assert message in capsys.readouterr().err
    assert (root / "README.md").read_text() == BOTH
