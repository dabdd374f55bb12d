"""What the command line does with a study's tables: collect, show, publish."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from made_runs import LABELS, RESULTS, write_run

from nlalib.report import records
from nlalib.report.readme import headline_section
from nlalib.report.studies import read_study
from nlalib.training.config import RunConfig


def tiny_study(root: Path) -> tuple[str, dict[tuple[str, int], RunConfig]]:
    """Return the path of the project's study, and its runs by method and seed."""
    path = str(root / "configs" / "tiny.yaml")
    return path, {(run.method, run.seed): run for run in read_study(path).runs.values()}


def test_collect_show_and_publish(project, capsys):
    root, run = project
    study = str(root / "configs" / "tiny.yaml")
    for command in ("show", "publish"):
        assert run(command, study) == 1
        assert "study-tiny/results.csv; run the study tiny" in capsys.readouterr().err
    assert run("collect", study) == 1
    assert "is not done; make it with" in capsys.readouterr().err
    for method in ("ce", "nla"):
        for seed in (0, 1):
            better = (LABELS == 3) & (method == "nla")
            write_run(RunConfig(epochs=4, method=method, seed=seed), [(LABELS < 2) | better] * 4)
    assert run("collect", study) == 0
    collected = root / "runs" / "study-tiny"
    # Six decimals are enough for anything that is printed.
    in_file = pd.read_csv(collected / "epochs.csv", dtype="str")
    assert "0.333333" in set(in_file["accuracy_given"])
    assert not in_file.duplicated(["run_id", "epoch"]).any()
    assert run("show", study) == 0
    shown = capsys.readouterr().out
    assert "A tiny study" in shown
    assert "mean of the last five" in shown
    assert "gate inconclusive, as ce has not fitted its labels" in shown
    assert "ce fits 50.0% of its labels, without noise" in shown
    assert "nla - ce, overall accuracy: +14.3 [" in shown
    assert run("publish", study) == 0
    for name, file in {"": "results", "_epochs": "epochs", "_differences": "differences"}.items():
        published = root / "results" / f"tiny{name}.csv"
        assert published.read_bytes() == (collected / f"{file}.csv").read_bytes()
    predictions = pd.read_parquet(root / "results" / "predictions" / "tiny.parquet")
    assert set(predictions["run_id"]) == set(read_study(study).runs)
    # The table for readers is made of what is published alone, and says that it proves nothing.
    shutil.rmtree(root / "runs")
    section = headline_section()
    assert section.startswith("`tiny`: data set rendered, ")
    assert "Gate of `tiny`: inconclusive" in section
    # And all of it can be made again without the runs.
    assert run("collect", study) == 0
    again = pd.read_csv(root / "runs" / "study-tiny" / "results.csv")
    pd.testing.assert_frame_equal(again, pd.read_csv(root / "results" / "tiny.csv"))


def test_a_study_of_one_method_ends_with_its_table(project, capsys):
    """Nothing to compare it with, and no reference: a table without differences."""
    root, run = project
    path = root / "configs" / "tiny.yaml"
    path.write_text(path.read_text().replace("[ce, nla]", "[nla]"))
    for seed in (0, 1):
        write_run(RunConfig(epochs=4, method="nla", seed=seed), [LABELS < 2] * 4)
    for command in ("collect", "show", "publish"):
        assert run(command, str(path)) == 0, capsys.readouterr().err
    assert set(pd.read_csv(root / "results" / "tiny.csv")["method"]) == {"nla"}
    assert pd.read_csv(root / "results" / "tiny_differences.csv").empty


def test_of_runs_without_records_it_is_said(project, capsys):
    root, run = project
    study = str(root / "configs" / "tiny.yaml")
    for method in ("ce", "nla"):
        for seed in (0, 1):
            write_run(RunConfig(epochs=4, method=method, seed=seed), [LABELS < 2] * 4)
    configs = list(read_study(study).runs.values())
    for here in range(len(configs) + 1):
        assert run("collect", study) == 0
        said = f"{4 - here} finished runs have no naw.parquet"
        assert (said in capsys.readouterr().out) == (here < len(configs))
        if here < len(configs):
            (configs[here].folder / "naw.parquet").touch()


def test_an_unfinished_study_is_collected_so_far(project, capsys):
    root, run = project
    study = str(root / "configs" / "tiny.yaml")
    for method, seed in (("ce", 0), ("nla", 0), ("nla", 1)):
        write_run(RunConfig(epochs=4, method=method, seed=seed), [LABELS < 2] * 4)
    assert run("collect", study) == 1
    assert "is not done" in capsys.readouterr().err
    assert run("collect", study, "--so-far") == 0
    assert "tiny: 2 of 4 runs; 1 more are done, but not their reference" in capsys.readouterr().out
    table = pd.read_csv(root / "runs" / "study-tiny" / "results.csv")
    assert set(table["seed"]) == {0}
    with pytest.raises(SystemExit):  # where it would do nothing it is refused
        run("publish", study, "--so-far")
    assert "--so-far is an option of collect alone" in capsys.readouterr().err


def test_finished_runs_of_an_unfinished_study_are_kept(project, capsys):
    """Run by run, each folder gone before the next is done; the study ends as if all were there."""
    root, run = project
    study = str(root / "configs" / "tiny.yaml")
    assert run("keep", study) == 1
    assert "no run of study tiny is done or kept" in capsys.readouterr().err
    for number, config in enumerate(read_study(study).runs.values()):
        write_run(config, [2 + number > LABELS] * 4)
        assert run("keep", study) == 0
        assert f"kept {number + 1} of 4 runs" in capsys.readouterr().out
        shutil.rmtree(config.folder)
        # What is kept is no result yet.
        with pytest.raises(FileNotFoundError, match="publish a finished study first"):
            headline_section()
    assert run("collect", study) == 0
    table = pd.read_csv(root / "runs" / "study-tiny" / "results.csv")
    last = table.query("selection == 'last' and metric == 'overall_accuracy'")
    assert last["value"].tolist() == pytest.approx([2 / 7, 3 / 7, 4 / 7, 5 / 7], abs=1e-6)


def test_a_study_published_so_far_keeps_the_runs_without_reference(project, capsys):
    """Also if the folder of such a run is gone by then."""
    root, run = project
    study, runs = tiny_study(root)
    write_run(runs["nla", 1], [LABELS < 2] * 4)
    assert run("keep", study) == 0
    shutil.rmtree(runs["nla", 1].folder)
    for method in ("ce", "nla"):
        write_run(runs[method, 0], [LABELS < 3] * 4)
    assert run("collect", study, "--so-far") == 0
    assert run("publish", study) == 0
    assert set(pd.read_csv(root / "results" / "tiny.csv")["seed"]) == {0}
    assert set(pd.read_csv(root / "results" / "tiny_epochs.csv")["seed"]) == {0}
    assert len(records.kept_runs("tiny")) == 3
    # The last run ends, and all folders but its own go.
    shutil.rmtree(root / "runs")
    write_run(runs["ce", 1], [LABELS < 1] * 4)
    assert run("collect", study) == 0
    table = pd.read_csv(root / "runs" / "study-tiny" / "results.csv")
    last = table.query("selection == 'last' and metric == 'overall_accuracy'")
    last = last.set_index(["method", "seed"])["value"]
    assert last["nla", 1] == pytest.approx(2 / 7, abs=1e-6)
    assert last["ce", 1] == pytest.approx(1 / 7, abs=1e-6)
    # Published whole, nothing is kept twice; and what is kept changes nothing that is published.
    assert run("publish", study) == 0
    assert [path.name for path in (root / "results/predictions").iterdir()] == ["tiny.parquet"]
    published = (root / "results" / "tiny_epochs.csv").read_bytes()
    assert run("keep", study) == 0
    assert (root / "results" / "tiny_epochs.csv").read_bytes() == published


def test_nothing_is_kept_twice_of_a_study_published_as_far_as_it_ran(project):
    root, run = project
    study, runs = tiny_study(root)
    for method in ("ce", "nla"):
        write_run(runs[method, 0], [LABELS < 3] * 4)
    assert run("collect", study, "--so-far") == 0
    assert run("publish", study) == 0
    assert [path.name for path in (root / "results/predictions").iterdir()] == ["tiny.parquet"]
    assert records.kept_runs("tiny") == {runs[method, 0].run_id for method in ("ce", "nla")}


def test_publish_loses_no_published_run(project, capsys):
    """Of a study whose predictions are not kept, the others' folders gone."""
    root, run = project
    study, runs = tiny_study(root)
    for config in runs.values():
        write_run(config, [LABELS < 3] * 4)
    assert run("collect", study) == run("publish", study) == 0
    published = (root / "results" / "tiny.csv").read_bytes()
    (root / "results" / "predictions" / "tiny.parquet").unlink()
    shutil.rmtree(runs["ce", 1].folder)
    assert run("collect", study, "--so-far") == 0
    assert run("publish", study) == 1
    assert "lacks 2 runs that are published in" in (error := capsys.readouterr().err)
    assert "or remove that file first" in error
    assert (root / "results" / "tiny.csv").read_bytes() == published


@pytest.mark.parametrize("name", ["predictions.parquet", "epochs.csv"])
def test_publish_refuses_what_a_broken_off_collect_left(project, capsys, name):
    root, run = project
    study, runs = tiny_study(root)
    for method in ("ce", "nla"):
        write_run(runs[method, 0], [LABELS < 3] * 4)
    assert run("collect", study, "--so-far") == 0
    older = (root / "runs" / "study-tiny" / name).read_bytes()
    for method in ("ce", "nla"):
        write_run(runs[method, 1], [LABELS < 3] * 4)
    assert run("collect", study) == 0
    (root / "runs" / "study-tiny" / name).write_bytes(older)
    assert run("publish", study) == 1
    assert f"study-tiny/{name} has other runs than results.csv" in capsys.readouterr().err
    assert not (root / "results" / "tiny.csv").exists()


def test_another_training_does_not_mix_with_kept_runs(project, capsys):
    root, run = project
    study, runs = tiny_study(root)
    for config in runs.values():
        write_run(config, [LABELS < 3] * 4)
    assert run("collect", study) == run("publish", study) == 0
    predictions = root / "results" / "predictions" / "tiny.parquet"
    kept = predictions.read_bytes()
    shutil.rmtree(runs["ce", 1].folder)
    assert run("collect", study) == 0  # the same trainings, one of them gone
    shutil.rmtree(runs["nla", 0].folder)
    write_run(runs["nla", 0], [LABELS < 2] * 4)
    for command in ("collect", "keep"):
        assert run(command, study) == 1
        assert "has other losses or accuracies than the same run" in capsys.readouterr().err
    assert predictions.read_bytes() == kept
    # All of it trained again is nobody else's.
    write_run(runs["ce", 1], [LABELS < 2] * 4)
    assert run("collect", study) == 0


def test_publish_without_its_side_tables_says_what_to_do(project, capsys):
    root, run = project
    (root / "runs" / "study-tiny").mkdir(parents=True)
    RESULTS.to_csv(root / "runs" / "study-tiny" / "results.csv", index=False)
    assert run("publish", str(root / "configs" / "tiny.yaml")) == 1
    assert "no " in (error := capsys.readouterr().err)
    assert "study-tiny/epochs.csv; run the study tiny" in error
    assert not (root / "results" / "tiny.csv").exists()
