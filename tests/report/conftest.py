"""A project's root of its own, in which commands on a study's tables run."""

import pandas as pd
import pytest

from nlalib import __main__ as command_line
from nlalib.report import collect, frame, ledger, publish, readme, recompute

STUDY = """\
study: tiny
title: A tiny study
notebooks: {}
fixed: {epochs: 4}
grid: {method: [ce, nla], seed: [0, 1]}
readme: true
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's root of its own; returns a function that runs one command there."""
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "runs"))
    for module in (frame, ledger, publish, readme, recompute):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(collect, "load_dataset", lambda choice: (pd.DataFrame(), None))
    numbers = pd.DataFrame({"epoch": [0, 1], "metric": "accuracy_given", "value": [1 / 3, 0.5]})
    monkeypatch.setattr(collect, "run_epoch_numbers", lambda config, index: numbers)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.yaml").write_text(STUDY)

    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["nlalib", *words])
        return command_line.main()

    return tmp_path, run
