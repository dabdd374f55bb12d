"""Images that show the same picture twice, and results without the test images among them.

*Exact* duplicates have the same decoded pixels, whatever the file. *Near* duplicates are the same
photograph with other pixels: compressed again, resized, cropped by a little, with a watermark.
They are found in two steps:

1. candidates: two images whose perceptual hashes differ in at most `HASH_DISTANCE` of 64 bits. The
   hash (Zauner 2010, "pHash") holds which of the 8 x 8 lowest frequencies of a discrete cosine
   transform lie above their median;
2. of these, the pairs whose thumbnails, each less its mean, correlate by at least `CORRELATION`.

Both limits were set on FERPlus, where all pairs of thumbnails were also compared without a hash:
of the pairs with a correlation of 0.95 to 0.97, a hundred were drawn and looked at, and all showed
one photograph twice; between 0.94 and 0.95 one of twenty did not, between 0.92 and 0.94 some six.
Above 0.95 the hash finds 97 % to 100 % of the pairs. Below the limits there are more duplicates,
so counts are lower bounds; mirrored copies are not looked for.
"""

import hashlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_array

from nlalib.data.index import SPLITS

THUMBNAIL_SIDE = 24
HASH_DISTANCE = 10
CORRELATION = 0.95
# Grey levels; a thumbnail with a smaller deviation is a blank, and equals every other blank.
BLANK_DEVIATION = 2.0
_BLOCK = 500_000  # comparisons at a time: 4 MB, which a processor's cache holds


class Fingerprints(NamedTuple):
    """What is kept of N images to compare them."""

    digests: np.ndarray  # (N,) bytes of 16, of the pixels at their full size
    thumbnails: np.ndarray  # (N, 24, 24) uint8, grey


class Duplicates(NamedTuple):
    """Which of N images show the same picture."""

    groups: np.ndarray  # (N,) int64; images with identical pixels share a number
    near: np.ndarray  # (P, 2) int64; pairs of groups that are near duplicates


def fingerprint(image: np.ndarray | Image.Image) -> tuple[bytes, np.ndarray]:
    """Return the digest of an image's pixels (16 bytes) and its grey thumbnail, (24, 24) uint8.

    A grey image and its copy in three equal channels count as the same.
    """
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    pixels = image.convert("RGB")
    digest = hashlib.blake2b(str(pixels.size).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return digest.digest(), np.asarray(pixels.convert("L").resize(side, Image.Resampling.BOX))


def take_fingerprints(images: Iterable[np.ndarray | Image.Image]) -> Fingerprints:
    """Fingerprint images one by one: 600 bytes are kept of each.

    Parameters
    ----------
    images : iterable
        Each (height, width) or (height, width, 3) uint8, or a PIL image.
    """
    # No lists of arrays, whose headers would outweigh the thumbnails.
    digests, thumbnails = bytearray(), bytearray()
    for image in images:
        digest, thumbnail = fingerprint(image)
        digests += digest
        thumbnails += thumbnail.tobytes()
    return Fingerprints(
        np.frombuffer(digests, dtype="V16"),
        np.frombuffer(thumbnails, dtype=np.uint8).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE),
    )


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Return 64 bits for each thumbnail.

    Parameters
    ----------
    thumbnails : numpy.ndarray, (N, side, side)

    Returns
    -------
    numpy.ndarray, (N,) uint64
    """
    low = dctn(thumbnails.astype(np.float32), axes=(1, 2))[:, :8, :8].reshape(-1, 64)
    # The first is the mean brightness, which says nothing of what the picture shows.
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def find_duplicates(fingerprints: Fingerprints) -> Duplicates:
    """Find exact and near duplicates; of blank images, exact ones only.

    Each pair of distinct images is compared by its hash: some seconds for FERPlus's 35,710 images,
    some minutes for AffectNet's 287 thousand.
    """
    # As two numbers each, as numpy cannot sort opaque bytes.
    keys = fingerprints.digests.view([("high", np.uint64), ("low", np.uint64)])
    _, first, groups = np.unique(keys, return_index=True, return_inverse=True)
    thumbnails = fingerprints.thumbnails[first]
    hashes = np.concatenate([perceptual_hashes(part) for part in _in_blocks(thumbnails, 4096)])
    step = max(1, _BLOCK // max(1, len(hashes)))
    near = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(hashes), step):
        distance = np.bitwise_count(hashes[start : start + step, None] ^ hashes[None, start:])
        # Ten times as fast as `argwhere`, and as long as the comparison itself otherwise.
        close = np.flatnonzero(distance <= HASH_DISTANCE)
        pairs = np.stack(np.divmod(close, distance.shape[1]), axis=1) + start
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        for part in _in_blocks(pairs, 8192):
            near.append(part[_correlation(thumbnails, part) >= CORRELATION])
    return Duplicates(groups.ravel().astype(np.int64), np.concatenate(near))


def _in_blocks(array: np.ndarray, rows: int) -> list[np.ndarray]:
    return np.split(array, range(rows, len(array), rows))


def _correlation(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the correlation of the thumbnails of each pair; 0 where one is blank."""
    centred, deviation = [], []
    for side in pairs.T:
        values = thumbnails[side].reshape(len(side), THUMBNAIL_SIDE**2).astype(np.float32)
        values -= values.mean(axis=1, keepdims=True)
        centred.append(values)
        deviation.append(np.sqrt(np.square(values).mean(axis=1)))
    covariance = np.einsum("ij,ij->i", *centred) / THUMBNAIL_SIDE**2
    is_blank = np.minimum(*deviation) < BLANK_DEVIATION
    return np.where(is_blank, 0, covariance / np.where(is_blank, 1, np.prod(deviation, axis=0)))


def has_twin(duplicates: Duplicates, among: np.ndarray, *, near: bool) -> np.ndarray:
    """Return which images have a duplicate, other than themselves, among some images.

    Parameters
    ----------
    duplicates : Duplicates
        Of N images.
    among : numpy.ndarray, (N,) bool
        Where to look.
    near : bool
        Whether near duplicates count beside exact ones. "Near" is not passed on: if a is near b
        and b near c, a and c are twins only if they are near each other.

    Returns
    -------
    numpy.ndarray, (N,) bool
    """
    counts = np.bincount(
        duplicates.groups, weights=among, minlength=duplicates.groups.max(initial=-1) + 1
    )
    found = counts[duplicates.groups] - among > 0
    if near and len(duplicates.near):
        first, second = duplicates.near.T
        ones = np.ones(len(first))
        links = coo_array((ones, (first, second)), shape=(len(counts), len(counts))).tocsr()
        neighbours = (links + links.T) @ (counts > 0).astype(float)
        found |= neighbours[duplicates.groups] > 0
    return found


def count_twins(splits: pd.Series, duplicates: Duplicates) -> pd.DataFrame:
    """Count, for each split, the images that have a duplicate in each split.

    Parameters
    ----------
    splits : pandas.Series, (N,) str

    Returns
    -------
    pandas.DataFrame
        `split`, `images` (of it), `twin_in` (a split, perhaps the same), `exact`, and
        `exact_or_near`: how many of the images have a twin there.
    """
    splits = np.asarray(splits)
    present = [split for split in SPLITS if (splits == split).any()]
    twins = {
        other: [has_twin(duplicates, splits == other, near=near) for near in (False, True)]
        for other in present
    }
    rows = [
        (split, (splits == split).sum(), other, *(found[splits == split].sum() for found in both))
        for split in present
        for other, both in twins.items()
    ]
    return pd.DataFrame(rows, columns=["split", "images", "twin_in", "exact", "exact_or_near"])


def leaked_test_images(
    index: pd.DataFrame,
    duplicates: Duplicates,
    *,
    near: bool = True,
    split: str = "split",
) -> list[str]:
    """Return the test images that the training split holds too.

    Parameters
    ----------
    index : pandas.DataFrame
        As `nlalib.data.index` describes, N rows.
    duplicates : Duplicates
        What `find_duplicates` found of the N images, in the index's order.
    near : bool
        Whether near duplicates count, or identical pixels only.
    split : str
        The column that holds "train" and "test"; `part` says what a run trained on.

    Returns
    -------
    list of str
        Their `image_id`, in the index's order.
    """
    if len(duplicates.groups) != len(index):
        raise ValueError(
            f"{len(duplicates.groups)} images for {len(index)} rows of the index: give all images, "
            "in the index's order"
        )
    has = has_twin(duplicates, (index[split] == "train").to_numpy(), near=near)
    return index.loc[has & (index[split] == "test").to_numpy(), "image_id"].tolist()


def without_leaked(predictions: pd.DataFrame, leaked_ids: Collection[str]) -> pd.DataFrame:
    """Return the predictions of the images that are not leaked.

    Every metric of `nlalib.metrics` can so be reported with and without leaked test images.

    Parameters
    ----------
    predictions : pandas.DataFrame
        With a column `image_id`, as a run's `predictions.parquet`.
    leaked_ids : collection of str
        Of `leaked_test_images`; those that are not predicted are no error, as a run may test on a
        part of the test split.

    Raises
    ------
    ValueError
        If nothing is left.
    """
    kept = predictions[~predictions["image_id"].isin(set(leaked_ids))]
    if kept.empty:
        raise ValueError(
            f"all of {len(predictions)} predictions are of leaked images: are the ids those of "
            "the right data set?"
        )
    return kept
