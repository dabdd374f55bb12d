"""Pixels: an index is decoded once into one memory-mapped array, which every epoch then reads.

The array lies in `nlalib.paths.cache_folder()` under a name that is a digest of what it holds:
paths, size of the images, and each file's length and time of change. It is written under another
name and renamed when whole, so a file with the final name is never half written, and two
processes that build the same array do not disturb each other.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from nlalib import face_drawing, face_geometry, rendered
from nlalib.ferplus import load_kaggle_images
from nlalib.paths import cache_folder

_RENDERED = "rendered:"
_TABLE = ".csv#"


def load_image(path: str, *, root: Path, size: int) -> np.ndarray:
    """Return one image of an index.

    Parameters
    ----------
    path : str
        As in the index's column `path`.
    root : pathlib.Path
        The data set's folder.
    size : int
        Side of the returned image, pixels. A file of another size is resized (bilinear, with
        anti-aliasing when it shrinks).

    Returns
    -------
    numpy.ndarray, (size, size, 3) uint8, RGB

    Raises
    ------
    ValueError
        If the file cannot be decoded.
    """
    if path.startswith(_RENDERED):
        return rendered.render_face(path, size)
    if _TABLE in path:
        table, _, row = path.rpartition("#")
        image = Image.fromarray(load_kaggle_images(root / table, rows=[int(row)])[0])
    else:
        try:
            image = Image.open(root / path)
            image.load()
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(
                f"image {path} in {root} does not decode ({error}); unpack the data set again, "
                "or take the image out of its label file"
            ) from error
    return _resized(image, size)


def _resized(image: Image.Image, size: int) -> np.ndarray:
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def image_array(
    index: pd.DataFrame,
    *,
    root: Path,
    size: int,
    report: Callable[[str], None] | None = None,
) -> np.memmap:
    """Return all images of an index, decoded, as one read-only memory-mapped array.

    Parameters
    ----------
    index : pandas.DataFrame
        As `nlalib.index` describes.
    root : pathlib.Path
        The data set's folder.
    size : int
        Side of the images, pixels.
    report : callable, optional
        Gets a line of text now and then while images are decoded.

    Returns
    -------
    numpy.memmap, (N, size, size, 3) uint8
        In the order of the index.

    Raises
    ------
    FileNotFoundError
        If a file of the index is not below `root`.
    ValueError
        If a file cannot be decoded, or the stored array is another than it should be.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(index), size, size, 3)
    path = folder / f"{_digest(index, root, size)}.npy"
    if not path.exists():
        _build(path, index, root, shape, report)
    images = np.load(path, mmap_mode="r")
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(
            f"{path} holds {images.shape} {images.dtype}, not {shape} uint8; delete it"
        )
    return images


def _digest(index: pd.DataFrame, root: Path, size: int) -> str:
    digest = hashlib.sha256(f"{size} {root}".encode())
    if index["path"].str.startswith(_RENDERED).any():
        # A change of the renderer changes its faces.
        for module in (rendered, face_drawing, face_geometry):
            digest.update(Path(module.__file__).read_bytes())
    for path in index["path"]:
        digest.update(path.encode())
        if not path.startswith(_RENDERED):
            file = path.rpartition("#")[0] if _TABLE in path else path
            try:
                status = os.stat(root / file)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"image {path} is in the index but not in {root}; unpack the data set again"
                ) from error
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _build(
    path: Path,
    index: pd.DataFrame,
    root: Path,
    shape: tuple[int, ...],
    report: Callable[[str], None] | None,
) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    try:
        array = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        tables = _tables(index, root)
        for position, image_path in enumerate(index["path"]):
            if image_path in tables:
                array[position] = _resized(Image.fromarray(tables[image_path]), shape[1])
            else:
                array[position] = load_image(image_path, root=root, size=shape[1])
            if report and (position + 1) % 2000 == 0:
                report(f"decoded {position + 1:,} of {len(index):,} images")
        array.flush()
        del array
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _tables(index: pd.DataFrame, root: Path) -> dict[str, np.ndarray]:
    """Return the images that stand as numbers in tables; row by row it would take hours."""
    paths = index.loc[index["path"].str.contains(_TABLE, regex=False), "path"]
    images = {}
    for table, group in paths.groupby(paths.str.rsplit("#", n=1).str[0]):
        rows = [int(path.rpartition("#")[2]) for path in group]
        images.update(zip(group, load_kaggle_images(root / table, rows=rows), strict=True))
    return images
