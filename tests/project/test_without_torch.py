"""What reads data sets and tables starts without PyTorch, which takes seconds to import."""

import pkgutil
import subprocess
import sys

import nlalib.data
import nlalib.prepare
import nlalib.report
from places import ROOT

# It predicts with networks; no report notebook imports it.
WITH_TORCH = {"nlalib.report.robustness", "nlalib.report.explorer"}


def modules_of(package) -> set[str]:
    found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    return {module.name for module in found}


def test_data_preparation_and_reports_are_imported_without_torch():
    packages = (nlalib.data, nlalib.prepare, nlalib.report)
    names = set().union(*map(modules_of, packages)) - WITH_TORCH
    names |= {"nlalib.plots", "nlalib.metrics", "nlalib.__main__", "nlalib.training.config"}
    assert len(names) > 25
    code = [f"import {name}" for name in sorted(names)]
    code += ["import sys", "assert 'torch' not in sys.modules"]
    subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=ROOT, check=True)
