"""Files that are whole or absent, locks, tables; on a disk that may be full or not ours."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nlalib.paths import cache_folder, runs_folder

# Of a file or folder that its mode keeps from the user who runs a command.
CLOSED = "closed to this user: change its owner or mode, or that of its folder"


class _Told(OSError):
    """An error that names the path and the next step already."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
# A writer that gives no error number (torch.save, safetensors) met a full disk if this is left.
_NEXT_TO_NOTHING = 1 << 20
# Tables are encoded a group of rows at a time; Arrow keeps the memory of the largest for later.
_ROWS_OF_A_GROUP = 16_384
_DIGITS = 12  # of a file's SHA-256


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
                f"or {_elsewhere(path)}, and start again: what was finished before is whole",
            ) from error
        if number in _REFUSED:
            raise _Told(
                number,
                f"{path} cannot be written ({os.strerror(number)}). Change its owner or mode, or "
                f"{_elsewhere(path)}",
            ) from error
        raise


def in_one_line(error: Exception) -> str:
    """Return what a command tells of an error: one that names a closed file gets the remedy."""
    if isinstance(error, _Told):
        return error.strerror
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename} is {CLOSED}"
    return str(error)


def _elsewhere(path: Path) -> str:
    """Return how the user names another place for `path`."""
    for variable, folder_of in {"NLA_CACHE": cache_folder, "NLA_RUNS": runs_folder}.items():
        with suppress(ValueError, FileNotFoundError):  # there is none outside the project
            if folder_of() in (path, *path.parents):
                return f"name a folder on another disk by {variable}"
    return "give another folder"


def free_bytes(path: Path) -> int:
    """Return the room on the disk of `path`, or of its nearest folder that there is."""
    return shutil.disk_usage(next(one for one in (path, *path.parents) if one.is_dir())).free


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename.

    So the file at `path` is whole or absent, whenever the process is killed.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; a file that was at `path` stays.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with writing(path):  # looks at the disk before the unfinished file gives its room back
            path.parent.mkdir(parents=True, exist_ok=True)
            write(unfinished)
            unfinished.replace(path)
    finally:
        with suppress(OSError):  # where the folder itself is out of reach
            unfinished.unlink()


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock file `path`; the lock ends with the process that holds it.

    Parameters
    ----------
    path : pathlib.Path
        Made where it is missing; its folder too. Whoever holds it may remove or rename it.
    busy : str
        What to say where another process holds it; "" to wait for that.

    Raises
    ------
    RuntimeError
        With the text `busy`.
    """
    lock, is_held = filelock.FileLock(path), True
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=not busy)
        except filelock.Timeout:  # an OSError, which is none of the disk's
            is_held = False
    if not is_held:
        raise RuntimeError(busy)
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, content: dict) -> None:
    """Write `content` as JSON, atomically."""
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_atomically(path, lambda unfinished: unfinished.write_text(text))


def write_csv(path: Path, table: pd.DataFrame, **options) -> None:
    """Write `table`, without its row labels, as a CSV file, atomically."""
    write_atomically(path, lambda unfinished: table.to_csv(unfinished, index=False, **options))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write `table`, without its row labels, as a parquet file, atomically."""
    write_atomically(
        path,
        lambda unfinished: table.to_parquet(
            unfinished, index=False, row_group_size=_ROWS_OF_A_GROUP
        ),
    )
    pa.default_memory_pool().release_unused()


def join_tables(path: Path, files: list[Path]) -> None:
    """Write the rows of all parquet `files` to one at `path`, atomically, a group at a time.

    Raises
    ------
    ValueError
        If one of them is damaged.
    """

    def join(unfinished: Path) -> None:
        with _reading(files[0], path):
            schema = pq.read_schema(files[0])
        with pq.ParquetWriter(unfinished, schema) as writer:
            for file in files:
                with _reading(file, path):
                    given = pq.ParquetFile(file)
                for group in range(given.num_row_groups):
                    with _reading(file, path):
                        # Threads would keep memory of their own, which is not released.
                        rows = given.read_row_group(group, use_threads=False)
                    writer.write_table(rows)

    write_atomically(path, join)
    pa.default_memory_pool().release_unused()


@contextmanager
def _reading(file: Path, wanted: Path) -> Iterator[None]:
    """Tell which parquet file is damaged, of those that `wanted` is made of."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{file} is no whole parquet table ({error}): delete {wanted.parent} to make it anew"
        ) from error


def name_and_digest(path: Path) -> str:
    """Return how tables name a file that results depend on: by its name and its content."""
    return f"{path.stem}@{file_digest(path)}"


def file_digest(path: Path) -> str:
    """Return the first 12 hexadecimal digits of the file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
