"""Masks are exact and seeded, the loss counts hidden patches only, a killed run goes on bit by bit.

Also the linear probe that judges what pre-training has learned.
"""

import json
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from safetensors.torch import load_file

from nlalib.data.choice import SETTINGS_FILE
from nlalib.data.pixels import image_array
from nlalib.data.splits import load_dataset
from nlalib.networks.face_transformer import FaceTransformer
from nlalib.networks.initial_weights import load_backbone
from nlalib.networks.masked_autoencoder import (
    EpochMasks,
    MaskedAutoencoder,
    patchify,
    reconstruct,
    reconstruction_loss,
    unpatchify,
    visible_patches,
)
from nlalib.networks.registry import BACKBONES, Backbone, build_model
from nlalib.networks.vision_transformer import build_vit
from nlalib.paths import ROOT
from nlalib.training import pretraining as masked_pretraining
from nlalib.training import probing
from nlalib.training.augmentation import EpochDraws
from nlalib.training.pretrain_config import PretrainConfig, pretraining_table
from nlalib.training.pretraining import (
    _make_optimizer,
    fine_tuning_runs,
    pretrain,
    random_autoencoder,
    random_encoder,
    trained_autoencoder,
)
from nlalib.training.probing import (
    accuracy_difference,
    frozen_features,
    linear_probe,
    probe_encoder,
)

TINY_SIZE = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "heads": 2}
RESULTS = ("metrics.csv", "weights.safetensors", "autoencoder.safetensors")
NOTEBOOK = ROOT / "notebooks" / "05_masked_pretraining.ipynb"
CHANGES = {
    "dataset": "rafdb",
    "label_rule": "majority",
    "num_classes": 8,
    "train_images": 91,
    "data_seed": 1,
    "held_out": 0.2,
    "backbone": "vit_small_patch16",
    "mask_ratio": 0.5,
    "decoder_width": 32,
    "decoder_depth": 1,
    "epochs": 4,
    "batch_size": 16,
    "lr": 1.0e-4,
    "weight_decay": 0.0,
    "augmentation": "affine",
    "precision": "bf16",
    "seed": 1,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums are ordered by threads, and the runs below are compared bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def tiny_size():
    """A transformer of 16 patches, small enough to train in a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(masked_pretraining.VIT_SIZES, "tiny", TINY_SIZE)
        patch.setitem(BACKBONES, "tiny", Backbone(partial(build_vit, size="tiny")))
        yield


@pytest.fixture(scope="module")
def tiny(tiny_size) -> PretrainConfig:
    return PretrainConfig(
        backbone="tiny",
        train_images=90,
        test_images=30,
        decoder_width=16,
        decoder_depth=1,
        epochs=3,
        batch_size=32,
        device="cpu",
    )


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    """The index and the decoded images of the tiny run."""
    index, _ = load_dataset(tiny.data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return index, np.array(image_array(index, root=Path("nowhere"), size=tiny.image_size))


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """An empty folder for the runs of one test."""
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def finished(tiny, data, tmp_path_factory):
    """The environment variable and the folder of one uninterrupted tiny run."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(root))
        return root, pretrain(tiny, *data)


# Masks.


@pytest.mark.parametrize(("patches", "ratio", "visible"), [(64, 0.75, 16), (196, 0.75, 49)])
def test_each_image_has_exactly_the_asked_for_number_of_hidden_patches(patches, ratio, visible):
    shown, hidden = EpochMasks(50, patches, ratio, seed=0, epoch=0)(torch.arange(50))
    assert shown.shape == (50, visible)
    assert (hidden.sum(dim=1) == patches - visible).all()
    for row in range(50):
        assert sorted(shown[row].tolist()) == [p for p in range(patches) if not hidden[row, p]]


def test_masks_depend_on_seed_epoch_and_sample_alone():
    samples = torch.tensor([7, 3, 99])
    _, hidden = EpochMasks(100, 64, 0.75, seed=1, epoch=2)(samples)
    _, larger_set = EpochMasks(500, 64, 0.75, seed=1, epoch=2)(samples)
    assert torch.equal(hidden, larger_set)
    _, alone = EpochMasks(100, 64, 0.75, seed=1, epoch=2)(samples[1:2])
    assert torch.equal(hidden[1:2], alone)
    for seed, epoch in ((2, 2), (1, 3)):
        _, other = EpochMasks(100, 64, 0.75, seed=seed, epoch=epoch)(samples)
        assert not torch.equal(hidden, other)
    assert not torch.equal(hidden[0], hidden[1])


def test_every_patch_is_hidden_equally_often():
    _, hidden = EpochMasks(4000, 16, 0.75, seed=0, epoch=0)(torch.arange(4000))
    # Five standard deviations of a share of 4000 draws with probability .75.
    assert (hidden.float().mean(dim=0) - 0.75).abs().max() < 5 * (0.75 * 0.25 / 4000) ** 0.5


@pytest.mark.parametrize("ratio", [0.0, 1.0, -1.0, 0.999])
def test_mask_of_everything_or_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="choose one that hides some and leaves some"):
        visible_patches(64, ratio)


# Patches and the loss.


def test_patches_are_cut_row_by_row_and_put_together_again():
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 12, 12))).float()
    patches = patchify(images, 4)
    assert patches.shape == (2, 9, 48)
    for row in range(3):
        for column in range(3):
            cut = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert torch.equal(patches[:, 3 * row + column], cut.permute(0, 2, 3, 1).flatten(1))
    assert torch.equal(unpatchify(patches, 4), images)


def test_loss_is_the_formula_over_hidden_patches():
    """Mean over the hidden patches of the squared error to the patch, standardised by itself."""
    generator = np.random.default_rng(0)
    patches = generator.normal(3.0, 2.0, size=(2, 4, 12))
    predicted = generator.normal(size=(2, 4, 12))
    hidden = np.array([[True, False, True, False], [False, False, True, True]])
    errors = []
    for image in range(2):
        for place in range(4):
            if not hidden[image, place]:
                continue
            values = patches[image, place].tolist()
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            for guess, value in zip(predicted[image, place], values, strict=True):
                errors.append((guess - (value - mean) / (variance + 1e-6) ** 0.5) ** 2)
    given = (torch.from_numpy(array) for array in (predicted, patches, hidden))
    loss = reconstruction_loss(*given)
    assert float(loss) == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_visible_patches_get_no_gradient_and_a_perfect_guess_costs_nothing():
    patches = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 4, 12)))
    hidden = torch.tensor([[True, False, False, True]])
    predicted = torch.zeros(1, 4, 12, requires_grad=True)
    reconstruction_loss(predicted, patches, hidden).backward()
    assert (predicted.grad.abs().sum(dim=2) > 0).tolist() == hidden.tolist()
    perfect = (patches - patches.mean(2, keepdim=True)) / patches.std(2, keepdim=True)
    assert float(reconstruction_loss(perfect, patches, hidden)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flat_patch_and_wild_guess_stay_finite(dtype):
    predicted = torch.full((1, 4, 12), 1e4, dtype=dtype, requires_grad=True)
    hidden = torch.tensor([[True, True, False, False]])
    loss = reconstruction_loss(predicted, torch.zeros(1, 4, 12), hidden)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(predicted.grad).all()


def test_reconstruction_keeps_visible_patches_and_gives_back_mean_and_contrast():
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 8, 8))).float()
    hidden = torch.tensor([[True, False, False, False]])
    predicted = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 4, 48))).float()
    result = reconstruct(predicted, images, hidden, side=4)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[:4, :4] = False
    assert torch.equal(result[:, :, outside], images[:, :, outside])
    patch, made = patchify(images, 4)[0, 0], patchify(result, 4)[0, 0]
    torch.testing.assert_close(made, predicted[0, 0] * patch.std() + patch.mean())
    blank = reconstruct(torch.zeros_like(predicted), images, hidden, side=4)
    torch.testing.assert_close(patchify(blank, 4)[0, 0], patch.mean().expand(48))


# The autoencoder.


def test_prediction_depends_on_visible_patches_only():
    torch.manual_seed(0)
    model = MaskedAutoencoder(FaceTransformer(7, **TINY_SIZE), width=16, depth=1).eval()
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 16, 16))).float()
    visible, hidden = EpochMasks(2, 16, 0.75, seed=0, epoch=0)(torch.arange(2))
    before = model(images, visible)
    assert before.shape == (2, 16, 48)
    noise = torch.where(hidden[:, :, None], 9.0, 0.0).expand(-1, -1, 48)
    assert torch.equal(model(images + unpatchify(noise, 4), visible), before)
    noise = torch.where(hidden[:, :, None], 0.0, 9.0).expand(-1, -1, 48)
    assert not torch.allclose(model(images + unpatchify(noise, 4), visible), before, atol=1e-3)


def test_decoder_gets_each_visible_token_in_its_own_place():
    """Without blocks the decoder mixes no places, so only visible ones can vary with the image."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(FaceTransformer(7, **TINY_SIZE), width=16, depth=0).eval()
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.normal(size=(2, 1, 3, 16, 16))).float()
    visible, hidden = EpochMasks(1, 16, 0.75, seed=0, epoch=0)(torch.arange(1))
    first, second = (model(image, visible) for image in images)
    assert ((first != second).any(dim=2) == ~hidden).all()


def test_no_weight_is_idle_but_the_classifier():
    torch.manual_seed(0)
    model = MaskedAutoencoder(FaceTransformer(7, **TINY_SIZE), width=16, depth=1)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3, 16, 16))).float()
    visible, hidden = EpochMasks(4, 16, 0.75, seed=0, epoch=0)(torch.arange(4))
    reconstruction_loss(model(images, visible), patchify(images, 4), hidden).backward()
    idle = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert idle == {"encoder.fc.weight", "encoder.fc.bias"}


# The run.


def test_finished_run_holds_its_files(tiny, finished):
    _, folder = finished
    wanted = {
        ".lock",
        "config.json",
        "content.json",
        "environment.json",
        "timing.csv",
        "done",
        *RESULTS,
    }
    assert {file.name for file in folder.iterdir()} == wanted
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("identity") == tiny.identity
    assert PretrainConfig.from_parameters(config) == tiny
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics.columns.tolist() == ["epoch", "train_loss", "held_out_loss"]
    done = (folder / "done").stat().st_mtime_ns
    assert all(f.stat().st_mtime_ns <= done for f in folder.iterdir() if f.name != "done")


def test_loss_falls(tiny, data, runs):
    """Predicting the mean of each patch costs about 1; faces are smooth, so less is easy."""
    folder = pretrain(replace(tiny, epochs=12, lr=5.0e-3), *data)
    losses = pd.read_csv(folder / "metrics.csv")
    assert losses["train_loss"].iloc[-1] < 0.9 * losses["train_loss"].iloc[0]
    assert losses["held_out_loss"].iloc[-1] < 0.9


@pytest.mark.parametrize("epochs_before", [1, 2])
def test_killed_run_goes_on_to_identical_bytes(
    tiny, data, finished, runs, monkeypatch, epochs_before
):
    def stop(line):
        if f"epoch {epochs_before}/" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny, *data, report=stop)
    assert not tiny.is_done
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - whatever else used the global state must not matter
    lines = []
    folder = pretrain(tiny, *data, report=lines.append)
    assert lines[0] == f"going on after epoch {epochs_before} of 3"
    for name in RESULTS:
        assert (folder / name).read_bytes() == (finished[1] / name).read_bytes(), name
    lines.clear()
    pretrain(tiny, *data, report=lines.append)
    assert lines[0].startswith(f"already done: {tiny.run_id} (delete ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is cut off"),
        (lambda path: torch.save({"weights": torch.zeros(3)}, path), "is no checkpoint of a run"),
        (
            lambda path: torch.save({"progress": {}, "run_id": "other"}, path),
            "belongs to other, not",
        ),
    ],
)
def test_damaged_or_foreign_checkpoint_is_refused(tiny, data, runs, damage, message):
    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny, *data, report=stop)
    damage(tiny.folder / "checkpoint.pt")
    with pytest.raises(ValueError, match=f"{message}.*delete .* to begin the run anew"):
        pretrain(tiny, *data)


def test_labels_and_test_images_play_no_part(tiny, data, finished, runs):
    index, images = data
    images = np.where((index["part"] == "test").to_numpy()[:, None, None, None], 0, images)
    shuffled = index.assign(label=index["label"].to_numpy()[::-1])
    folder = pretrain(tiny, shuffled, images.astype(np.uint8))
    assert (folder / RESULTS[1]).read_bytes() == (finished[1] / RESULTS[1]).read_bytes()


def test_table_of_a_run_holds_losses_and_probe(tiny, finished, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(finished[0]))
    probe = tiny.folder / "probe.csv"
    with pytest.raises(FileNotFoundError, match="not probed: run 05_masked_pretraining"):
        pretraining_table(tiny)
    probe.write_text("accuracy,reference,difference,low,high\n0.4,0.3,0.1,0.05,0.15\n")
    table = pretraining_table(tiny).set_index(["metric", "epoch"])["value"]
    probe.unlink()
    written = pd.read_csv(tiny.folder / "metrics.csv")
    for name in ("train_loss", "held_out_loss"):
        assert table[name].tolist() == written[name].tolist()
        assert table[name].index.tolist() == [0, 1, 2]
    found = {name: table[f"probe_{name}", 2] for name in ("accuracy", "reference", "difference")}
    assert found == {"accuracy": 0.4, "reference": 0.3, "difference": 0.1}
    assert len(table) == 2 * 3 + 5


def test_encoder_loads_into_a_backbone_with_another_classifier(tiny, finished, monkeypatch):
    root, folder = finished
    model = FaceTransformer(8, **TINY_SIZE)
    classifier = model.fc.weight.detach().clone()
    assert load_backbone(model, folder / "weights.safetensors") == []
    assert torch.equal(model.fc.weight, classifier)
    monkeypatch.setenv("NLA_RUNS", str(root))
    trained = trained_autoencoder(tiny).encoder
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 16, 16))).float()
    assert torch.equal(model.eval()(images).features, trained(images).features)
    begun = random_encoder(tiny).eval()
    assert not torch.allclose(begun(images).features, trained(images).features, atol=1e-3)
    assert torch.equal(random_autoencoder(tiny).encoder.fc.weight, begun.fc.weight)
    stored = load_file(folder / "weights.safetensors")
    assert not [name for name in stored if name.startswith("fc.")]


def test_random_encoder_is_the_backbone_that_a_training_run_starts_from():
    """Else a run with these weights and one without would differ in more than pre-training."""
    ours, theirs = random_encoder(PretrainConfig(seed=3)), build_model("vit_tiny_patch6", 7, 3)
    theirs = theirs.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


def test_unfinished_run_has_no_autoencoder_to_load(tiny, runs):
    with pytest.raises(FileNotFoundError, match=r"is not done; call .*pretrain first"):
        trained_autoencoder(tiny)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20, 100])
def test_any_number_of_steps_has_a_schedule(tiny, steps):
    _, scheduler = _make_optimizer(random_autoencoder(tiny), tiny, steps)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    assert 0 < max(rates) <= tiny.lr * (1 + 1e-9)
    assert (
        rates == rates[: rates.index(max(rates))] + sorted(rates[rates.index(max(rates)) :])[::-1]
    )


def test_loss_that_is_not_finite_stops_the_run(tiny, data, runs):
    with pytest.raises(FloatingPointError, match="lower lr"):
        pretrain(replace(tiny, lr=1.0e30, weight_decay=1.0), *data)


# Parameters.


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_result_changes_the_id(name):
    base = PretrainConfig()
    if name == "label_rule":
        base = replace(base, dataset="ferplus")
    if name == "dataset":
        assert replace(base, dataset="rafdb").run_id != base.run_id
    assert replace(base, **{name: CHANGES[name]}).run_id != base.run_id


def test_places_devices_and_the_probe_do_not_change_the_id():
    elsewhere = {"data_root": "elsewhere", "device": "cpu", "test_images": 401}
    assert replace(PretrainConfig(), **elsewhere).run_id == PretrainConfig().run_id
    assert {*CHANGES, *elsewhere} == {parameter.name for parameter in fields(PretrainConfig)}


def test_aligned_images_are_other_images(tmp_path):
    """As for training runs: where they lie does not matter, how they were aligned does."""
    ids, plain = {}, PretrainConfig(dataset="rafdb")
    for name, settings in {"one": '{"size": 48}', "moved": '{"size": 48}', "other": "{}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / SETTINGS_FILE).write_text(settings)
        ids[name] = replace(plain, data_root=str(tmp_path / name)).run_id
    assert ids["one"] == ids["moved"]
    assert len({plain.run_id, *ids.values()}) == 3


def test_images_do_not_depend_on_the_number_of_test_images(tiny):
    """Else it would have to be part of the id."""
    few, _ = load_dataset(tiny.data)
    more, _ = load_dataset(replace(tiny, test_images=60).data)
    few, more = (index.query("part != 'test'")["image_id"].tolist() for index in (few, more))
    assert few == more


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backbone": "resnet18"}, "backbone is .resnet18.; it must be one of vit_tiny_patch6"),
        ({"mask_ratio": 0.0}, "choose one that hides some"),
        ({"decoder_width": 30}, "positive multiple of 4"),
        ({"augmentation": "blur"}, "unknown augmentation"),
        ({"epochs": 0}, "epochs is 0"),
        ({"held_out": 0.0}, "held_out is 0.0"),
    ],
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**wrong)


def test_misspelt_parameter_is_refused():
    with pytest.raises(ValueError, match="did you mean 'mask_ratio'"):
        PretrainConfig.from_parameters({"mask_ration": 0.5})


def test_defaults_are_those_of_the_notebook():
    cell = papermill.inspect_notebook(str(NOTEBOOK))
    # The defaults are literals of our own notebook.
    assert {name: eval(found["default"]) for name, found in cell.items()} == asdict(
        PretrainConfig()
    )


def test_fine_tuning_runs_differ_in_their_initial_weights_alone():
    config = PretrainConfig(train_images=90)
    both = fine_tuning_runs(config, method="ce", epochs=2, seed=3)
    weights = both["pre-trained"].initial_weights
    assert weights.endswith(f"{config.run_id}/weights.safetensors")
    assert replace(both["random"], initial_weights=weights) == both["pre-trained"]
    assert (both["random"].epochs, both["random"].seed, both["random"].image_size) == (2, 3, 48)


# The probe.


def test_frozen_features_are_those_of_each_image_alone(tiny, data, monkeypatch):
    monkeypatch.setattr(probing, "_BATCH", 4)
    model, images = random_encoder(tiny), data[1]
    positions = np.array([5, 0, 17, 3, 44, 8, 2])
    together = frozen_features(model, images, positions)
    assert together.shape == (7, 16)
    assert together.dtype == np.float32
    alone = np.concatenate([frozen_features(model, images, positions[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert not model.training


def test_probe_separates_what_is_linear_and_is_at_chance_for_noise():
    generator = np.random.default_rng(0)
    sizes = {"train": 300, "held_out": 100, "test": 400}
    labels = {part: generator.integers(0, 2, size) for part, size in sizes.items()}
    noise = {part: generator.normal(size=(size, 5)) for part, size in sizes.items()}
    # On another scale, with the class along one direction.
    linear = {p: 100 * noise[p] + 300 * np.outer(labels[p], [0, 1, 0, 0, 1]) for p in sizes}
    known = {part: labels[part] for part in ("train", "held_out")}
    assert (linear_probe(linear, known).predicted == labels["test"]).mean() > 0.95
    # Five standard deviations of a share of 400.
    assert abs((linear_probe(noise, known).predicted == labels["test"]).mean() - 0.5) < 0.125


def test_probe_chooses_the_penalty_on_held_out_images():
    """A feature that tells the class in training and lies on held-out images wants a penalty."""
    generator = np.random.default_rng(0)
    labels = {part: generator.integers(0, 2, 200) for part in ("train", "held_out")}
    features = {part: generator.normal(size=(200, 60)) for part in ("train", "held_out", "test")}
    for part in labels:
        features[part][:, 0] += labels[part]
    result = linear_probe(features, labels)
    best = max(
        (linear_probe_with(features, labels, penalty), -penalty) for penalty in probing.PENALTIES
    )
    assert (result.held_out_accuracy, -result.penalty) == best


def linear_probe_with(features, labels, penalty: float) -> float:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probing, "PENALTIES", (penalty,))
        return linear_probe(features, labels).held_out_accuracy


def test_probe_of_an_encoder_uses_each_part_for_its_purpose(tiny, data):
    index, images = data
    parts, labels = index["part"].to_numpy(), index["label"].to_numpy()
    result = probe_encoder(random_encoder(tiny), images, parts, labels)
    assert len(result.predicted) == (parts == "test").sum()
    unknown = np.where(parts == "test", 0, labels)
    again = probe_encoder(random_encoder(tiny), images, parts, unknown)
    assert np.array_equal(result.predicted, again.predicted)


def test_difference_and_its_interval_agree_with_the_normal_approximation():
    generator = np.random.default_rng(0)
    labels = np.zeros(1000, int)
    predicted = (generator.random(1000) > 0.7).astype(int)
    reference = (generator.random(1000) > 0.6).astype(int)
    found = accuracy_difference(labels, predicted, reference, seed=0)
    gain = (predicted == 0).astype(float) - (reference == 0)
    assert found["accuracy"] - found["reference"] == pytest.approx(found["difference"])
    assert found["difference"] == pytest.approx(gain.mean())
    half = 1.96 * gain.std() / 1000**0.5
    assert found["low"] == pytest.approx(gain.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(gain.mean() + half, abs=0.1 * half)
    assert found == accuracy_difference(labels, predicted, reference, seed=0)


def test_difference_of_equal_predictions_is_nothing():
    same = np.arange(10) % 2
    found = accuracy_difference(np.zeros(10, int), same, same, seed=0)
    assert (found["difference"], found["low"], found["high"]) == (0, 0, 0)


# Wiring of an epoch.


def test_each_epoch_sees_its_training_images_with_its_own_draws_and_masks(
    tiny, data, runs, monkeypatch
):
    """Of seed 3, with the training images in no order among others."""
    config = replace(tiny, seed=3, epochs=2)
    order = np.random.default_rng(0).permutation(len(data[0]))
    index, images = data[0].iloc[order].reset_index(drop=True), data[1][order]
    seen, masks = [], []
    augment, epoch_masks = masked_pretraining.augment, masked_pretraining.EpochMasks

    def spy(pixels, samples, draws, recipe):
        seen.append((pixels.clone(), samples.clone(), draws.uniform.clone()))
        return augment(pixels, samples, draws, recipe)

    def noted(samples, patches, ratio, seed, epoch):
        masks.append((samples, ratio, seed, epoch))
        return epoch_masks(samples, patches, ratio, seed, epoch)

    monkeypatch.setattr(masked_pretraining, "augment", spy)
    monkeypatch.setattr(masked_pretraining, "EpochMasks", noted)
    pretrain(config, index, images)
    training = np.flatnonzero(index["part"] == "train")
    steps = len(seen) // 2
    for number, (pixels, samples, uniform) in enumerate(seen):
        wanted = torch.from_numpy(images[training[samples]]).permute(0, 3, 1, 2)
        assert torch.equal(pixels, wanted)
        assert torch.equal(uniform, EpochDraws(len(training), 3, number // steps).uniform)
    for epoch in range(2):
        of_epoch = torch.cat([samples for _, samples, _ in seen[epoch * steps :][:steps]])
        assert sorted(of_epoch.tolist()) == list(range(len(training)))
        assert (len(training), config.mask_ratio, 3, epoch) in masks
    held_out = int((index["part"] == "held_out").sum())
    assert {entry for entry in masks if entry[0] == held_out} == {
        (held_out, config.mask_ratio, 3, config.epochs)
    }
