"""The gate: had the runs converged, and did a known effect show?"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from made_runs import results_of

from nlalib.report.gate import Gate, published_gate, study_gate
from places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def epochs_of(fits, validation, metric="fitted_accuracy_given", **setting) -> pd.DataFrame:
    """A table over epochs: a fit of each seed at its last epoch, and a course of validation."""
    rows = []
    for seed, fit in enumerate(fits):
        rows.append((seed, len(validation) - 1, metric, fit))
        rows += [(seed, e, "validation_overall_accuracy", v) for e, v in enumerate(validation)]
    table = pd.DataFrame(rows, columns=["seed", "epoch", "metric", "value"])
    base = {"method": "ce", "settings": "", "label_source": "rule"}
    base |= {"noise_rate": 0.0, "imbalance_factor": 1.0}
    table = table.assign(**{**base, **setting})
    return table.assign(run_id=table["method"] + table["seed"].astype(str) + str(setting))


LEVEL = [0.3, 0.5, 0.6, 0.7, 0.70, 0.70, 0.70, 0.70]
RISING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
HELPS = results_of({"ce": [0.60, 0.62], "eac": [0.70, 0.60]}, noise_rate=0.2)
HARMS = results_of({"ce": [0.60, 0.62], "eac": [0.55, 0.60]}, noise_rate=0.2)


def test_gate_of_runs_that_can_tell():
    gate = study_gate(HELPS, epochs_of([0.93, 0.91], LEVEL))
    assert gate.fit == pytest.approx(0.92)
    assert gate.slope == pytest.approx(0.0)
    assert gate.control == pytest.approx((0.10 - 0.02) / 2)
    assert gate.passed
    assert gate.reasons == []
    assert str(gate) == (
        "passed: ce fits 92.0% of its labels, without noise (90% wanted); validation accuracy "
        "changes by +0.00 points an epoch (below +0.50 wanted); eac is +4.0 points from ce under "
        "noise (0 or more wanted)"
    )


@pytest.mark.parametrize(
    ("gate", "reasons"),
    [
        (Gate(0.89, 0.0, 0.1, "eac"), ["ce has not fitted its labels"]),
        (Gate(np.nan, 0.0, 0.1, "eac"), ["what ce fits without wrong labels is not known"]),
        (Gate(0.95, 0.006, 0.1, "eac"), ["validation accuracy still rises"]),
        (Gate(0.95, 0.0, -0.1, "eac"), ["the positive control is behind"]),
        (
            Gate(0.5, np.nan, np.nan, "eac"),
            [
                "ce has not fitted its labels",
                "how its validation accuracy goes on is not known",
                "the positive control was not run",
            ],
        ),
    ],
)
def test_gate_says_why_it_was_not_passed(gate, reasons):
    assert not gate.passed
    assert gate.reasons == reasons
    assert str(gate).startswith(f"inconclusive, as {' and '.join(reasons)}")
    assert "nan" not in str(gate)


@pytest.mark.parametrize(
    ("results", "epochs"),
    [
        (HELPS, epochs_of([0.89, 0.90], LEVEL)),
        (HELPS, epochs_of([0.99, 0.99], RISING)),
        (HARMS, epochs_of([0.99, 0.99], LEVEL)),
        (HELPS[HELPS["method"] == "ce"], epochs_of([0.99, 0.99], LEVEL)),
        (HELPS.assign(noise_rate=0.0), epochs_of([0.99, 0.99], LEVEL)),
        (HELPS, epochs_of([0.99, 0.99], LEVEL, noise_rate=0.2)),
        (HELPS, epochs_of([0.99, 0.99], LEVEL, label_source="fer2013")),
        (HELPS, epochs_of([0.99, 0.99], LEVEL, method="nla")),
    ],
    ids=[
        "unfitted",
        "rising",
        "control",
        "no control",
        "no noise",
        "no clean ce",
        "no rule",
        "no ce",
    ],
)
def test_gate_of_runs_that_cannot_tell(results, epochs):
    gate = study_gate(results, epochs)
    assert not gate.passed
    assert str(gate).startswith("inconclusive, as ")


def test_validation_accuracy_may_fall():
    """Where labels are memorised it does, and more epochs would teach no more."""
    falling = [0.3, 0.5, 0.7, 0.7, 0.69, 0.68, 0.67, 0.66]
    gate = study_gate(HELPS, epochs_of([0.99], falling))
    assert gate.slope == pytest.approx(-0.01)
    assert gate.passed


def test_slope_is_of_the_last_quarter_alone():
    course = [*RISING[:6], 0.7, 0.704]
    assert study_gate(HELPS, epochs_of([0.99], course)).slope == pytest.approx(0.004)


def test_fit_of_older_tables_is_that_of_training():
    gate = study_gate(HELPS, epochs_of([0.8, 0.6], LEVEL, metric="accuracy_given"))
    assert gate.fit == pytest.approx(0.7)
    both = pd.concat(
        [
            epochs_of([0.8], LEVEL, metric="accuracy_given"),
            epochs_of([0.95], LEVEL).query("metric != 'validation_overall_accuracy'"),
        ]
    )
    assert study_gate(HELPS, both).fit == pytest.approx(0.95)
    assert np.isnan(study_gate(HELPS, epochs_of([], LEVEL)).fit)


def studies_of(notebook: Path) -> set[str]:
    """Return the published studies whose tables a notebook's parameters name."""
    source = "".join(
        "".join(cell["source"])
        for cell in json.loads(notebook.read_text())["cells"]
        if "parameters" in cell["metadata"].get("tags", [])
    )
    named = set(re.findall(r"results/([a-z_]+?)(?:_epochs|_differences)?(?:\.csv)?\"", source))
    return {name for name in named if (ROOT / "configs" / f"{name}.yaml").is_file()}


NAMING = {path.stem: names for path in NOTEBOOKS if (names := studies_of(path))}


@pytest.mark.parametrize("notebook", NAMING)
def test_notebooks_say_at_their_head_that_their_runs_could_not_have_told(notebook):
    """A reader of the findings alone takes no difference of such runs for a verdict."""
    published = [name for name in NAMING[notebook] if (ROOT / f"results/{name}.csv").is_file()]
    files = [ROOT / "configs" / f"{name}.yaml" for name in published]
    gates = [published_gate(yaml.safe_load(path.read_text())) for path in files]
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    head = "".join(cells[0]["source"])
    if not all(gate.passed for gate in gates):
        assert "inconclusive" in head or "interim" in head


def test_the_notebooks_on_studies_are_found():
    assert {"06_main_results", "07_noise_and_imbalance", "08_ablation"} <= set(NAMING)
