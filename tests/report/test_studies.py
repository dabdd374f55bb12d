"""A study's file: mistakes are refused before any work, and the workflow asks for its runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from papermill.cli import papermill as papermill_command

from nlalib.paths import ROOT
from nlalib.report.records import kept_runs
from nlalib.report.studies import read_study, training_command
from nlalib.training.config import RunConfig

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SOUND = {
    "study": "small",
    "title": "A small study",
    "notebooks": {"01_face_alignment": {"faces": 3}, "02_dataset_statistics": None},
    "fixed": {"train_images": 100, "epochs": 2},
    "grid": {"method": ["ce", "nla"], "seed": [0, 1, 2]},
}


@pytest.fixture
def read(tmp_path):
    """A function that reads a study from its content, or from text."""

    def read(content):
        path = tmp_path / "small.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return read_study(path)

    return read


def test_every_combination_is_one_run(read, tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    study = read(SOUND)
    wanted = [
        RunConfig(train_images=100, epochs=2, method=method, seed=seed)
        for method in ("ce", "nla")
        for seed in (0, 1, 2)
    ]
    assert study.runs == {config.run_id: config for config in wanted}
    assert study.notebooks == {"01_face_alignment": {"faces": 3}, "02_dataset_statistics": {}}
    assert (study.name, study.title) == ("small", "A small study")
    assert study.folder == tmp_path / "runs" / "study-small"


def test_study_without_grid_is_one_run(read):
    study = read({**SOUND, "grid": None, "notebooks": None})
    assert list(study.runs.values()) == [RunConfig(train_images=100, epochs=2)]
    assert study.notebooks == {}


def test_list_of_grids_is_all_their_combinations_in_order(read):
    grids = [
        {"method": ["ce", "nla"], "seed": [0, 1]},
        {"method": ["scn"], "method_settings": [{"relabel_from": 0.5}], "seed": [1]},
        {"seed": [7]},
    ]
    runs = list(read({**SOUND, "grid": grids}).runs.values())
    base = {"train_images": 100, "epochs": 2}
    assert runs == [
        *(RunConfig(**base, method=m, seed=s) for m in ("ce", "nla") for s in (0, 1)),
        RunConfig(**base, method="scn", method_settings={"relabel_from": 0.5}, seed=1),
        RunConfig(**base, seed=7),
    ]


PRETRAINED = {
    "pretraining": {"epochs": 3, "seed": 1},
    "fixed": {"backbone": "vit_tiny_patch6", "epochs": 1, "train_images": 100},
    "grid": {"initial_weights": ["", "pretraining"], "seed": [0, 1]},
}


def test_runs_start_from_the_study_s_pretraining_before_it_is_made(read, tmp_path, monkeypatch):
    """And their names do not depend on where runs lie."""
    names = []
    for folder in ("here", "there"):
        monkeypatch.setenv("NLA_RUNS", str(tmp_path / folder))
        study = read({**SOUND, **PRETRAINED})
        assert (study.pretraining.epochs, study.pretraining.seed) == (3, 1)
        runs = list(study.runs.values())
        assert [run.initialisation for run in runs] == [
            *("random", "random"),
            *(study.pretraining.run_id,) * 2,
        ]
        weights = tmp_path / folder / study.pretraining.run_id / "weights.safetensors"
        assert Path(runs[2].initial_weights) == weights
        names.append(list(study.runs))
    assert names[0] == names[1]
    other = read({**SOUND, **PRETRAINED, "pretraining": {"epochs": 4, "seed": 1}})
    assert list(other.runs)[:2] == names[0][:2]
    assert not set(list(other.runs)[2:]) & set(names[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notebook": {}}, "unknown key 'notebook'; did you mean 'notebooks'"),
        ({"study": 5}, "parameter study is 5 of type int; expected str"),
        ({"study": "a/b"}, "study is 'a/b'; it names files"),
        ({"references": []}, "references is empty; name the method"),
        ({"grid": [1]}, r"grid is \[1\]; expected lists of values by parameter, or a list of such"),
        ({"grid": "seed"}, "grid is 'seed'; expected lists of values by parameter"),
        ({"grid": [{"seed": [0]}, {"epochs": [2, 3]}]}, "fixed and in grid"),
        ({"grid": [{"seed": [0, 1]}, {"seed": [1]}]}, "grid: 3 combinations are only 2 runs"),
        ({"notebooks": ["01_face_alignment"]}, "parameter notebooks is .* expected dict"),
        ({"notebooks": {"01_face_aligment": {}}}, "notebook '01_face_aligment'; did you mean '01_"),
        ({"fixed": {"seed": 1}}, "seed stands both in fixed and in grid"),
        ({"fixed": {"epoch": 1}}, "unknown parameter 'epoch'; did you mean 'epochs'"),
        ({"fixed": {"lr": "1e-4"}}, r"YAML reads 1e-4 as text: write 1\.0e-4"),
        ({"grid": {"method": ["ce", "nlq"]}}, "unknown method 'nlq'; known are .*ce, .*nla"),
        ({"grid": {"method": "ce"}}, "grid: method is 'ce'; expected a list"),
        ({"grid": {"method": []}}, r"grid: method is \[\]; expected a list"),
        ({"grid": {"seed": [0, 1, 0]}}, "grid: 3 combinations are only 2 runs"),
        ({"pretraining": {"epoch": 3}}, "unknown parameter 'epoch'; did you mean 'epochs'"),
        ({"grid": {"initial_weights": ["pretraining"]}}, "initial_weights is 'pretraining', but"),
    ],
)
def test_mistake_is_refused_and_names_the_file(read, change, message):
    with pytest.raises((ValueError, TypeError), match=rf"small\.yaml: .*{message}"):
        read({**SOUND, **change})


@pytest.mark.parametrize("key", SOUND)
def test_missing_key(read, key):
    with pytest.raises(ValueError, match=rf"small\.yaml: missing key {key}"):
        read({name: value for name, value in SOUND.items() if name != key})


def test_file_that_is_no_study(read):
    with pytest.raises(ValueError, match="holds no mapping"):
        read("just text")
    with pytest.raises(ValueError, match=r"small\.yaml is no YAML"):
        read("study: [1")


def test_missing_file_lists_the_studies():
    with pytest.raises(FileNotFoundError, match=r"no study at configs/embeded\.yaml") as caught:
        read_study("configs/embeded.yaml")
    assert CONFIGS
    assert all(f"configs/{path.name}" in str(caught.value) for path in CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_committed_study(path):
    study, content = read_study(path), yaml.safe_load(path.read_text())
    grids, number = content["grid"], 0
    for grid in grids if isinstance(grids, list) else [grids]:
        product = 1
        for values in grid.values():
            product *= len(values)
        number += product
    assert len(study.runs) == number
    assert study.name == path.stem
    for config in study.runs.values():
        for name, value in content["fixed"].items():
            assert getattr(config, name) == value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "ce", "seed": 3, "lr": 1.0e-5, "weight_decay": 0.0},
        {"method_settings": {"variant": "v_naw", "trade_off": 1.0e-5}},
        {"data_root": "my data/it's here", "dataset": "ferplus"},
        {"data_root": "2024", "dataset": "ferplus"},
    ],
    ids=str,
)
def test_command_gives_the_same_run(changes, monkeypatch):
    """Its words go through papermill's own command line, up to where it would execute."""
    config, given = RunConfig(**changes), {}
    monkeypatch.setattr("papermill.cli.execute_notebook", lambda **all_: given.update(all_))
    prepare, _, command = training_command(config).partition(" && ")
    assert prepare == "mkdir -p runs"
    program, *words = shlex.split(command)
    assert program == "papermill"
    papermill_command.main(words, standalone_mode=False)
    assert given["input_path"] == "notebooks/04_training.ipynb"
    assert given["output_path"] == f"runs/{config.run_id}.ipynb"
    assert RunConfig.from_parameters(given["parameters"]) == config
    assert set(given["parameters"]) == set(changes)


def jobs_of_dry_run(runs_folder: Path, *words: str) -> dict[str, int]:
    """Return how many jobs of each rule snakemake would do."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores=1", "--nolock"]
    finished = subprocess.run(
        [*command, "--quiet=rules", *words],
        cwd=ROOT,
        env={**os.environ, "NLA_RUNS": str(runs_folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    report = finished.stdout + finished.stderr
    assert finished.returncode == 0, report
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", report, flags=re.MULTILINE)}


def test_workflow_trains_what_is_not_done(tmp_path):
    """A run whose notebook has run to its end is not among the jobs."""
    study = read_study("configs/embedded.yaml")
    executed = tmp_path / next(iter(study.runs)) / "executed"
    executed.parent.mkdir()
    executed.touch()
    jobs = jobs_of_dry_run(tmp_path)
    assert jobs["train"] == len(study.runs) - 1 == 5
    assert jobs["notebook"] == len({*study.notebooks, "06_main_results"})
    assert jobs["results"] == 1
    assert "pretrain" not in jobs
    assert [path.name for path in tmp_path.iterdir()] == [executed.parent.name]


def test_workflow_leaves_out_kept_runs_when_asked(tmp_path):
    study = read_study("configs/face_rate.yaml")
    assert kept_runs(study.name) == set(study.runs)
    words = ["--config", "study=configs/face_rate.yaml"]
    assert jobs_of_dry_run(tmp_path, *words)["train"] == len(study.runs)
    assert "train" not in jobs_of_dry_run(tmp_path, *words, "kept=1")


def test_workflow_pretrains_for_the_runs_that_start_from_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    path = tmp_path / "pretrained.yaml"
    path.write_text(yaml.safe_dump({**SOUND, "notebooks": None, **PRETRAINED}))
    study = read_study(path)
    random, *_, pretrained = study.runs
    words = ["--config", f"study={path}", "--"]
    ends = {run_id: f"{tmp_path}/runs/{run_id}/executed" for run_id in (random, pretrained)}
    assert jobs_of_dry_run(tmp_path / "runs", *words, ends[random]) == {"train": 1, "total": 1}
    jobs = {"pretrain": 1, "train": 1, "total": 2}
    assert jobs_of_dry_run(tmp_path / "runs", *words, ends[pretrained]) == jobs
    left = tmp_path / "runs" / study.pretraining.run_id / "executed"
    left.parent.mkdir(parents=True)
    left.touch()
    assert jobs_of_dry_run(tmp_path / "runs", *words, ends[pretrained]) == {"train": 1, "total": 1}
