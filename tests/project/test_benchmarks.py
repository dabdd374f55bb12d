"""The benchmarks begin: what they import of the library is there."""

import subprocess
import sys

from nlalib.paths import ROOT


def test_the_command_finds_all_that_it_imports():
    words = [sys.executable, "-m", "benchmarks", "--help"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    for name in ("step", "epoch", "growth", "cuda"):
        assert name in found.stdout
