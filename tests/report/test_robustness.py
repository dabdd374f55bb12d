"""Corrupted images, reliability and class similarities, against plain loops and simple cases."""

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from scipy.ndimage import convolve1d

from nlalib.data.labels import expressions
from nlalib.data.pixels import image_array
from nlalib.data.splits import load_dataset
from nlalib.metrics import CALIBRATION_BINS, expected_calibration_error
from nlalib.report import frame, publish, robustness
from nlalib.report.robustness import (
    SEVERITIES,
    corrupt_images,
    reliability_bins,
    run_calibration,
    run_label_similarities,
    run_robustness,
    study_robustness,
)
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig
from nlalib.training.launch import train

IDS = ["first", "second", "third"]


@pytest.fixture(scope="module")
def images():
    grey = np.random.default_rng(0).integers(60, 196, (3, 48, 48, 1), dtype=np.uint8)
    return np.repeat(grey, 3, axis=3)


@pytest.mark.parametrize("corruption", SEVERITIES)
def test_corruption_is_the_same_for_an_image_whatever_stands_beside_it(images, corruption):
    original = images.copy()
    together = corrupt_images(images, IDS, corruption, 3, seed=5)
    alone = corrupt_images(images[1:2], IDS[1:2], corruption, 3, seed=5)
    assert together.dtype == np.uint8
    assert (together[1] == alone[0]).all()
    assert (images == original).all()  # the given ones are left as they are


@pytest.mark.parametrize("corruption", ["gaussian_noise", "occlusion"])
def test_what_is_random_depends_on_seed_and_image(images, corruption):
    found = corrupt_images(images, IDS, corruption, 3, seed=5)
    assert (found != corrupt_images(images, IDS, corruption, 3, seed=6)).any()
    same = np.repeat(images[:1], 3, axis=0)
    first, second, _ = corrupt_images(same, IDS, corruption, 3)
    assert (first != second).any()


@pytest.mark.parametrize("corruption", SEVERITIES)
def test_severities_move_images_further_and_further(images, corruption):
    moved = [
        np.abs(corrupt_images(images, IDS, corruption, s).astype(float) - images).mean()
        for s in range(1, 6)
    ]
    assert moved[0] > 0
    assert (np.diff(moved) > 0).all()
    grey = corrupt_images(images, IDS, corruption, 5)
    assert (grey == grey[..., :1]).all()  # a grey photograph stays grey


@pytest.mark.parametrize("severity", range(1, 6))
def test_noise_has_the_standard_deviation_asked_for(severity):
    flat = np.full((20, 48, 48, 3), 128, dtype=np.uint8)
    noisy = corrupt_images(flat, [str(n) for n in range(20)], "gaussian_noise", severity)
    measured = (noisy[..., 0].astype(float) - 128).std() / 255
    assert measured == pytest.approx(SEVERITIES["gaussian_noise"][severity - 1], rel=0.03)


def test_contrast_pixel_by_pixel(images):
    found = corrupt_images(images[:1], IDS[:1], "contrast", 4)[0]
    mean = images[0, :, :, 0].astype(float).mean()
    for row, column in [(0, 0), (17, 30), (47, 2)]:
        expected = mean + 0.3 * (images[0, row, column, 0] - mean)
        assert found[row, column, 0] == pytest.approx(expected, abs=0.51)


def test_blur_is_a_gaussian_of_a_size_that_goes_with_the_image():
    point = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    point[0, 32, 32] = 255
    found = corrupt_images(point, ["point"], "gaussian_blur", 5)[0, :, :, 0].astype(float)
    places = np.arange(-8, 9)
    kernel = np.exp(-(places**2) / (2 * (1.0 * 64 / 32) ** 2))
    expected = point[0, :, :, 0].astype(float)
    for axis in (0, 1):
        expected = convolve1d(expected, kernel / kernel.sum(), axis=axis)
    assert np.abs(found - expected).max() <= 0.51
    # Colours and images do not run into each other.
    red = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    red[0, ..., 0] = 200
    assert (corrupt_images(red, ["a", "b"], "gaussian_blur", 5) == red).all()


@pytest.mark.parametrize("severity", range(1, 6))
def test_occlusion_is_one_whole_square_of_the_mean_colour(severity):
    gradient = np.arange(48, dtype=np.uint8)[:, None] * 4 + np.arange(48, dtype=np.uint8)
    image = np.repeat(gradient[None, ..., None], 3, axis=3)
    side = round(SEVERITIES["occlusion"][severity - 1] * 48)
    for image_id in map(str, range(20)):
        found = corrupt_images(image, [image_id], "occlusion", severity)[0]
        filled = np.count_nonzero((found == round(image.mean())).all(axis=2))
        changed = np.nonzero((found != image[0]).any(axis=2))
        assert np.ptp(changed[0]) < side
        assert np.ptp(changed[1]) < side
        assert filled >= side * side  # more where the picture had that colour already


def test_reliability_bins_as_a_plain_loop_fills_them():
    generator = np.random.default_rng(3)
    probabilities = generator.dirichlet(np.full(7, 0.4), 400)
    labels = generator.integers(0, 7, 400)
    table = reliability_bins(labels, probabilities)
    members = {number: [] for number in range(CALIBRATION_BINS)}
    for row, label in zip(probabilities, labels, strict=True):
        number = next(b for b in members if row.max() <= (b + 1) / CALIBRATION_BINS)
        members[number].append((row.max(), row.argmax() == label))
    for row in table.itertuples():
        assert row.images == len(members[row.bin])
        if row.images:
            confidence, accuracy = np.mean(members[row.bin], axis=0)
            assert (row.confidence, row.accuracy) == pytest.approx((confidence, accuracy))
        else:
            assert np.isnan(row.confidence)
    gaps = (table["confidence"] - table["accuracy"]).abs() * table["images"]
    assert gaps.sum() / 400 == pytest.approx(expected_calibration_error(labels, probabilities))


TINY = RunConfig(
    method="ce",
    train_images=200,
    test_images=60,
    image_size=16,
    epochs=1,
    batch_size=32,
    backbone="resnet10_narrow16_stride2",
    lr=1.0e-2,
    device="cpu",
)
DECODER = RunConfig(**{**vars(TINY), "method": "decoder"})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two runs, trained once for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("NLA_CACHE", str(tmp_path_factory.mktemp("cache")))
        index, _ = load_dataset(TINY.data)
        images = image_array(index, root=TINY.data.root, size=TINY.image_size)
        configs = (TINY, DECODER)
        for config in configs:
            train(config, index, images)
        runs = {config.run_id: config for config in configs}
        yield Study("tiny", "Tiny", {}, runs), index, images


def test_clean_images_give_what_the_run_reported(study):
    _, index, images = study
    tables = run_robustness([TINY, DECODER], index, images)
    for config in (TINY, DECODER):
        table = tables[config.run_id]
        clean = table[table["corruption"] == "clean"].set_index("metric")["value"]
        reported = pd.read_csv(config.folder / "metrics.csv").iloc[-1]
        assert list(clean.index) == list(robustness.METRICS)
        for metric, value in clean.items():
            assert value == pytest.approx(reported[f"test_{metric}"], abs=1e-5), metric
        assert len(table) == (1 + 4 * 5) * len(clean)
        assert table.groupby("corruption")["severity"].nunique().max() == 5
        noisy = table[(table["corruption"] == "occlusion") & (table["metric"] == "nll")]["value"]
        assert (noisy != clean["nll"]).all()


def test_weights_that_are_not_the_runs_own_are_refused(study):
    _, index, images = study
    path = TINY.folder / "weights.safetensors"
    kept = path.read_bytes()
    try:
        weights = load_file(path)
        weights["fc.bias"] = weights["fc.bias"] + np.eye(7, dtype=np.float32)[1] * 1000
        save_file(weights, path)
        with pytest.raises(ValueError, match="but its stored weights have"):
            run_robustness([TINY], index, images)
    finally:
        path.write_bytes(kept)


def test_rows_of_a_run_are_made_once(study, monkeypatch):
    tiny, _, _ = study
    first = study_robustness(tiny)
    monkeypatch.setattr(robustness, "run_robustness", None)  # would fail if it were called
    pd.testing.assert_frame_equal(study_robustness(tiny), first)
    assert set(first["run_id"]) == set(tiny.runs)
    # Another seed is another set of corruptions: nothing of it is there.
    monkeypatch.setattr(robustness, "_SEED", 1)
    with pytest.raises(TypeError):
        study_robustness(tiny)


def test_calibration_of_a_run_gives_its_reported_error(study):
    for config in (TINY, DECODER):
        table = run_calibration(config)
        gaps = (table["confidence"] - table["accuracy"]).abs() * table["images"]
        reported = pd.read_csv(config.folder / "metrics.csv")["test_ece"].iloc[-1]
        assert table["images"].sum() == 60
        assert gaps.sum() / 60 == pytest.approx(reported, abs=1e-6)


@pytest.mark.parametrize(
    ("config", "file", "key"),
    [
        (TINY, "weights", "fc.weight"),
        (DECODER, "method", "label_decoder.label_embeddings"),
    ],
)
def test_similarities_are_cosines_of_the_right_vectors(study, config, file, key):
    vectors = load_file(config.folder / f"{file}.safetensors")[key]
    table = run_label_similarities(config)
    assert len(table) == 21
    names = expressions(7)
    for row in table.itertuples():
        one, other = vectors[names.index(row.first)], vectors[names.index(row.second)]
        cosine = np.dot(one, other) / np.sqrt(np.dot(one, one) * np.dot(other, other))
        assert row.similarity == pytest.approx(cosine, abs=1e-5)


def test_command_writes_tables_and_publish_copies_them(study, tmp_path, monkeypatch, capsys):
    tiny, _, _ = study
    path = tmp_path / "tiny.yaml"
    parameters = {name: value for name, value in vars(TINY).items() if name != "method"}
    grid = {"method": ["ce", "decoder"]}
    content = {"study": "tiny", "title": "Tiny", "notebooks": {}, "fixed": parameters, "grid": grid}
    path.write_text(yaml.safe_dump(content))
    publish.collect(str(path))
    publish.robustness(str(path))
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    monkeypatch.setattr(frame, "ROOT", tmp_path)
    publish.publish(str(path))
    for name in publish.OPTIONAL_TABLES:
        table = pd.read_csv(tmp_path / "results" / f"tiny_{name}.csv")
        assert set(table["run_id"]) == set(tiny.runs)
    assert "tiny_robustness.csv" in capsys.readouterr().out
    # Of a run whose folder is gone the published rows stay.
    before = {name: (tiny.folder / f"{name}.csv").read_bytes() for name in publish.OPTIONAL_TABLES}
    (DECODER.folder / "done").rename(DECODER.folder / "gone")
    publish.robustness(str(path))
    (DECODER.folder / "gone").rename(DECODER.folder / "done")
    for name, content in before.items():
        assert (tiny.folder / f"{name}.csv").read_bytes() == content, name
    # Runs that came later make the tables stale, and that is said.
    stale = tiny.folder / "calibration.csv"
    rows = pd.read_csv(stale)
    rows[rows["run_id"] == TINY.run_id].to_csv(stale, index=False)
    with pytest.raises(ValueError, match="other runs than results"):
        publish.publish(str(path))
    # And a published table that was not made again is not left beside newer ones.
    stale.unlink()
    (tmp_path / "results" / "tiny.csv").write_text("older")
    with pytest.raises(FileNotFoundError, match=r"tiny_calibration\.csv is published.*robustness"):
        publish.publish(str(path))
    assert (tmp_path / "results" / "tiny.csv").read_text() == "older"


def test_severities_are_those_of_the_sources():
    """Noise, blur and contrast as in make_cifar_c.py; the occlusion is ours."""
    assert SEVERITIES == {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "occlusion": (0.2, 0.3, 0.4, 0.5, 0.6),
    }
