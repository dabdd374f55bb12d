"""The record of what a run ran on: it never stops a run, and tells what changed."""

import json
from importlib.metadata import PackageNotFoundError, version

import torch

from nlalib.training import environment as recording
from nlalib.training.environment import changes_since, environment


def test_versions_are_those_that_are_installed():
    found = environment("cpu")
    for package in ("torch", "numpy", "accelerate"):
        assert found["packages"][package] == version(package)
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == "cpu"


def test_without_git_the_commit_is_unknown(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError("git")

    found = environment("cpu")
    monkeypatch.setattr(recording.subprocess, "run", absent)
    assert environment("cpu") == {**found, "commit": None}


def test_opencv_without_windows_counts_and_no_package_is_asked_for_in_vain(monkeypatch):
    def installed(name):
        if name == "opencv-python-headless":
            return "5.0"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(recording, "version", installed)
    assert environment("cpu")["packages"] == {"opencv-python-headless": "5.0"}


def test_what_the_last_digits_depend_on_is_compared(tmp_path):
    now = environment("cpu")
    file = tmp_path / "environment.json"
    assert changes_since(file, now) == ""
    file.write_text("{ cut")
    assert changes_since(file, now) == ""
    file.write_text(json.dumps({**now, "commit": "other", "threads": now["threads"] + 3}))
    wanted = f"threads {now['threads'] + 3}, now {now['threads']}"
    assert changes_since(file, now) == wanted
    file.write_text(json.dumps({**now, "device": "cuda"}))
    assert changes_since(file, now) == "device cuda, now cpu"
    # Another card is a change where the run is on it, and none where it is not.
    cards = [{**now, "device": device, "cuda_device": "one"} for device in ("cuda", "cpu")]
    wanted = ["cuda_device one, now other", ""]
    for before, told in zip(cards, wanted, strict=True):
        file.write_text(json.dumps(before))
        assert changes_since(file, {**before, "cuda_device": "other"}) == told
    file.write_text(json.dumps({"machine": "x"}))  # a record of before, with less in it
    assert changes_since(file, now) == ""
