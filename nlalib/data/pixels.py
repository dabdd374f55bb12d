"""Pixels: an index is decoded once into one memory-mapped array, which every epoch then reads.

The array lies in `nlalib.paths.cache_folder()` under a name that is a digest of what it holds:
paths, size of the images, and each file's length and time of change. It is written under another
name and renamed when whole, so a file with the final name is never half written; the second of
two processes that want the same array waits for the first. Behind the pixels stand a digest
of all of them, and a seal, a digest of the header and of some images: a file that was cut off,
overwritten or put there by something else is seen before its first use, and built again.
"""

import hashlib
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from nlalib.data.decoding import DECODER_VERSION, ImageReader
from nlalib.data.sets.fer2013_table import TABLE_MARK
from nlalib.data.sets.rendered import RENDERED_MARK, RENDERER_VERSION
from nlalib.files import locked, writing
from nlalib.paths import cache_folder

_SEALED_IMAGES = 64  # as many take part in the seal, evenly spread
_SEAL_BYTES = hashlib.sha256().digest_size
_TRAILER_BYTES = 2 * _SEAL_BYTES  # the digest of all images, and the seal


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
    FileNotFoundError, UndecodableImage
        As `nlalib.data.decoding.ImageReader`.
    """
    return _resized(ImageReader(root, [path], size).read(path), size)


def _resized(image: Image.Image, size: int) -> np.ndarray:
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def image_array(index: pd.DataFrame, *, root: Path, size: int) -> np.memmap:
    """Return all images of an index, decoded, as one read-only memory-mapped array.

    Parameters
    ----------
    index : pandas.DataFrame
        As `nlalib.data.index` describes.
    root : pathlib.Path
        The data set's folder.
    size : int
        Side of the images, pixels.

    Returns
    -------
    numpy.memmap, (N, size, size, 3) uint8
        In the order of the index.

    Raises
    ------
    FileNotFoundError
        If a file of the index is not below `root`.
    ValueError
        If a file cannot be decoded.
    OSError
        If the cache has no room, or cannot be written. What it holds already stays.
    """
    folder = cache_folder()
    shape = (len(index), size, size, 3)
    path = folder / f"{_digest(index, root, size)}.npy"
    if not _is_sound(path, shape):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _unfinished(path) as file:
                # Looked at again: another process may have built it until now. And only now at
                # the room: what others have left behind is gone, and what they build is built.
                if not _is_sound(path, shape):
                    with writing(folder, needed=int(np.prod(shape))):
                        reader = ImageReader(root, index["path"], size)
                        images = (_resized(reader.read(name), size) for name in index["path"])
                        _write(file, images, shape)
                        Path(file.name).replace(path)
    return np.load(path, mmap_mode="r")


def read_images(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return a copy of the images at `positions`.

    Of a memory-mapped array the pages are let go at once: they stay in the system's cache, but
    the memory that this process holds does not grow with the images that it has seen.
    """
    chosen = images[positions]
    if isinstance(images.base, mmap.mmap):
        images.base.madvise(mmap.MADV_DONTNEED)
    return chosen


def file_of(images: np.ndarray) -> Path | None:
    """Return the file that holds just these images, if they are memory-mapped from one.

    A part of a memory-mapped array has the file's name all the same, but not its content.
    """
    if isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap):
        return Path(images.filename)  # type: ignore[attr-defined]
    return None


def images_digest(images: np.ndarray) -> str:
    """Return a digest of all images, in their order: 64 hexadecimal digits.

    It is made of a checksum (CRC-32) of each. A stored array carries it from when it was decoded,
    so nothing is read again.
    """
    if stored := file_of(images):
        with stored.open("rb") as file:
            file.seek(images.offset + images.nbytes)  # type: ignore[attr-defined]
            trailer = file.read()
        if len(trailer) == _TRAILER_BYTES:
            return trailer[:_SEAL_BYTES].hex()
    content = hashlib.sha256()
    for image in images:
        content.update(_checksum(np.ascontiguousarray(image)))
    return content.hexdigest()


def _checksum(pixels) -> bytes:
    return zlib.crc32(pixels).to_bytes(4, "little")


def _digest(index: pd.DataFrame, root: Path, size: int) -> str:
    digest = hashlib.sha256(f"{size} {root} {DECODER_VERSION} {RENDERER_VERSION}".encode())
    for path in index["path"]:
        digest.update(path.encode())
        if not path.startswith(RENDERED_MARK):
            file = path.rpartition("#")[0] if TABLE_MARK in path else path
            try:
                status = os.stat(root / file)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"image {path} is in the index but not in {root}; unpack the data set again"
                ) from error
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _header(shape: tuple[int, ...]) -> bytes:
    """Return what stands before the pixels in a file of NumPy's."""
    header = BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def _is_sound(path: Path, shape: tuple[int, ...]) -> bool:
    """Return whether there is a stored array of this shape, as it was written."""
    header, pixels = _header(shape), int(np.prod(shape))
    start, image = len(header), pixels // shape[0]
    if not path.exists() or path.stat().st_size != start + pixels + _TRAILER_BYTES:
        return False
    with path.open("rb") as file:
        if file.read(start) != header:
            return False
        seal = hashlib.sha256(header)
        for position in _sealed(shape[0]):
            file.seek(start + position * image)
            seal.update(file.read(image))
        file.seek(start + pixels)
        seal.update(file.read(_SEAL_BYTES))
        return file.read() == seal.digest()


def _sealed(images: int) -> list[int]:
    """Return the positions of the images that take part in the seal."""
    return sorted(set(np.linspace(0, images - 1, _SEALED_IMAGES).astype(int).tolist()))


def _write(file: BinaryIO, images: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    """Write the array and its seal, one image in memory at a time.

    By plain writes: a full disk then is an error, where a memory-mapped file would end the process.
    """
    header, sealed = _header(shape), set(_sealed(shape[0]))
    seal, content = hashlib.sha256(header), hashlib.sha256()
    file.write(header)
    for position, image in enumerate(images):
        pixels = image.tobytes()
        file.write(pixels)
        content.update(_checksum(pixels))
        if position in sealed:
            seal.update(pixels)
    seal.update(content.digest())
    file.write(content.digest() + seal.digest())
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _unfinished(path: Path) -> Iterator[BinaryIO]:
    """Open the file in which `path` is built, for this process alone; others wait here.

    It is locked, and the lock ends with the process: a file without one was left by a process
    that was killed, and is removed, whatever array it belongs to.
    """
    for left in path.parent.glob("*.unfinished"):
        # It may be another user's, of a cache that is shared: that one is left to its owner.
        with suppress(RuntimeError, OSError), locked(left, "it is being built"):
            left.unlink(missing_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with locked(unfinished):
        file = unfinished.open("wb")
        try:
            yield file
        finally:
            unfinished.unlink(missing_ok=True)  # while it is locked
            with suppress(OSError):  # after a full disk, what is left finds no room either
                file.close()
