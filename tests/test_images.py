"""The array of decoded images: equal to each image decoded alone, whole or absent."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nlalib import images
from nlalib.images import image_array, load_image
from nlalib.rendered import render_face

SIZE = 24


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    """Photographs of other sizes and modes, and Kaggle's table of numbers."""
    folder, generator = tmp_path / "set", np.random.default_rng(0)
    folder.mkdir()
    colour = generator.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(colour[:SIZE, :SIZE]).save(folder / "right size #1.png")
    Image.fromarray(colour[:, :, 0]).save(folder / "grey.png")
    lines = ["emotion,pixels,Usage"]
    for row in generator.integers(0, 256, (5, 48 * 48)):
        lines.append(f"0,{' '.join(map(str, row))},Training")
    (folder / "fer2013.csv").write_text("\n".join(lines) + "\n")
    return folder


PATHS = [
    "fer2013.csv#3",
    "colour.png",
    "rendered:0:4:fear",
    "grey.png",
    "fer2013.csv#0",
    "right size #1.png",
]


def index_of(paths) -> pd.DataFrame:
    return pd.DataFrame({"image_id": [str(n) for n in range(len(paths))], "path": list(paths)})


def test_array_equals_each_image_decoded_alone(root, cache):
    array = image_array(index_of(PATHS), root=root, size=SIZE)
    assert array.shape == (6, SIZE, SIZE, 3)
    assert array.dtype == np.uint8
    for position, path in enumerate(PATHS):
        alone = load_image(path, root=root, size=SIZE)
        assert np.array_equal(array[position], alone), path
    assert len({image.tobytes() for image in array}) == len(PATHS)


def test_pixels_are_those_of_the_source(root):
    """Each source read in another way: its own renderer, PIL's decoder, the numbers as text."""
    assert np.array_equal(
        load_image("rendered:0:4:fear", root=root, size=SIZE),
        render_face("rendered:0:4:fear", SIZE),
    )
    unresized = load_image("right size #1.png", root=root, size=SIZE)
    assert np.array_equal(unresized, np.asarray(Image.open(root / "colour.png"))[:SIZE, :SIZE])
    numbers = (root / "fer2013.csv").read_text().splitlines()[4].split(",")[1].split()
    table = load_image("fer2013.csv#3", root=root, size=48)
    assert np.array_equal(table, np.repeat(np.array(numbers, int).reshape(48, 48, 1), 3, axis=2))


def test_shrinking_averages_and_grey_becomes_three_equal_channels(tmp_path):
    stripes = np.tile(np.array([0, 200], np.uint8), (48, 24))
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    image = load_image("stripes.png", root=tmp_path, size=12)
    assert image.shape == (12, 12, 3)
    # Picking every fourth column instead would give 0 or 200.
    assert abs(image[2:-2, 2:-2].astype(int) - 100).max() < 15
    assert np.array_equal(image[:, :, 0], image[:, :, 2])


def test_second_call_reads_the_same_file(root, cache, monkeypatch):
    lines = []
    first = np.array(image_array(index_of(PATHS), root=root, size=SIZE, report=lines.append))
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    monkeypatch.setattr(images, "_build", lambda *_: pytest.fail("decoded again"))
    second = image_array(index_of(PATHS), root=root, size=SIZE)
    assert Path(second.filename) == file
    assert file.stat().st_mtime_ns == written
    assert np.array_equal(first, second)
    with pytest.raises(ValueError, match="read-only"):
        second[0] = 0


def test_another_size_order_or_changed_file_is_another_array(root, cache):
    def name(paths=PATHS[:2], size=SIZE) -> str:
        return Path(image_array(index_of(paths), root=root, size=size).filename).name

    before = name()
    assert len({before, name(size=32), name(PATHS[1::-1]), name(PATHS[:1])}) == 4
    Image.new("RGB", (9, 9), "red").save(root / "colour.png")
    assert name() != before
    assert (image_array(index_of(PATHS[:2]), root=root, size=SIZE)[1] == [255, 0, 0]).all()


def test_undecodable_file_is_named_and_leaves_nothing_unfinished(root, cache):
    (root / "broken.png").write_bytes((root / "colour.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"image broken\.png in .* does not decode .*unpack"):
        image_array(index_of([*PATHS, "broken.png"]), root=root, size=SIZE)
    assert list(cache.iterdir()) == []
    (root / "broken.png").write_text("no image at all")
    with pytest.raises(ValueError, match=r"image broken\.png in .* does not decode"):
        load_image("broken.png", root=root, size=SIZE)


def test_missing_file_is_named(root, cache):
    with pytest.raises(FileNotFoundError, match=r"image gone\.png is in the index but not in"):
        image_array(index_of([*PATHS, "gone.png"]), root=root, size=SIZE)
    with pytest.raises(ValueError, match="there is no \\[5\\]"):
        image_array(index_of(["fer2013.csv#5"]), root=root, size=SIZE)
    assert list(cache.iterdir()) == []


def test_stored_array_of_another_shape_is_refused(root, cache):
    array = image_array(index_of(PATHS[:2]), root=root, size=SIZE)
    np.save(array.filename, np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"holds \(2, 3\) uint8, not \(2, 24, 24, 3\).*delete it"):
        image_array(index_of(PATHS[:2]), root=root, size=SIZE)


def test_progress_is_reported(root, cache):
    lines = []
    index = index_of(["grey.png"] * 2001)
    image_array(index, root=root, size=8, report=lines.append)
    assert lines == ["decoded 2,000 of 2,001 images"]


FACES = [f"rendered:1:{number}:anger" for number in range(40)]


def build_at_the_start(cache: Path, start, answer: Path) -> None:
    os.environ["NLA_CACHE"] = str(cache)
    start.wait()
    np.save(answer, image_array(index_of(FACES), root=Path("nowhere"), size=SIZE))


def test_two_processes_at_once_make_one_whole_array(cache, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nlalib.training"])
    start, answers = context.Barrier(2), [tmp_path / "first.npy", tmp_path / "second.npy"]
    processes = [
        context.Process(target=build_at_the_start, args=(cache, start, answer))
        for answer in answers
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    wanted = np.stack([render_face(path, SIZE) for path in FACES])
    assert all(np.array_equal(np.load(answer), wanted) for answer in answers)
    (file,) = cache.iterdir()
    assert np.array_equal(np.load(file), wanted)
