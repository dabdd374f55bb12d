"""One image of a set, from wherever it stands: a file, a row of a table, a face drawn by code.

16-bit images are scaled to 8 bits, and a camera's orientation is applied.
"""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from nlalib.data import image_files
from nlalib.data.image_files import FORMATS, eight_bits, open_image
from nlalib.data.sets.fer2013_table import TABLE_MARK, load_kaggle_images, split_path
from nlalib.data.sets.rendered import RENDERED_MARK, render_face
from nlalib.files import CLOSED

# Raise it when a change here changes pixels: images that were decoded before are decoded again.
DECODER_VERSION = "2"


class UndecodableImage(ValueError):
    """An image that cannot be decoded; `reason` says why, without its name."""

    def __init__(self, path: str, root: Path, reason: str):
        self.reason = reason
        if reason == CLOSED:
            super().__init__(f"image {path} in {root} is {CLOSED}")
        else:
            super().__init__(
                f"image {path} in {root} does not decode ({reason}); unpack the data set again, "
                "or take the image out of its label file"
            )


class ImageReader:
    """Reads the images of a set by their paths in its index.

    Parameters
    ----------
    root : pathlib.Path
        The data set's folder.
    paths : iterable of str
        The images that will be asked for: those in tables are read at once, as row by row it would
        take hours.
    size : int
        Side at which faces are drawn, pixels; files keep their own size.
    """

    def __init__(self, root: Path, paths: Iterable[str], size: int):
        self.root, self.size = root, size
        rows: dict[str, list[int]] = {}
        for path in paths:
            if TABLE_MARK in path:
                table, row = split_path(path)
                rows.setdefault(table, []).append(row)
        self._rows = {
            table: dict(zip(wanted, load_kaggle_images(root / table, wanted), strict=True))
            for table, wanted in rows.items()
        }

    def read(self, path: str, *, upright: bool = True) -> Image.Image:
        """Return one image, 8 bits a channel, grey or in colour.

        `upright=False` leaves a camera's orientation unapplied: landmarks in pixels of the file
        are of the pixels as they are stored.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        UndecodableImage
            If it cannot be decoded.
        """
        if path.startswith(RENDERED_MARK):
            return Image.fromarray(render_face(path, self.size))
        if TABLE_MARK in path:
            table, row = split_path(path)
            return Image.fromarray(self._rows[table][row])
        try:
            image = open_image(self.root / path)
            image.load()
            image = eight_bits(image)
            return image_files.upright(image) if upright else image
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"image {path} is in the index but not in {self.root}; unpack the data set again"
            ) from error
        except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error and others
            raise UndecodableImage(path, self.root, _reason(error)) from error

    def is_turned(self, path: str) -> bool:
        """Return whether a camera's orientation says that the stored pixels are not upright."""
        if path.startswith(RENDERED_MARK) or TABLE_MARK in path:
            return False
        return image_files.is_turned(open_image(self.root / path))


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return CLOSED
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__
