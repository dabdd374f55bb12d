"""Image files of strangers: only what face sets ship is opened, and nothing too large.

Pillow goes by a file's content and not by its name, and hands some formats, like EPS, to programs
outside: so the formats are named here, for whoever opens an image.
"""

import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
# Twice what a good camera takes; decoded, as many take a quarter of a gigabyte.
MOST_PIXELS = 80_000_000
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


def open_image(path: Path) -> Image.Image:
    """Open a file's header; the pixels are read when they are asked for.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        If there is no such file, it is a pipe or a folder, too large, or of another format.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("no regular file")  # reading a pipe would wait for ever
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
        image = Image.open(path, formats=FORMATS)
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise ValueError(f"{image.width:,} x {image.height:,} pixels, more than {MOST_PIXELS:,}")
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height from a file's header, without decoding it."""
    with open_image(path) as image:
        return image.size


def is_turned(image: Image.Image) -> bool:
    """Return whether a camera's orientation says that the stored pixels are not upright.

    EXIF data that cannot be read say nothing: the pixels are sound without them.
    """
    try:
        return image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # Pillow raises SyntaxError, struct.error and others
        return False


def upright(image: Image.Image) -> Image.Image:
    """Return an image as its camera's orientation wants it shown, see `is_turned`."""
    return ImageOps.exif_transpose(image) if is_turned(image) else image


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of at most 8 bits a channel.

    Of 16 bits Pillow's own conversion would cut off all but the darkest at white.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if not image.mode.startswith("I;16"):
        raise ValueError(f"pixels of mode {image.mode!r}, whose range is unknown")
    scaled = Image.fromarray(np.round(values.astype(np.float32) / 257).astype(np.uint8))
    scaled.info = image.info  # with the orientation
    return scaled
