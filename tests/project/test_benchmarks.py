"""The benchmarks begin: what they import of the library is there."""

import subprocess
import sys

from nlalib.paths import ROOT


def test_every_benchmark_is_named_by_the_command():
    words = [sys.executable, "-m", "benchmarks", "--help"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "cuda" in found.stdout
