"""Duplicates against plain loops and hand-made images."""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from nlalib.data.sets.rendered import render_face
from nlalib.prepare.duplicates import (
    CORRELATION,
    HASH_DISTANCE,
    Duplicates,
    Fingerprints,
    count_twins,
    find_duplicates,
    fingerprint,
    has_twin,
    leaked_test_images,
    perceptual_hashes,
    take_fingerprints,
    without_leaked,
)


def faces(count: int, size: int = 96) -> list[Image.Image]:
    names = ("surprise", "happiness", "sadness", "anger", "neutral")
    return [
        Image.fromarray(render_face(f"rendered:7:{number}:{names[number % 5]}", size))
        for number in range(count)
    ]


def compressed(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


CHANGES = {
    "compressed": compressed,
    "smaller": lambda image: image.resize((60, 60)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "grey": lambda image: image.convert("L"),
    "cropped": lambda image: image.crop((1, 1, 95, 95)),
}


def near_pairs(images: list[Image.Image]) -> set[tuple[int, int]]:
    """Return near pairs by positions; all images must differ."""
    found = find_duplicates(take_fingerprints(images))
    position = {group: number for number, group in enumerate(found.groups)}
    assert len(position) == len(images)
    return {tuple(sorted((position[a], position[b]))) for a, b in found.near.tolist()}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_a_near_duplicate_of_its_original(change):
    images = faces(8)
    found = near_pairs([*images, CHANGES[change](images[3])])
    assert (3, 8) in found


def test_pairs_are_those_of_a_plain_loop():
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (30, 40), np.uint8)) for _ in range(12)]
    images += [CHANGES["darker"](image) for image in images[:4]] + faces(6)
    prints = take_fingerprints(images)
    hashes = [int(value) for value in perceptual_hashes(prints.thumbnails)]
    flat = prints.thumbnails.reshape(len(images), -1).astype(float)
    expected = set()
    for a in range(len(images)):
        for b in range(a + 1, len(images)):
            is_close = (hashes[a] ^ hashes[b]).bit_count() <= HASH_DISTANCE
            if is_close and np.corrcoef(flat[a], flat[b])[0, 1] >= CORRELATION:
                expected.add((a, b))
    assert near_pairs(images) == expected
    assert {(number, 12 + number) for number in range(4)} <= expected


def test_digest_is_of_the_pixels_and_their_shape():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    digest = fingerprint(grey)[0]
    assert digest == fingerprint(np.repeat(grey[:, :, None], 3, axis=2))[0]
    assert digest != fingerprint(grey.reshape(4, 3))[0]
    assert digest != fingerprint(grey + 1)[0]
    assert len(digest) == 16


def test_blank_images_are_only_exact_duplicates():
    blanks = [np.full((48, 48), value, np.uint8) for value in (0, 255, 0)]
    found = find_duplicates(take_fingerprints(blanks))
    assert found.groups[0] == found.groups[2] != found.groups[1]
    assert len(found.near) == 0


def test_no_images_have_no_duplicates():
    found = find_duplicates(take_fingerprints([]))
    assert len(found.groups) == len(found.near) == 0
    assert not has_twin(found, np.zeros(0, bool), near=True).any()


# Images 0 and 3 are identical, 1 is near both, 2 is near 1 but not 0, 4 is alone.
GROUPS = Duplicates(np.array([0, 1, 2, 0, 3]), np.array([[0, 1], [1, 2]]))
SPLITS = ["train", "validation", "test", "test", "test"]


def are_twins(first: int, second: int, near: bool) -> bool:
    groups = {int(GROUPS.groups[first]), int(GROUPS.groups[second])}
    pairs = [set(pair) for pair in GROUPS.near.tolist()]
    return first != second and (len(groups) == 1 or (near and groups in pairs))


def twins_by_loop(among, near: bool) -> list[bool]:
    return [any(among[b] and are_twins(a, b, near) for b in range(5)) for a in range(5)]


@pytest.mark.parametrize("near", [False, True])
def test_twins_are_those_of_a_plain_loop(near):
    for bits in range(32):
        among = np.array([bool(bits >> number & 1) for number in range(5)])
        assert has_twin(GROUPS, among, near=near).tolist() == twins_by_loop(among, near)


def test_twins_are_counted_by_split():
    table = count_twins(pd.Series(SPLITS), GROUPS).set_index(["split", "twin_in"])
    assert table.index.get_level_values(0).unique().tolist() == ["train", "validation", "test"]
    assert table.loc[("test", "train")].to_dict() == {"images": 3, "exact": 1, "exact_or_near": 1}
    assert table.loc[("validation", "train"), "exact_or_near"] == 1
    assert table.loc[("test", "validation"), "exact_or_near"] == 2
    assert table.loc[("test", "validation"), "exact"] == 0
    assert table.loc[("test", "test")].to_dict() == {"images": 3, "exact": 0, "exact_or_near": 0}


def test_leaked_images_and_predictions_without_them():
    images = faces(6)
    images += [images[0], compressed(images[1]), images[2]]
    found = find_duplicates(take_fingerprints(images))
    index = pd.DataFrame({"image_id": list("abcdefghi"), "split": ["train"] * 5 + ["test"] * 4})
    assert leaked_test_images(index, found, near=False) == ["g", "i"]
    assert leaked_test_images(index, found) == ["g", "h", "i"]
    parts = index.assign(part=["train"] + ["held_out"] * 4 + ["test"] * 4)
    assert leaked_test_images(parts, found, split="part") == ["g"]
    predictions = index[index["split"] == "test"].assign(label=0)
    assert without_leaked(predictions, ["g", "h", "zz"])["image_id"].tolist() == ["f", "i"]
    with pytest.raises(ValueError, match="all of 4 predictions"):
        without_leaked(predictions, list("fghi"))
    with pytest.raises(ValueError, match="9 images for 3 rows"):
        leaked_test_images(index[:3], found)


def test_limits_are_those_that_were_looked_at():
    """Set on FERPlus by eye; the text above the module says how."""
    assert (HASH_DISTANCE, CORRELATION) == (10, 0.95)


def two_thumbnails(monkeypatch, thumbnails, distance: int):
    """Fingerprints whose hashes differ in as many bits as wanted."""
    hashes = np.array([0, 2**distance - 1], dtype=np.uint64)
    monkeypatch.setattr("nlalib.prepare.duplicates.perceptual_hashes", lambda _: hashes)
    return Fingerprints(np.array([b"0" * 16, b"1" * 16], "V16"), np.array(thumbnails, np.uint8))


@pytest.mark.parametrize(("distance", "found"), [(9, 1), (10, 1), (11, 0)])
def test_hashes_at_the_limit_still_are_candidates(monkeypatch, distance, found):
    picture = np.random.default_rng(0).integers(0, 256, (24, 24))
    prints = two_thumbnails(monkeypatch, [picture, picture], distance)
    assert len(find_duplicates(prints).near) == found


def test_thumbnails_are_compared_less_their_means(monkeypatch):
    """Two bright pictures with nothing in common: only their brightness is alike."""
    generator = np.random.default_rng(0)
    bright = generator.integers(230, 256, (2, 24, 24))
    assert len(find_duplicates(two_thumbnails(monkeypatch, bright, 0)).near) == 0


def test_one_blank_of_a_pair_is_enough_to_leave_it_out(monkeypatch):
    """One pattern with more and with less contrast: they correlate, blank or not."""
    pattern = np.random.default_rng(0).random((24, 24)) > 0.5
    for contrast, pairs in ((10, 1), (1, 0)):
        thumbnails = [100 + 40 * pattern, 100 + contrast * pattern]
        assert (thumbnails[1].std() < 2) == (pairs == 0)
        assert len(find_duplicates(two_thumbnails(monkeypatch, thumbnails, 0)).near) == pairs
