"""One training run: it resumes bit by bit, its records are consistent, and no option is idle."""

import copy
import errno
import functools
import io
import json
import multiprocessing
import os
import random
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nlalib.data.labels import expressions
from nlalib.methods import Method, make_method, register
from nlalib.methods.base import METHODS
from nlalib.networks.normalisation import normalise
from nlalib.networks.registry import build_model
from nlalib.networks.representation import Representation
from nlalib.training import training_run
from nlalib.training.batches import batches, to_tensor
from nlalib.training.checkpoint import read_checkpoint
from nlalib.training.config import RunConfig
from nlalib.training.devices import make_accelerator
from nlalib.training.launch import train
from nlalib.training.learner import (
    Learner,
    load_learner,
    make_learner,
    make_optimizer,
    memory_format,
)
from nlalib.training.loop import predict
from nlalib.training.resumable import Progress
from nlalib.training.training_run import selected_epochs

TINY = RunConfig(
    train_images=180, test_images=40, image_size=16, epochs=3, batch_size=64, device="cpu"
)
RESULTS = ("metrics.csv", "predictions.parquet", "naw.parquet", "weights.safetensors")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums are ordered by threads, and the runs below are compared bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(loaded):
    """The index and the decoded images of the tiny run."""
    return loaded(TINY)


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """An empty folder for the runs of one test."""
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """The folder of one uninterrupted tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(tmp_path_factory.mktemp("runs")))
        return train(TINY, *data)


def results_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def read_metrics(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv")


# What a finished run leaves.


def test_finished_run_holds_its_files_and_nothing_that_only_a_resumption_needs(finished):
    wanted = {
        ".lock",
        "config.json",
        "content.json",
        "environment.json",
        "timing.csv",
        "samples.parquet",
        "done",
    }
    wanted |= set(RESULTS)
    assert {file.name for file in finished.iterdir()} == wanted
    assert finished.name == TINY.run_id
    config = json.loads((finished / "config.json").read_text())
    identity = config.pop("identity")
    assert RunConfig.from_parameters(config) == TINY
    assert identity["initialisation"] == "random"
    done = json.loads((finished / "done").read_text())
    timing = pd.read_csv(finished / "timing.csv")
    assert done["run_id"] == TINY.run_id
    assert done["seconds"] == pytest.approx(timing["seconds"].sum())
    assert timing["epoch"].tolist() == [0, 1, 2]


def test_done_is_written_last(finished):
    done = (finished / "done").stat().st_mtime_ns
    others = [file for file in finished.iterdir() if file.name != "done"]
    assert all(file.stat().st_mtime_ns <= done for file in others)


def test_failure_before_the_end_leaves_no_done(data, runs, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    config, lines = replace(TINY, epochs=1), []
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "write_weights", fail)
        with pytest.raises(OSError, match="disk full"):
            train(config, *data)
    assert not (config.folder / "done").exists()
    train(config, *data, report=lines.append)
    assert lines == ["device cpu, precision fp32", "going on after epoch 1 of 1"]
    assert (config.folder / "done").exists()


def test_records_are_of_each_training_image_at_each_epoch(finished, data):
    records, index = pd.read_parquet(finished / "naw.parquet"), data[0]
    names = index.loc[index["part"] == "train", "image_id"].tolist()
    assert records["image_id"].tolist() == names * TINY.epochs
    assert records["epoch"].tolist() == [e for e in range(TINY.epochs) for _ in names]
    assert list(records.columns[2:]) == ["p_gt", "p_nn", "predicted", "cross_entropy", "weight"]


def test_records_agree_with_each_other(finished):
    records = pd.read_parquet(finished / "naw.parquet")
    np.testing.assert_allclose(
        records["cross_entropy"], -np.log(records["p_gt"]), rtol=1e-4, atol=1e-5
    )
    assert ((records["p_gt"] + records["p_nn"]) <= 1 + 1e-5).all()
    # Of seven classes, the largest of the other six holds at least a sixth of the rest.
    assert (records["p_nn"] >= (1 - records["p_gt"]) / 6 - 1e-6).all()
    accuracy = (records["p_gt"] >= records["p_nn"]).groupby(records["epoch"]).mean()
    np.testing.assert_allclose(read_metrics(finished)["train_accuracy"], accuracy)


def test_records_stand_beside_their_own_image(data, runs):
    """One batch of all images, unchanged: a first pass outside the loop gives the same records."""
    index, images = data
    config = replace(TINY, epochs=1, batch_size=200, augmentation="none", method="ce")
    records = pd.read_parquet(train(config, index, images) / "naw.parquet").set_index("image_id")
    positions = np.flatnonzero(index["part"] == "train")
    network = build_model(config.backbone, 7, config.seed).train()
    with torch.no_grad():
        rows = network(normalise(to_tensor(images[positions]))).logits.softmax(dim=1).tolist()
    for position, row in zip(positions, rows, strict=True):
        label = row.pop(index["label"][position])
        record = records.loc[index["image_id"][position]]
        assert (record["p_gt"], record["p_nn"]) == pytest.approx((label, max(row)), abs=1e-4)
        if abs(label - max(row)) > 1e-3:
            assert (record["predicted"] == index["label"][position]) == (label > max(row))
    assert records["p_gt"].std() > 0.01


def test_predictions_are_kept_of_epochs_that_a_rule_may_still_pick():
    validation, test = [0.5, 0.9, 0.9, 0.1], [0.7, 0.2, 0.7, 0.3]
    progress, kept = Progress(), []
    run = training_run.TrainingRun.__new__(training_run.TrainingRun)
    run.progress = progress
    for epoch, accuracies in enumerate(zip(validation, test, strict=True)):
        names = ("validation_overall_accuracy", "test_overall_accuracy")
        progress.metrics.append({"epoch": epoch, **dict(zip(names, accuracies, strict=True))})
        progress.predictions[epoch] = {}
        run.keep_predictions()
        kept.append(sorted(progress.predictions))
    assert kept == [[0], [0, 1], [0, 1, 2], [0, 1, 3]]


def test_predictions_are_those_of_the_selected_epochs_and_give_the_metrics(finished, data):
    predictions, metrics = pd.read_parquet(finished / "predictions.parquet"), read_metrics(finished)
    assert set(predictions["epoch"]) == set(selected_epochs(metrics).values())
    index = data[0].set_index("image_id")
    assert (predictions["label"] == index.loc[predictions["image_id"], "label"].to_numpy()).all()
    assert set(predictions["part"]) == {"train", "held_out", "test"}
    # Of training images, which the run has no metric of, the finished network's alone.
    of_training = predictions["part"] == "train"
    assert set(predictions["epoch"][of_training]) == {metrics["epoch"].max()}
    assert sorted(predictions["image_id"][of_training]) == sorted(
        index.index[index["part"] == "train"]
    )
    predictions = predictions[~of_training]
    columns = [f"p_{name}" for name in expressions(7)]
    for (epoch, part), rows in predictions.groupby(["epoch", "part"]):
        hits = 0
        for _, row in rows.iterrows():
            values = [row[column] for column in columns]
            assert sum(values) == pytest.approx(1, abs=1e-5)
            hits += values.index(max(values)) == row["label"]
        name = "validation" if part == "held_out" else "test"
        assert metrics[f"{name}_overall_accuracy"][epoch] == pytest.approx(hits / len(rows))


def test_recorded_weights_give_the_last_predictions(finished, data, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(finished.parent))
    index, images = data
    learner = load_learner(TINY)
    positions = np.flatnonzero(index["part"] == "test")
    probabilities = predict(learner, images, positions, make_accelerator("cpu", "fp32"))
    predictions = pd.read_parquet(finished / "predictions.parquet").query(
        "part == 'test' and epoch == 2"
    )
    np.testing.assert_allclose(probabilities, predictions.filter(like="p_"), atol=1e-5)


def test_samples_tell_what_each_image_was_for(finished, data):
    samples = pd.read_parquet(finished / "samples.parquet")
    names = ["image_id", "part", "label", "true_label", "is_flipped"]
    pd.testing.assert_frame_equal(samples, data[0][[n for n in names if n in data[0]]])


def test_labels_of_the_test_images_do_not_reach_the_training(finished, data, runs):
    """Nor do the held-out ones: with other labels there, the training is the same."""
    index, images = data
    other = index.copy()
    is_training = other["part"] == "train"
    other.loc[~is_training, "label"] = (other.loc[~is_training, "label"] + 1) % 7
    folder = train(TINY, other, images)
    for name in ("naw.parquet", "weights.safetensors"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert (folder / "metrics.csv").read_bytes() != (finished / "metrics.csv").read_bytes()


# Repetition and resumption.


def test_second_run_in_the_same_folder_is_refused(data, runs):
    """Inside the first one's report, while it trains; afterwards the folder is free."""
    config, refusals = replace(TINY, epochs=1), []

    def try_again(line: str):
        with pytest.raises(RuntimeError, match=f"another process is training {config.run_id}"):
            train(config, *data)
        refusals.append(line)

    folder = train(config, *data, report=try_again)
    assert len(refusals) == 2
    assert train(config, *data) == folder


class Killed(Exception):
    pass


@pytest.mark.parametrize("epoch", [1, 3])
def test_run_stopped_after_an_epoch_ends_with_the_same_bits(finished, data, runs, epoch):
    def stop(line: str):
        if f"epoch {epoch}/" in line:
            raise Killed

    with pytest.raises(Killed):
        train(TINY, *data, report=stop)
    assert not (TINY.folder / "done").exists()
    # What a process leaves that is killed while it writes.
    (TINY.folder / "records" / ".0001.parquet.1.unfinished").write_text("half")
    (TINY.folder / ".checkpoint.pt.1.unfinished").write_text("half")
    torch.manual_seed(epoch)  # no global state takes part
    np.random.seed(epoch)  # noqa: NPY002
    lines = []
    folder = train(TINY, *data, report=lines.append)
    assert lines[1] == f"going on after epoch {epoch} of 3"
    assert len(lines[2:]) == 3 - epoch
    assert results_of(folder) == results_of(finished)
    assert {f.name for f in folder.iterdir()} == {f.name for f in finished.iterdir()}


def test_finished_run_is_not_repeated(finished, data, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(finished.parent))
    before, lines = results_of(finished), []
    monkeypatch.setattr(training_run, "build_model", lambda *_: pytest.fail("trained again"))
    assert train(TINY, *data, report=lines.append) == finished
    (told,) = lines
    assert told.startswith(f"already done: {TINY.run_id} (delete ")
    assert told.endswith(f"{TINY.run_id} to train it anew)")
    assert results_of(finished) == before


def test_finished_run_is_cleared_of_what_a_kill_just_after_done_left(finished, data, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(finished.parent))
    before = {path.name for path in finished.iterdir()}
    (finished / "records").mkdir()
    for name in ("checkpoint.pt", "records/0000.parquet", ".naw.parquet.1.unfinished"):
        (finished / name).touch()
    train(TINY, *data)
    assert {path.name for path in finished.iterdir()} == before


def train_in_a_process(config: RunConfig, runs: Path, index: pd.DataFrame, images: np.ndarray):
    os.environ["NLA_RUNS"] = str(runs)
    torch.set_num_threads(1)
    train(config, index, images)


def test_run_killed_at_random_moments_ends_with_the_same_bits(finished, data, runs):
    """Real processes and SIGKILL; they repeat the uninterrupted run of this process as well."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nlalib.training.loop"])
    chance, kills = random.Random(), 0
    # One kill before there is a checkpoint.
    process = context.Process(target=train_in_a_process, args=(TINY, runs, *data))
    process.start()
    while not (TINY.folder / "config.json").exists():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not (TINY.folder / "checkpoint.pt").exists()

    def epochs_begun() -> int:
        return len(list((TINY.folder / "records").glob("*.parquet")))

    while not (TINY.folder / "done").exists():
        process = context.Process(target=train_in_a_process, args=(TINY, runs, *data))
        process.start()
        if kills < 3:
            # Once it has got further by an epoch, within about the next one.
            before = epochs_begun()
            while epochs_begun() <= before and process.is_alive():
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.15))
            process.kill()
            process.join()
            kills += process.exitcode == -9
        else:
            process.join()
            assert process.exitcode == 0
    assert kills > 0
    assert results_of(TINY.folder) == results_of(finished)


# No option is idle.


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"method": "ce"},
        {"method_settings": {"trade_off": 0.9}},
        {"method_settings": {"variant": "v_naw"}},
        {"method_settings": {"variant": "released_2025_03"}},
        {"method_settings": {"variant": "released_2025_05"}},
        {"method": "logit_adjusted"},
        {"backbone": "resnet18_narrow32"},
        {"backbone": "resnet10_narrow16_stride2"},
        {"batch_size": 16},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"lr": 1.0e-3},
        {"lr_schedule": "constant"},
        {"augmentation": "none"},
        {"augmentation": "flip"},
        {"augmentation": "released"},
        {"view_order": "separate"},
        {"precision": "bf16"},
        {"num_classes": 8},
    ],
    ids=lambda change: "-".join(f"{name}={value}" for name, value in change.items()),
)
def test_option_changes_the_result(one_epoch_metrics, change):
    metrics, reference = one_epoch_metrics
    changed = metrics(**change)
    assert changed["test_nll"][0] != reference["test_nll"][0]
    assert np.isfinite(changed["test_nll"][0])


@pytest.fixture(scope="module")
def one_epoch_metrics(data, tmp_path_factory):
    """A function that trains one epoch on few images, and its metrics without changes."""
    index, images = data
    few = index.groupby("part").head(40).index.sort_values()
    index, images = index.loc[few].reset_index(drop=True), images[few]

    built = functools.cache(build_model)

    def metrics(**changes) -> pd.DataFrame:
        config = replace(TINY, **{"epochs": 1, "batch_size": 20, **changes})
        return read_metrics(train(config, index, images))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(tmp_path_factory.mktemp("runs")))
        # Building a network takes longer than training it here.
        patch.setattr(training_run, "build_model", lambda *given: copy.deepcopy(built(*given)))
        yield metrics, metrics()


def test_weight_decay_differs_between_the_optimizers(one_epoch_metrics):
    metrics, _ = one_epoch_metrics
    found = [metrics(optimizer=o, weight_decay=0.1)["test_nll"][0] for o in ("adam", "adamw")]
    assert found[0] != found[1]


def learner_of(parameter: nn.Parameter) -> Learner:
    """A learner whose network has one parameter."""
    return Learner(nn.ParameterList([parameter]), make_method("ce"), "joint")


def test_methods_own_parameters_have_a_rate_of_their_own():
    """Ten times the network's, under both kinds of schedule."""
    learner = learner_of(nn.Parameter(torch.zeros(1)))
    learner.method.head, learner.method.lr_factor = nn.Linear(2, 1), 10.0
    for schedule in ("exponential", "one_cycle"):
        config = replace(TINY, lr_schedule=schedule, lr=0.01)
        optimizer, scheduler = make_optimizer(learner, config, steps_per_epoch=5)
        assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2]
        for _ in range(3):
            network, own = (group["lr"] for group in optimizer.param_groups)
            assert own == pytest.approx(10 * network)
            optimizer.step()
            scheduler.step()


def test_exponential_schedule_is_nine_tenths_for_each_epoch():
    config = replace(TINY, lr_schedule="exponential", lr=0.5, epochs=4)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer, scheduler = make_optimizer(learner_of(parameter), config, steps_per_epoch=3)
    for epoch in range(4):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 0.9**epoch)
        optimizer.step()
        scheduler.step()


def test_one_cycle_schedule_rises_to_the_rate_and_falls_to_nothing():
    config = replace(TINY, lr=0.5, epochs=4)
    optimizer, scheduler = make_optimizer(
        learner_of(nn.Parameter(torch.zeros(1))), config, steps_per_epoch=25
    )
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.5, rel=0.01)
    peak = rates.index(max(rates))
    assert 20 < peak < 40
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-4


def test_epochs_of_a_run_follow_the_schedule(data, runs, monkeypatch):
    """The rate that the optimizer has in each epoch of a real run."""
    rates = {}
    plain = training_run.train_epoch

    def spy(config, epoch, **given):
        rates[epoch] = given["optimizer"].param_groups[0]["lr"]
        return plain(config, epoch, **given)

    monkeypatch.setattr(training_run, "train_epoch", spy)
    train(replace(TINY, lr_schedule="exponential", lr=0.01), *data)
    assert rates == pytest.approx({0: 0.01, 1: 0.009, 2: 0.0081})


# Parts of the loop.


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("samples", [10, 11, 31, 32, 33, 64, 65, 68, 97])
def test_each_position_is_in_one_batch_with_two_for_each_process(samples, processes):
    parts = batches(samples, 32, seed=1, epoch=2, processes=processes)
    assert sorted(np.concatenate(parts).tolist()) == list(range(samples))
    sizes = [len(part) for part in parts]
    assert min(sizes) >= 2 * processes
    assert max(sizes) < 32 + 2 * processes
    assert all(size >= 32 for size in sizes[:-1])


def test_batches_depend_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return np.concatenate(batches(100, 32, seed, epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(*key)) for key in ((1, 2), (1, 3), (2, 2), (2, 1))}) == 4
    assert order(0, 0) != list(range(100))


class Recorder(nn.Module):
    """A network that keeps what it is given; its logits tell left from right."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.fc = nn.Linear(2, 2)

    def forward(self, images):
        self.seen.append(images)
        logits = torch.stack([images[:, 0, :, 0].sum(1), images[:, 0, :, -1].sum(1)], dim=1)
        return Representation(logits, images.mean(dim=(2, 3)), images)


class Listener(Method):
    """A method that keeps what the network said of a batch."""

    def __init__(self, two_views: bool):
        super().__init__()
        self.two_views = two_views

    def forward(self, output):
        self.heard = output
        return output.logits.sum(), {}


def heard_of(model, views, two_views: bool, order: str):
    learner = Learner(model, Listener(two_views), order)
    _, _, logits = learner(views, labels=torch.zeros(len(views)), epoch=2, epochs=5)
    assert torch.equal(logits, learner.method.heard.logits)
    return learner.method.heard


@pytest.mark.parametrize(("order", "passes"), [("joint", [10]), ("separate", [5, 5])])
def test_second_view_is_the_mirror(order, passes):
    views, model = torch.rand(5, 3, 4, 6), Recorder()
    mirrored = views[..., [5, 4, 3, 2, 1, 0]]
    heard = heard_of(model, views, True, order)
    assert [len(images) for images in model.seen] == passes
    assert torch.equal(torch.cat(model.seen), torch.cat([views, mirrored]))
    assert torch.equal(heard.logits, heard.logits_flipped[:, [1, 0]])
    assert heard.logits.shape == heard.logits_flipped.shape == (5, 2)
    assert torch.equal(heard.feature_map, views)
    assert torch.equal(heard.feature_map_flipped, mirrored)
    assert heard.features.shape == heard.features_flipped.shape == (5, 3)
    assert (heard.epoch, heard.epochs) == (2, 5)
    assert heard.classifier is model.fc


def test_one_view_where_the_method_has_one():
    views, model = torch.rand(5, 3, 4, 6), Recorder()
    heard = heard_of(model, views, False, "joint")
    assert heard.logits_flipped is heard.features_flipped is heard.feature_map_flipped is None
    assert len(model.seen) == 1
    assert torch.equal(heard.logits, model(views).logits)


class Normalised(nn.Module):
    """A small network with batch normalisation."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 7)

    def forward(self, images):
        feature_map = self.body(images)
        features = feature_map[:, :, 1, 1]
        return Representation(self.fc(features), features, feature_map)


def test_batch_statistics_are_shared_by_joint_views_alone():
    model, views = Normalised(), torch.rand(8, 3, 6, 6) * torch.arange(6)
    joint = heard_of(model.train(), views, True, "joint").logits
    separate = heard_of(model, views, True, "separate").logits
    assert not torch.allclose(joint, separate, atol=1e-3)
    model.eval()
    joint = heard_of(model, views, True, "joint").logits
    separate = heard_of(model, views, True, "separate").logits
    torch.testing.assert_close(joint, separate)


def test_to_tensor_moves_the_channels():
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    tensor = to_tensor(images)
    assert tensor.shape == (2, 3, 3, 4)
    for n, c, y, x in np.ndindex(2, 3, 3, 4):
        assert tensor[n, c, y, x] == images[n, y, x, c]


def test_predict_equals_one_image_at_a_time(data):
    images = data[1][:20]
    model = build_model("resnet18_narrow16", 7, seed=0)
    positions = np.array([7, 3, 19, 3])
    learner = Learner(model, make_method("nla"), "joint")
    found = predict(learner, images, positions, make_accelerator("cpu", "fp32"))
    assert found.dtype == np.float32
    with torch.no_grad():
        for row, position in zip(found, positions, strict=True):
            logits = model.eval()(normalise(to_tensor(images[position : position + 1]))).logits
            np.testing.assert_allclose(row, logits.softmax(1)[0].numpy(), atol=1e-5)


class Doubter(Method):
    """A method that judges otherwise than the network."""

    def predict(self, output):
        assert output.labels is None
        return output.classifier(2 * output.features.float())


def test_process_without_a_share_predicts_nothing_of_the_right_width(data):
    learner = Learner(build_model("resnet18_narrow16", 7, 0), make_method("ce"), "joint")
    accelerator = make_accelerator("cpu", "fp32")
    nothing = predict(learner, data[1], np.empty(0, dtype=np.int64), accelerator)
    assert nothing.shape == (0, 7)


def test_predictions_are_the_methods_own(data):
    model, positions = build_model("resnet18_narrow16", 7, seed=0), np.arange(4)
    learner = Learner(model, Doubter(), "joint")
    found = predict(learner, data[1], positions, make_accelerator("cpu", "fp32"))
    with torch.no_grad():
        features = model.eval()(normalise(to_tensor(data[1][:4]))).features
        wanted = model.fc(2 * features).softmax(1).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_methods_begin_with_the_runs_seed_whatever_came_before(data):
    """A method's own layers are drawn in `setup`."""

    class Headed(Method):
        def setup(self, training_set):
            self.given = training_set
            self.head = nn.Linear(training_set.num_features, 1)

    rows = data[0][data[0]["part"] == "train"]
    register("headed")(Headed)
    try:
        weights = []
        for seed in (3, 3, 4):
            torch.manual_seed(len(weights))
            model = build_model("resnet18_narrow16", 7, seed=0)
            config = replace(TINY, method="headed", seed=seed)
            learner, targets = make_learner(config, rows, model)
            weights.append(learner.method.head.weight)
    finally:
        del METHODS["headed"]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert targets["labels"].tolist() == rows["label"].tolist()
    given = learner.method.given
    assert (given.num_classes, given.num_features) == (7, 128)
    assert given.labels.tolist() == rows["label"].tolist()
    assert given.votes is given.candidates is None


def test_non_finite_loss_raises_and_keeps_no_checkpoint(data, runs, monkeypatch):
    config = replace(TINY, method="ce", epochs=1)
    forward = METHODS["ce"].forward
    monkeypatch.setattr(
        METHODS["ce"],
        "forward",
        lambda self, output: forward(self, replace(output, logits=output.logits * torch.inf)),
    )
    with pytest.raises(
        FloatingPointError, match=r"the loss is nan in epoch 0: lower lr \(0\.003\)"
    ):
        train(config, *data)
    assert not (config.folder / "checkpoint.pt").exists()
    assert not (config.folder / "done").exists()


def stop_after_one_epoch(config, data):
    def stop(line: str):
        if "epoch 1/" in line:
            raise Killed

    with pytest.raises(Killed):
        train(config, *data, report=stop)
    return config.folder / "checkpoint.pt"


def test_foreign_and_damaged_checkpoints_are_refused_by_name(data, runs):
    checkpoint = stop_after_one_epoch(TINY, data)
    sound = checkpoint.read_bytes()
    other = replace(TINY, seed=5)
    with pytest.raises(ValueError, match=rf"belongs to {TINY.run_id}, not to {other.run_id}: del"):
        read_checkpoint(checkpoint, other)
    for content in (sound[: len(sound) // 2], b"", b"something else"):
        checkpoint.write_bytes(content)
        with pytest.raises(ValueError, match=rf"of {TINY.run_id} is cut off or of an"):
            train(TINY, *data)
    for offset in (0, 8, 10, 42):  # of its directory: a mark, flags, compression, a place
        spoilt = bytearray(sound)
        spoilt[sound.rindex(b"PK\x01\x02") + offset] ^= 1
        checkpoint.write_bytes(spoilt)
        with pytest.raises(ValueError, match=rf"of {TINY.run_id} is .*: delete"):
            train(TINY, *data)
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("data.pkl", "no pickle")
    with pytest.raises(ValueError, match=rf"of {TINY.run_id} does not load: delete"):
        train(TINY, *data)
    torch.save({"weights": torch.zeros(2)}, checkpoint)
    with pytest.raises(ValueError, match="is no checkpoint of a run: delete"):
        train(TINY, *data)
    spoilt = bytearray(sound)  # one bit of the largest tensor, which PyTorch would read as it is
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    spoilt[largest.header_offset + largest.file_size // 2 + 200] ^= 1
    checkpoint.write_bytes(spoilt)
    with pytest.raises(ValueError, match=rf"of {TINY.run_id} is damaged in .*: delete"):
        train(TINY, *data)
    assert not (TINY.folder / "done").exists()
    checkpoint.write_bytes(sound)
    assert read_checkpoint(checkpoint, TINY)["progress"]["epochs_done"] == 1


def test_full_disk_is_said_and_the_last_checkpoint_stays(finished, data, runs, monkeypatch):
    """The disk fills up while the second checkpoint is written: half of it gets there."""
    checkpoint = stop_after_one_epoch(TINY, data)
    before, write = checkpoint.read_bytes(), Path.write_bytes

    def half(path, content):
        if "checkpoint" in path.name:
            content = bytes(content)[:1000]
        write(path, content)
        if "checkpoint" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        patch.setattr("nlalib.files.free_bytes", lambda path: 4096)
        with pytest.raises(OSError, match=r"no room to write .*: 4,096 bytes are free") as told:
            train(TINY, *data)
    assert told.value.errno == errno.ENOSPC
    assert checkpoint.read_bytes() == before
    assert not list(TINY.folder.glob(".checkpoint*"))
    assert results_of(train(TINY, *data)) == results_of(finished)


def test_folder_that_cannot_be_written_is_named(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "file" / "runs"))
    with pytest.raises(OSError, match=r"file/runs/rendered-nla-.* cannot be written .*NLA_RUNS"):
        train(TINY, *data)


def test_initial_weights_are_used(finished, data, runs):
    weights = finished / "weights.safetensors"
    config = replace(TINY, epochs=1, initial_weights=str(weights))
    lines = []
    from_weights = read_metrics(train(config, *data, report=lines.append))
    assert lines[1].startswith("initial weights: weights@")
    assert "['fc.bias', 'fc.weight']" in lines[1]
    random_start = read_metrics(train(replace(TINY, epochs=1), *data))
    assert from_weights["train_loss"][0] != random_start["train_loss"][0]


# Devices.


def test_deterministic_mode_is_on_while_a_run_trains_and_changes_nothing_here(
    finished, data, runs, monkeypatch
):
    found, plain = [], training_run.train_epoch

    def spy(*given, **named):
        found.append(torch.are_deterministic_algorithms_enabled())
        return plain(*given, **named)

    monkeypatch.setattr(training_run, "train_epoch", spy)
    config = replace(TINY, deterministic=True)
    assert config.run_id == TINY.run_id
    assert results_of(train(config, *data)) == results_of(finished)
    assert found == [True] * 3
    assert not torch.are_deterministic_algorithms_enabled()


def test_half_precision_without_a_gpu_is_refused_with_a_way_out(data, runs):
    with pytest.raises(ValueError, match="'fp16', which 'cpu' does not compute in; use"):
        train(replace(TINY, precision="fp16", device="cpu"), *data)


def test_order_of_the_channels_changes_the_rounding_alone(data, runs):
    """One step on all images: the same loss, from weights that lie otherwise in memory."""
    config = replace(TINY, epochs=1, batch_size=200, backbone="resnet10_narrow16_stride2")
    assert memory_format(config) == torch.channels_last
    other = replace(config, channels_last=False)
    assert memory_format(other) == torch.contiguous_format
    assert other.run_id == config.run_id
    seen, plain = [], Learner.forward

    def spy(learner, views, **batch):
        weight = learner.model.conv1.weight
        seen.append([v.is_contiguous() for v in (views, weight)])
        return plain(learner, views, **batch)

    losses = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "forward", spy)
        for one in (config, other):
            losses.append(read_metrics(train(one, *data))["train_loss"][0])
            shutil.rmtree(one.folder)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert seen[-1] == [True, True]
    assert not seen[0][1]


def test_network_alone_is_compiled_and_its_weights_keep_their_names(data, runs, monkeypatch):
    """Without the compiler, which takes minutes; a test on a GPU runs it."""
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    config = replace(TINY, epochs=1, compile=True, backbone="resnet10_narrow16_stride2")
    assert config.run_id == replace(config, compile=False).run_id
    folder = train(config, *data)
    assert compiled == ["ResNet"]
    model = build_model(config.backbone, 7, 0)
    assert set(load_file(folder / "weights.safetensors")) == set(model.state_dict())


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["nla", "eac"])
def test_training_on_a_gpu(data, runs, precision, method):
    config = replace(TINY, epochs=1, device="cuda", precision=precision, method=method)
    metrics = read_metrics(train(config, *data))
    assert np.isfinite(metrics["train_loss"][0])


@pytest.mark.cuda
def test_first_loss_on_a_gpu_is_that_of_the_cpu(data, runs):
    """Before the weights have moved, the two differ by rounding alone."""
    config = replace(TINY, epochs=1, batch_size=200)
    on_cpu = read_metrics(train(replace(config, device="cpu"), *data))["train_loss"][0]
    (config.folder / "done").unlink()
    on_gpu = read_metrics(train(replace(config, device="cuda"), *data))["train_loss"][0]
    assert on_gpu == pytest.approx(on_cpu, rel=0.02)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.02), ("bf16", 0.1), ("fp16", 0.1)])
def test_losses_of_three_steps_on_a_gpu_follow_those_of_the_cpu(data, runs, precision, tolerance):
    """Over steps that move the weights little; a wrong gradient would show in the second."""
    config = replace(TINY, batch_size=200, lr=1.0e-4, lr_schedule="constant", augmentation="none")
    config = replace(config, precision=precision)
    reference = replace(config, device="cpu", precision="fp32")
    on_cpu = read_metrics(train(reference, *data))["train_loss"]
    shutil.rmtree(reference.folder)
    on_gpu = read_metrics(train(replace(config, device="cuda"), *data))["train_loss"]
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=tolerance)


@pytest.mark.cuda
def test_deterministic_runs_on_a_gpu_are_equal_bit_by_bit(data, runs):
    config, found = replace(TINY, device="cuda", deterministic=True), []
    for _ in range(2):
        found.append(results_of(train(config, *data)))
        shutil.rmtree(config.folder)
    assert found[0] == found[1]


@pytest.mark.cuda
def test_resumed_deterministic_run_on_a_gpu_is_the_whole_one(data, runs):
    config = replace(TINY, device="cuda", deterministic=True)
    whole = results_of(train(config, *data))
    shutil.rmtree(config.folder)
    stop_after_one_epoch(config, data)
    assert results_of(train(config, *data)) == whole


@pytest.mark.cuda
def test_compiled_training_on_a_gpu(data, runs):
    config = replace(TINY, epochs=1, device="cuda", compile=True)
    assert np.isfinite(read_metrics(train(config, *data))["train_loss"][0])


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_resuming_on_a_gpu(data, runs, precision):
    config = replace(TINY, device="cuda", precision=precision)
    whole = read_metrics(train(config, *data))
    shutil.rmtree(config.folder)
    stop_after_one_epoch(config, data)
    metrics = read_metrics(train(config, *data))
    assert metrics["epoch"].tolist() == [0, 1, 2]
    # Atomic additions change their order from run to run.
    np.testing.assert_allclose(metrics["train_loss"], whole["train_loss"], rtol=0.05)
