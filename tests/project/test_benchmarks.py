"""The benchmarks begin: what they import of the library is there."""

import importlib.util
import subprocess
import sys

from nlalib.paths import ROOT


def test_the_command_finds_all_that_it_imports():
    words = [sys.executable, "-m", "benchmarks", "--help"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    for name in ("step", "epoch", "growth", "cuda"):
        assert name in found.stdout


def test_no_module_takes_the_name_of_a_package():
    """A script's folder comes first: PyTorch itself would import `cuda.py` in place of NVIDIA's."""
    modules = [path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")]
    assert "measuring" in modules
    assert [name for name in modules if importlib.util.find_spec(name)] == []
