"""Files are whole or as they were; a full disk and a damaged table are named."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nlalib.files import (
    CLOSED,
    in_one_line,
    join_tables,
    locked,
    write_atomically,
    write_json,
    write_table,
    writing,
)
from places import ROOT


def test_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"a": 1})

    def fail(unfinished: Path):
        unfinished.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert list(path.parent.iterdir()) == [path]


def test_joined_tables_have_the_rows_of_all_files_in_order(tmp_path):
    number = 40_000  # more than is written at a time
    ids = [f"image {n}" for n in range(number)]
    table = pd.DataFrame({"image_id": ids, "p": np.arange(number, dtype=np.float32)})
    tables = [table, table.head(0), table.iloc[::-1]]
    files = [tmp_path / f"{n}.parquet" for n in range(len(tables))]
    for file, each in zip(files, tables, strict=True):
        write_table(file, each)
    join_tables(tmp_path / "all.parquet", files)
    expected = pd.concat(tables, ignore_index=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "all.parquet"), expected)
    assert sorted(tmp_path.iterdir()) == sorted([*files, tmp_path / "all.parquet"])


@pytest.mark.parametrize("damaged", [0, 1])
@pytest.mark.parametrize("kept", [0, 3, -10])
def test_a_table_that_is_cut_off_is_named_with_the_next_step(tmp_path, damaged, kept):
    files = [tmp_path / "facts" / "1.parquet", tmp_path / "facts" / "2.parquet"]
    for file in files:
        write_table(file, pd.DataFrame({"p": [1.0, 2.0]}))
    files[damaged].write_bytes(files[damaged].read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{files[damaged].name} .*delete {tmp_path} "):
        join_tables(tmp_path / "all.parquet", files)
    assert list(tmp_path.iterdir()) == [tmp_path / "facts"]


def test_full_disk_names_the_file_the_room_and_the_next_step(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})

    def fail(unfinished: Path):
        unfinished.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    message = r"no room to write .*file\.json: [\d,]+ bytes are free .*or give another folder"
    with pytest.raises(OSError, match=message) as told:
        write_atomically(path, fail)
    assert told.value.errno == errno.ENOSPC
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_said_outside_the_project_too(tmp_path, monkeypatch):
    monkeypatch.setattr("nlalib.paths.ROOT", tmp_path)
    for name in ("NLA_CACHE", "NLA_RUNS"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(OSError, match=r"no room to write .* or give another folder"),
        writing(tmp_path / "out", needed=1 << 60),
    ):
        pytest.fail("written")


def test_an_error_is_told_in_one_line_with_its_remedy(tmp_path):
    path = tmp_path / "closed"
    error = PermissionError(errno.EACCES, "Permission denied", str(path))
    assert in_one_line(error) == f"{path} is {CLOSED}"
    assert in_one_line(ValueError("as it is")) == "as it is"
    with pytest.raises(OSError, match="cannot be written") as told, writing(path):
        raise error
    assert in_one_line(told.value).startswith(f"{path} cannot be written (Permission denied)")


HOLD = """
import sys, pathlib
from nlalib.files import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_lock_keeps_other_processes_out_and_ends_with_its_holder(tmp_path, monkeypatch):
    path = tmp_path / "folder" / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=ROOT) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match="it is taken"), locked(path, "it is taken"):
            pytest.fail("two at once")
        with monkeypatch.context() as full:  # a disk that is nearly full is not to blame
            full.setattr("nlalib.files.free_bytes", lambda path: 1000)
            with pytest.raises(RuntimeError, match="it is taken"), locked(path, "it is taken"):
                pytest.fail("two at once")
        holder.kill()
        with locked(path):  # waits until it is dead
            pass
    with locked(path, "it is taken"):
        pass
