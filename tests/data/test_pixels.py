"""The array of decoded images: equal to each image decoded alone, whole or absent."""

import errno
import fcntl
import multiprocessing
import os
import re
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nlalib.data import pixels as images
from nlalib.data.pixels import image_array, load_image, read_images
from nlalib.data.sets.rendered import render_face
from nlalib.files import locked

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
    first = np.array(image_array(index_of(PATHS), root=root, size=SIZE))
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    monkeypatch.setattr(images, "_write", lambda *_: pytest.fail("decoded again"))
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


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:-100])


def overwrite_an_image(path: Path):
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(100)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        overwrite_an_image,
        lambda path: np.save(path, np.zeros((2, 3), np.uint8)),
        lambda path: np.save(path, np.zeros((6, 24, 24, 3), np.uint8)),
        lambda path: np.save(path, np.zeros((6, 24, 24, 3))),
        lambda path: path.write_text("not an array"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
    ],
    ids=["cut off", "overwritten", "shape", "no seal", "kind", "text", "empty", "zeros"],
)
def test_stored_array_is_looked_at_and_built_anew_where_it_is_damaged(
    root, cache, spoil, monkeypatch
):
    array = image_array(index_of(PATHS), root=root, size=SIZE)
    path, wanted = Path(array.filename), np.array(array)
    written = path.read_bytes()
    del array
    spoil(path)
    assert path.read_bytes() != written
    assert np.array_equal(image_array(index_of(PATHS), root=root, size=SIZE), wanted)
    assert path.read_bytes() == written
    assert list(cache.iterdir()) == [path]
    monkeypatch.setattr(images, "_write", lambda *_: pytest.fail("decoded again"))
    image_array(index_of(PATHS), root=root, size=SIZE)


def test_plain_numpy_reads_the_stored_array(root, cache):
    """Other programs may: the seal behind the pixels is in nobody's way."""
    array = image_array(index_of(PATHS), root=root, size=SIZE)
    assert np.array_equal(np.load(array.filename), array)


def test_what_a_killed_process_left_is_removed_at_the_next_build(root, cache):
    cache.mkdir()
    mine = Path(image_array(index_of(PATHS), root=root, size=SIZE).filename)
    mine.rename(mine.with_suffix(".unfinished"))  # whole, but nobody knows
    (cache / "another.4711.unfinished").write_bytes(b"half")
    in_use = cache / "in use.unfinished"
    with in_use.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        array = image_array(index_of(PATHS), root=root, size=SIZE)
        assert sorted(cache.iterdir()) == sorted([mine, in_use])
    assert np.array_equal(array[1], load_image(PATHS[1], root=root, size=SIZE))


def test_what_another_user_left_hinders_nobody(root, cache, monkeypatch):
    cache.mkdir()
    left = cache / "of another user.unfinished"
    left.write_bytes(b"half")

    def closed(path, *given):
        if path == left:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return locked(path, *given)

    monkeypatch.setattr(images, "locked", closed)
    array = image_array(index_of(PATHS), root=root, size=SIZE)
    assert np.array_equal(array[1], load_image(PATHS[1], root=root, size=SIZE))
    assert left.exists()


def test_builder_that_finishes_while_leftovers_are_looked_for_is_no_error(root, cache, monkeypatch):
    cache.mkdir(parents=True, exist_ok=True)
    gone = cache / "renamed meanwhile.unfinished"
    plain = Path.glob

    def listed(folder, pattern):
        found = list(plain(folder, pattern))
        return [*found, gone] if pattern == "*.unfinished" else found

    monkeypatch.setattr(Path, "glob", listed)
    assert image_array(index_of(PATHS), root=root, size=8).shape == (len(PATHS), 8, 8, 3)


def test_full_disk_is_said_before_the_first_image_is_decoded(root, cache, monkeypatch):
    sound = image_array(index_of(PATHS[:1]), root=root, size=SIZE)
    monkeypatch.setattr("nlalib.files.free_bytes", lambda path: 5000)
    monkeypatch.setattr(images, "load_image", lambda *_, **__: pytest.fail("decoded"))
    message = r"no room to write .*cache: 10,368 bytes are needed and 5,000 bytes are free .*NLA_CA"
    with pytest.raises(OSError, match=message) as told:
        image_array(index_of(PATHS), root=root, size=SIZE)
    assert told.value.errno == errno.ENOSPC
    assert [path.name for path in cache.iterdir()] == [Path(sound.filename).name]


def test_what_a_killed_builder_left_counts_as_room(root, cache, monkeypatch):
    cache.mkdir(exist_ok=True)
    left = cache / f"{'0' * 24}.unfinished"
    left.write_bytes(b"half an array")
    monkeypatch.setattr("nlalib.files.free_bytes", lambda path: 5000 if left.exists() else 100_000)
    assert image_array(index_of(PATHS), root=root, size=SIZE).shape[0] == len(PATHS)
    assert not left.exists()


def test_room_is_told_once(root, cache, monkeypatch):
    monkeypatch.setattr("nlalib.files.free_bytes", lambda path: 5000)
    with pytest.raises(OSError, match="no room to write") as told:
        image_array(index_of(PATHS), root=root, size=SIZE)
    assert str(told.value).count("no room to write") == 1


def test_disk_that_fills_up_meanwhile_is_said_and_leaves_the_stored_arrays(root, cache):
    """A limit on the size of files stops the writing halfway; the error comes from the system."""
    sound = Path(image_array(index_of(PATHS[:1]), root=root, size=SIZE).filename)
    before = sound.read_bytes()
    resource = pytest.importorskip("resource")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"no room to write .*cache: 69,120 bytes are needed"):
            image_array(index_of(FACES), root=root, size=SIZE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(cache.iterdir()) == [sound]
    assert sound.read_bytes() == before


def test_cache_that_cannot_be_written_is_named(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"file/cache cannot be written .*NLA_CACHE"):
        image_array(index_of(PATHS), root=root, size=SIZE)


def mapped_kilobytes(file: str) -> int:
    """How much of a memory-mapped file this process holds, by the kernel's account."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(file)
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel keeps no account")
def test_images_are_copied_and_their_pages_let_go(tmp_path):
    content = np.random.default_rng(0).integers(0, 256, (3000, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", content)
    stored = np.load(tmp_path / "images.npy", mmap_mode="r")
    positions = np.random.default_rng(1).permutation(3000)
    plain = stored[positions]
    assert mapped_kilobytes("images.npy") > 2000  # as the images take 2,250
    found = [read_images(stored, part) for part in np.array_split(positions, 30)]
    assert np.array_equal(np.concatenate(found), plain)
    assert np.array_equal(plain, content[positions])
    assert mapped_kilobytes("images.npy") < 200
    assert np.array_equal(read_images(content, positions[:5]), content[positions[:5]])


FACES = [f"rendered:1:{number}:anger" for number in range(40)]


def build_at_the_start(cache: Path, start, answer: Path) -> None:
    os.environ["NLA_CACHE"] = str(cache)
    start.wait()
    np.save(answer, image_array(index_of(FACES), root=Path("nowhere"), size=SIZE))


def test_two_processes_at_once_make_one_whole_array(cache, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nlalib.training.loop"])
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
