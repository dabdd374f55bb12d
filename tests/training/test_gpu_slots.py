"""GPUs are shared out by locks: no slot twice, all that a run wants or none."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from nlalib.training import gpu_slots
from nlalib.training.gpu_slots import gpus_taken


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(gpu_slots, "_PAUSE", 0.02)


def is_free(gpus, wanted, runs_per_gpu, folder) -> bool:
    """Whether the GPUs are had at once."""
    had, stop = threading.Event(), threading.Event()

    def take():
        with gpus_taken(gpus, wanted, runs_per_gpu, folder):
            had.set()
            stop.wait()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    free = had.wait(0.3)
    stop.set()
    if free:
        thread.join()
    return free


def test_slots_of_a_gpu_are_taken_after_the_first_of_each(tmp_path):
    given = (["0", "1"], 1, 2, tmp_path)
    with gpus_taken(*given) as first, gpus_taken(*given) as second:
        assert (first, second) == (["0"], ["1"])
        with gpus_taken(*given) as third, gpus_taken(*given) as fourth:
            assert (third, fourth) == (["0"], ["1"])
            assert not is_free(*given)
    assert is_free(["0", "1"], 2, 1, tmp_path)


def test_a_run_of_two_gpus_waits_for_both_and_holds_none_meanwhile(tmp_path):
    with gpus_taken(["0", "1"], 1, 1, tmp_path):
        begun = []

        def pair():
            with gpus_taken(["0", "1"], 2, 1, tmp_path) as taken:
                begun.append(taken)

        thread = threading.Thread(target=pair)
        thread.start()
        time.sleep(0.1)
        with gpus_taken(["1"], 1, 1, tmp_path) as taken:
            assert taken == ["1"]
        assert begun == []
    thread.join(5)
    assert begun == [["0", "1"]]


def test_one_run_never_takes_two_slots_of_one_gpu(tmp_path):
    with gpus_taken(["0", "1"], 2, 4, tmp_path) as taken:
        assert taken == ["0", "1"]


def test_more_than_there_are_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match=r"3 GPUs are wanted of 2 \(0, 1\)"),
        gpus_taken(["0", "1"], 3, 1, tmp_path),
    ):
        pass


def test_a_gpu_that_takes_no_run_or_counts_twice_is_not_waited_for(tmp_path):
    with pytest.raises(ValueError, match="runs_per_gpu is 0"), gpus_taken(["0"], 1, 0, tmp_path):
        pass
    with (
        pytest.raises(ValueError, match=r"2 GPUs are wanted of 1 \(0\)"),
        gpus_taken(["0", "0"], 2, 1, tmp_path),
    ):
        pass


def test_the_commands_status_and_its_end_are_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    code = "import os, sys; sys.exit(int(os.environ['CUDA_VISIBLE_DEVICES']))"
    words = [sys.executable, "-m", "nlalib.training.gpu_slots", "--gpus", "7", "--"]
    assert subprocess.run([*words, sys.executable, "-c", code], check=False).returncode == 7
    waits = "import time; print('here', flush=True); time.sleep(60)"
    process = subprocess.Popen([*words, sys.executable, "-c", waits], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert is_free(["7"], 1, 1, tmp_path)
