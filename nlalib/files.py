"""Writing to a disk that may be full, or that is not ours to write to."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Told(OSError):
    """An error that names the path and the next step already."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
# A writer that gives no error number (torch.save, safetensors) met a full disk if this is left.
_NEXT_TO_NOTHING = 1 << 20


@contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Tell of an error inside what hinders writing to `path`, and the next step.

    Parameters
    ----------
    path : pathlib.Path
        The file, or the folder, that is written.
    needed : int
        Bytes that it will take, if known: then the room is looked at before the first byte.

    Raises
    ------
    OSError
        With the number of the first error, if the disk is full or the folder cannot be written.
        Other errors pass as they are.
    """
    try:
        if needed > free_bytes(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except _Told:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        free = free_bytes(path)
        if number in _FULL or (number is None and free < _NEXT_TO_NOTHING):
            wanted = f"{needed:,} bytes are needed and " if needed else ""
            raise _Told(
                number or errno.ENOSPC,
                f"no room to write {path}: {wanted}{free:,} bytes are free ({error}). Free some, "
                "or name a folder on another disk by NLA_RUNS (runs) or NLA_CACHE (decoded "
                "images), and start again: what was finished before is whole",
            ) from error
        if number in _REFUSED:
            raise _Told(
                number,
                f"{path} cannot be written ({error.strerror}). Change its owner or mode, or name "
                "another folder by NLA_RUNS (runs) or NLA_CACHE (decoded images)",
            ) from error
        raise


def free_bytes(path: Path) -> int:
    """Return the room on the disk of `path`, or of its nearest folder that there is."""
    for folder in (path, *path.parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    raise FileNotFoundError(f"no folder above {path}")
