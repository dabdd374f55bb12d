"""Other images or labels under the same names are told apart, and a moved set is the same."""

import json
import shutil

import numpy as np
import pytest

from made_sets import file_of, picture, write_ferplus
from nlalib.data.content import CONTENT_FILE, compare_content, content_of, record_content
from nlalib.data.pixels import image_array, images_digest
from nlalib.data.splits import load_dataset
from nlalib.training.config import RunConfig

COUNTS = {"train": {"fear": 12, "anger": 8}, "test": {"fear": 5, "anger": 5}}
SETTINGS = {"dataset": "ferplus", "train_images": 0, "test_images": 0, "held_out": 0.2}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_CACHE", str(tmp_path / "cache"))


def loaded(root):
    config = RunConfig(**SETTINGS, data_root=str(root))
    index, _ = load_dataset(config.data)
    return index, image_array(index, root=config.data.root, size=24)


def write_set(root):
    return write_ferplus(root, {**COUNTS, "validation": {"fear": 1}})


def other_pixels(root):
    picture(999, 48).save(file_of(root, 3))


def other_votes(root):
    """One annotator changes their mind; the label stays."""
    path = root / "fer2013new.csv"
    lines = path.read_text().splitlines()
    columns = lines[0].split(",")
    fields = lines[1].split(",")
    assert fields[columns.index("fear")] == "10"
    fields[columns.index("fear")], fields[columns.index("anger")] = "9", "1"
    path.write_text("\n".join([lines[0], ",".join(fields), *lines[2:]]) + "\n")


@pytest.mark.parametrize(
    ("change", "what"), [(other_pixels, "images"), (other_votes, "labels")], ids=["pixels", "votes"]
)
def test_other_content_is_told_with_both_digests_and_the_next_step(tmp_path, change, what):
    first, run = write_set(tmp_path / "a"), tmp_path / "run"
    before = content_of(*loaded(first))
    record_content(run, *loaded(first))
    shutil.copytree(first, tmp_path / "b")
    compare_content(run, *loaded(tmp_path / "b"))  # a moved set is the same
    change(tmp_path / "b")
    after = content_of(*loaded(tmp_path / "b"))
    assert [name for name in before if before[name] != after[name]] == [what]
    message = rf"it recorded {what} {before[what][:12]} \(now {after[what][:12]}\)\. .*NLA_RUNS"
    with pytest.raises(ValueError, match=message):
        compare_content(run, *loaded(tmp_path / "b"))


def test_a_folder_without_a_record_is_taken_as_it_is(tmp_path):
    compare_content(tmp_path, *loaded(write_set(tmp_path / "a")))


def test_a_record_stays_as_it_was_written_first(tmp_path):
    index, images = loaded(write_set(tmp_path / "a"))
    record_content(tmp_path, index, images)
    record_content(tmp_path, index.iloc[::-1], images)
    assert json.loads((tmp_path / CONTENT_FILE).read_text()) == content_of(index, images)


def test_each_image_and_their_order_count(tmp_path):
    """A stored array's digest, kept since it was decoded, is that of its images."""
    index, stored = loaded(write_set(tmp_path / "a"))
    images = np.array(stored)
    assert images_digest(stored) == images_digest(images)
    found = {images_digest(images), images_digest(images[::-1]), images_digest(images[:-1])}
    for position in range(len(images)):
        changed = images.copy()
        changed[position, 3, 4, 1] ^= 1
        found.add(images_digest(changed))
    assert len(found) == 3 + len(images)
    for part in (slice(2, 9), slice(None, None, -1)):
        assert images_digest(stored[part]) == images_digest(images[part])
    np.save(tmp_path / "plain.npy", images)  # which has no digest behind its images
    assert images_digest(np.load(tmp_path / "plain.npy", mmap_mode="r")) == images_digest(images)
    parts = content_of(index.assign(part="train"), images)
    assert parts["labels"] != content_of(index, images)["labels"]


@pytest.mark.parametrize("state", ["done", "checkpoint.pt"])
def test_a_run_on_other_images_is_neither_done_nor_taken_up_again(tmp_path, monkeypatch, state):
    from nlalib.training.launch import train

    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    index, images = loaded(write_set(tmp_path / "a"))
    config = RunConfig(**SETTINGS, data_root=str(tmp_path / "a"), image_size=24, device="cpu")
    record_content(config.folder, index, images)
    (config.folder / state).touch()
    with pytest.raises(ValueError, match="other data under the same names"):
        train(config, index, np.array(images) ^ 1)
    if state == "done":
        assert train(config, index, images) == config.folder
        (config.folder / CONTENT_FILE).unlink()  # as runs from before there was a record
        assert train(config, index, np.array(images) ^ 1) == config.folder
