"""A run's parameters: the notebook and RunConfig agree, mistakes are refused, ids are stable."""

import csv
import multiprocessing
import re
import subprocess
import sys
from dataclasses import asdict, fields, replace

import nbformat
import papermill
import pytest

from nlalib.networks.registry import BACKBONES
from nlalib.paths import ROOT
from nlalib.report.studies import read_study
from nlalib.training.augmentation import RECIPES
from nlalib.training.config import RunConfig

NOTEBOOK = ROOT / "notebooks" / "04_training.ipynb"
# Another value for each parameter that changes a run's result.
CHANGES = {
    "dataset": "ferplus",
    "label_rule": "majority",
    "label_source": "random_vote",
    "num_classes": 8,
    "train_images": 601,
    "test_images": 201,
    "data_seed": 1,
    "noise_rate": 0.1,
    "noise_kind": "pair",
    "imbalance_factor": 20.0,
    "candidate_rule": "share",
    "candidate_threshold": 2.0,
    "held_out": 0.2,
    "image_size": 64,
    "method": "ce",
    "method_settings": {"trade_off": 0.4},
    "backbone": "resnet18",
    "epochs": 4,
    "batch_size": 32,
    "optimizer": "adam",
    "lr": 1.0e-3,
    "weight_decay": 0.0,
    "lr_schedule": "constant",
    "augmentation": "none",
    "view_order": "separate",
    "precision": "bf16",
    "seed": 1,
    "processes": 2,
    "sampler": "balanced",
}
# What else must be chosen for a parameter to have an effect at all.
NEEDED = {
    "label_rule": {"dataset": "ferplus"},
    "noise_kind": {"dataset": "ferplus", "noise_rate": 0.2},
    "imbalance_factor": {"dataset": "ferplus"},
    "candidate_rule": {"dataset": "ferplus", "method": "proden"},
    "candidate_threshold": {"dataset": "ferplus", "method": "proden"},
}


def test_defaults_are_those_of_the_notebook():
    """papermill reads the parameters cell as text: name, type and default."""
    cell = papermill.inspect_notebook(str(NOTEBOOK))
    # The defaults are literals of our own notebook.
    notebook = {name: eval(found["default"]) for name, found in cell.items()}
    assert list(notebook) == [parameter.name for parameter in fields(RunConfig)]
    assert notebook == asdict(RunConfig())
    types = {name: found["inferred_type_name"] for name, found in cell.items()}
    assert types == {parameter.name: parameter.type.__name__ for parameter in fields(RunConfig)}


def test_unknown_parameter_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="unknown parameter 'epoch'; did you mean 'epochs'"):
        RunConfig.from_parameters({"epoch": 3})
    with pytest.raises(ValueError, match="unknown parameter 'xyzzy'; known are dataset, data_root"):
        RunConfig.from_parameters({"xyzzy": 3})


def test_learning_rate_as_text_is_refused_with_the_way_to_write_it():
    with pytest.raises(TypeError, match=r"lr is '1e-4' of type str.*write 1\.0e-4"):
        RunConfig(lr="1e-4")


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", True), ("epochs", 3.0), ("lr", True), ("method", 1), ("method_settings", None)],
)
def test_value_of_another_type_is_refused(name, value):
    with pytest.raises(TypeError, match=f"parameter {name} is {value!r} of type"):
        RunConfig(**{name: value})


def test_whole_number_is_a_float_where_one_is_expected():
    config = RunConfig(lr=1)
    assert type(config.lr) is float
    assert config.run_id == RunConfig(lr=1.0).run_id


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("dataset", ["rendered", "ferplus"]),
        ("label_rule", ["majority", "argmax", "more_than_half"]),
        ("method", ["ce", "nla"]),
        ("backbone", list(BACKBONES)),
        ("optimizer", ["adam", "adamw"]),
        ("lr_schedule", ["exponential", "compressed_exponential", "one_cycle", "constant"]),
        ("augmentation", list(RECIPES)),
        ("view_order", ["joint", "separate"]),
        ("precision", ["fp32", "bf16", "fp16"]),
        ("noise_kind", ["symmetric", "pair"]),
        ("candidate_rule", ["count", "share", "mass", "random"]),
        ("device", ["auto", "cpu", "cuda"]),
    ],
)
def test_unknown_choice_lists_the_valid_ones(name, valid):
    with pytest.raises(ValueError, match="nonesuch") as caught:
        RunConfig(**{name: "nonesuch"})
    assert all(choice in str(caught.value) for choice in valid)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("image_size", 8),
        ("train_images", -1),
        ("seed", -1),
        ("data_seed", -1),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("held_out", 0.0),
        ("held_out", 0.5),
        ("noise_rate", 1.0),
        ("num_classes", 6),
        ("imbalance_factor", 0.5),
        ("imbalance_factor", float("nan")),
        ("processes", 0),
    ],
)
def test_value_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}"):
        RunConfig(**{name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"backbone": "face_resnet", "image_size": 96},
            "image_size is 96; the backbone face_resnet needs images of 103 pixels at least",
        ),
        (
            {"initial_weights": "dlib_face", "backbone": "resnet18"},
            "initial_weights is 'dlib_face', which fit the backbone 'face_resnet' and not",
        ),
        ({"label_rule": "majority"}, "label_rule is 'majority', which is for FERPlus"),
        ({"dataset": "rafdb", "num_classes": 8}, "num_classes is 8; RAF-DB has 7"),
        (
            {"noise_kind": "pair", "noise_rate": 0.1},
            "noise_kind is 'pair'; rendered faces has symmetric",
        ),
        ({"dataset": "ferplus", "noise_kind": "pair"}, "noise_kind is 'pair': it needs a noise_ra"),
        ({"dataset": "ferplus", "label_file": "a.txt"}, "label_file is a list .* for RAF-DB"),
        ({"dataset": "rafdb", "label_file": "a.txt", "noise_rate": 0.1}, "noise_rate at 0.0 with"),
        (
            {"dataset": "rafdb", "label_source": "random_vote"},
            "'random_vote', but RAF-DB has no annotators' votes: .* take rendered faces and FER",
        ),
        ({"label_source": "fer2013"}, "rendered faces has no labels of FER2013: .* take FERPlus"),
        ({"label_source": "worst_vote", "noise_rate": 0.1}, "leave noise_rate at 0.0"),
        ({"noise_kind": "matched"}, "'matched', the twin of a label_source: name the source, one"),
        (
            {"label_source": "random_vote", "method": "ldl"},
            "label_source is 'random_vote', but method 'ldl' learns from votes.* look immune",
        ),
        ({"imbalance_factor": 10.0}, "imbalance_factor is for sets of photographs"),
        ({"candidate_rule": "share"}, "candidate_threshold are .*'nla' learns from labels"),
        ({"method": "ce", "candidate_threshold": 2.0}, "leave them at"),
        ({"method": "cc", "candidate_rule": "random"}, "nothing is left to learn: take 0.1"),
        (
            {"method": "ldl", "dataset": "rafdb"},
            "'ldl' .* learns from annotators' votes, which RAF-DB has not: take one of rendered, f",
        ),
        (
            {"method": "cc", "dataset": "affectnet"},
            "'cc' with candidate_rule 'count' .* which AffectNet has not.*'random' or 'model'",
        ),
        ({"method": "ldl", "noise_rate": 0.1}, "'ldl' learns from votes, which the noise leaves"),
        ({"method": "cc", "noise_rate": 0.1}, "'cc' learns from votes.* look immune"),
    ],
)
def test_parameters_without_effect_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**given)


def test_noise_reaches_sets_that_are_made_of_the_given_labels():
    drawn = {"candidate_rule": "random", "candidate_threshold": 0.1}
    assert RunConfig(method="proden", noise_rate=0.1, **drawn).noise_rate == 0.1


def test_a_twin_is_drawn_by_the_runs_seed_and_its_source_is_not():
    source = {"label_source": "random_vote"}
    assert RunConfig(**source, seed=1).data == RunConfig(**source, seed=2).data
    twin = source | {"noise_kind": "matched"}
    assert RunConfig(**twin, seed=1).data != RunConfig(**twin, seed=2).data
    assert RunConfig(**twin).data.labels == "random_vote, matched"
    assert RunConfig(**source).data.labels == "random_vote"
    assert RunConfig().data.labels == "rule"


def test_processes_that_could_not_share_the_work_are_refused():
    with pytest.raises(ValueError, match="method 'scn' remembers something of each sample"):
        RunConfig(method="scn", processes=2)
    summed = [
        ("nla", {"variant": "released_2025_05"}),
        ("nla", {"consistency": "released"}),
        ("nla", {"variant": "v_naw", "detached": True}),
        ("nla_soft", {"variant": "v_naw"}),
    ]
    for method, settings in summed:
        with pytest.raises(ValueError, match=f"consistency of method '{method}' is a sum"):
            RunConfig(method=method, method_settings=settings, processes=2)
        assert RunConfig(method=method, method_settings=settings).processes == 1
    for settings in ({}, {"consistency": "none", "variant": "v_naw"}, {"detached": True},
                     {"variant": "released_2025_05", "consistency": "jensen_shannon"}):  # fmt: skip
        assert RunConfig(method="nla", method_settings=settings, processes=2).processes == 2
    with pytest.raises(ValueError, match="batch_size is 4 for 3 processes"):
        RunConfig(batch_size=4, processes=3)


def test_changes_cover_all_parameters_but_places_and_devices():
    names = {parameter.name for parameter in fields(RunConfig)}
    elsewhere = {"data_root", "initial_weights", "label_file", "candidate_scores"}
    elsewhere |= {"device", "compile", "deterministic", "channels_last"}
    elsewhere |= {"images_on_device", "cuda_graph", "logger"}
    assert names - set(CHANGES) == elsewhere


def test_each_parameter_that_changes_the_result_changes_the_id():
    ids = [RunConfig().run_id]
    ids += {RunConfig(**needed).run_id for needed in NEEDED.values()}
    ids += [RunConfig(**{**NEEDED.get(n, {}), n: value}).run_id for n, value in CHANGES.items()]
    # One of the changes is itself the base of another.
    assert len(ids) - len(set(ids)) == 1


LATER = [one.name for one in fields(RunConfig) if one.metadata["later"]]


@pytest.mark.parametrize("name", LATER)
def test_later_parameters_leave_the_id_alone_where_they_are_at_their_default(name):
    default = {parameter.name: parameter.default for parameter in fields(RunConfig)}[name]
    base = RunConfig(**NEEDED.get(name, {}))
    assert getattr(base, name) == default
    assert name not in base.identity
    if name in CHANGES:
        assert replace(base, **{name: CHANGES[name]}).identity[name] == CHANGES[name]


def test_a_list_of_labels_counts_by_its_content(tmp_path):
    for name, content in (("a.txt", "x 1"), ("b.txt", "x 1"), ("c.txt", "x 2")):
        (tmp_path / name).write_text(content)
    ids = [
        RunConfig(dataset="rafdb", label_file=str(tmp_path / name)).run_id
        for name in ("a.txt", "b.txt", "c.txt")
    ]
    assert ids[0] == ids[1] != ids[2]
    assert RunConfig(dataset="rafdb").run_id not in ids


def test_tables_tell_a_list_of_labels_from_the_sets_own(tmp_path):
    """Else a run on wrong labels would be averaged with clean ones."""
    (tmp_path / "noisy30.txt").write_text("x 1")
    config = RunConfig(dataset="rafdb", label_file=str(tmp_path / "noisy30.txt"))
    assert re.fullmatch(r"noisy30@[0-9a-f]{12}", config.data.labels)
    assert config.settings == ""  # a column of its own, so that methods on it are compared


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "rafdb", "label_file": "gone.txt"}, "label_file is 'gone.txt', but no such"),
        (
            {"method": "proden", "candidate_rule": "model", "candidate_scores": "gone.parquet"},
            "candidate_scores is 'gone.parquet', but no such file: .*nlalib scores RUN_ID",
        ),
    ],
)
def test_a_missing_file_is_named_before_any_work(given, message):
    with pytest.raises(FileNotFoundError, match=message):
        _ = RunConfig(**given).run_id


def test_whole_numbers_of_a_method_are_its_numbers():
    ids = [RunConfig(method="nla", method_settings={"trade_off": n}).run_id for n in (1, 1.0, 0.9)]
    assert ids[0] == ids[1] != ids[2]
    assert RunConfig(method="nla", method_settings={"trade_off": 1}).settings == "trade_off=1.0"


def test_what_lies_beside_rendered_faces_is_no_matter(tmp_path):
    (tmp_path / "alignment.json").write_text('{"size": 48}')
    assert RunConfig(data_root=str(tmp_path)).run_id == RunConfig().run_id


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({}, ""),
        # Columns of their own, or the same throughout a comparison.
        ({"method": "ce", "seed": 3, "epochs": 9, "noise_rate": 0.2, "image_size": 64}, ""),
        ({"device": "cpu", "compile": True, "deterministic": True, "channels_last": False}, ""),
        (
            {"method_settings": {"variant": "v_naw", "trade_off": 0.3}},
            "trade_off=0.3, variant=v_naw",
        ),
        (
            {"precision": "bf16", "view_order": "separate", "processes": 2},
            "processes=2, view_order=separate",
        ),
        (
            {"dataset": "ferplus", "label_rule": "majority", "noise_rate": 0.1}
            | {"noise_kind": "pair"},
            "label_rule=majority, noise_kind=pair",
        ),
        ({"label_source": "random_vote", "noise_kind": "matched"}, ""),  # a column of its own
        (
            {"dataset": "ferplus", "method": "proden", "candidate_rule": "share"}
            | {"candidate_threshold": 0.2},
            "candidate_rule=share, candidate_threshold=0.2",
        ),
    ],
)
def test_settings_tell_a_runs_choices(changes, settings):
    assert RunConfig(**changes).settings == settings


def test_places_and_devices_do_not_change_the_id(tmp_path):
    weights, elsewhere = tmp_path / "a" / "weights.pth", tmp_path / "b" / "weights.pth"
    for path in (weights, elsewhere):
        path.parent.mkdir()
        path.write_bytes(b"the same bytes")
    config = RunConfig(initial_weights=str(weights))
    assert replace(config, initial_weights=str(elsewhere)).run_id == config.run_id
    assert replace(config, device="cpu", data_root="elsewhere").run_id == config.run_id
    assert replace(config, compile=True, deterministic=True).run_id == config.run_id
    elsewhere.write_bytes(b"other bytes")
    assert replace(config, initial_weights=str(elsewhere)).run_id != config.run_id
    assert config.run_id != RunConfig().run_id


def test_missing_weights_are_named_before_any_work(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*gone\.pth; give the path"):
        _ = RunConfig(initial_weights=str(tmp_path / "gone.pth")).run_id


def test_ids_of_published_runs_stay():
    """If this fails, finished runs are no longer found: is that meant?"""
    assert RunConfig().run_id == "rendered-nla-seed0-cbb46853f9"
    assert RunConfig(method="ce", seed=1).run_id == "rendered-ce-seed1-2d7bdd0fba"


@pytest.mark.parametrize("study", ["embedded", "ferplus_small"])
def test_ids_of_the_committed_tables_are_those_of_the_studies(study):
    """The tables name their runs; their studies' files must still give these names."""
    with (ROOT / "results" / f"{study}.csv").open() as file:
        published = {row["run_id"] for row in csv.DictReader(file)}
    assert published == set(read_study(f"configs/{study}.yaml").runs)


def run_ids() -> list[str]:
    return [RunConfig(method_settings={"variant": "v_naw", "trade_off": 0.3}, seed=7).run_id]


def test_id_is_the_same_in_another_process():
    """Started afresh, so with other hashes of strings than this process has."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nlalib.training.loop"])
    with context.Pool(1) as pool:
        assert pool.apply(run_ids) == run_ids()


def test_papermill_with_a_misspelt_parameter_stops_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "cache"))
    executed = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(NOTEBOOK), str(executed)]
    finished = subprocess.run(
        [*command, "-p", "epoch", "1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode != 0
    assert "unknown parameter 'epoch'; did you mean 'epochs'?" in finished.stderr
    cells = [c for c in nbformat.read(executed, as_version=4).cells if c.cell_type == "code"]
    (stopped,) = [n for n, cell in enumerate(cells) if "from_notebook(" in cell.source]
    assert all(cell.execution_count is None for cell in cells[stopped + 1 :])
    assert len(cells) > stopped + 5
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "cache").exists()
