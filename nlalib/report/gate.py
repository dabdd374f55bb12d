"""Can a study's runs tell at all? Had they converged, and is a known effect not turned round?

A comparison of methods that have not fitted their labels yet says how fast they begin, and one in
which a method that is known to help does not help could not have found another's. So a verdict
needs both, the training's end and a passed positive control; without them it is "inconclusive".
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from nlalib.data.label_sources import RULE
from nlalib.report.certainty import INCONCLUSIVE
from nlalib.report.frame import chosen_rows, published_table
from nlalib.report.studies import Study

REFERENCE = "ce"
CONTROL = "eac"  # where a study names none
# Cross-entropy has fitted its labels, where none is wrong, when it gives this share of them back.
FITTED_SHARE = 0.9
# And training has ended when the validation accuracy rises by less an epoch.
LEVEL_SLOPE = 0.005


class Gate(NamedTuple):
    """What the gate looked at; NaN for what a study does not show.

    Attributes
    ----------
    fit : float
        Share of its training labels that cross-entropy gives back at the last epoch of runs without
        noise, mean over seeds: unaugmented and in evaluation mode where that was recorded, else as
        it trained.
    slope : float
        Change of its validation accuracy an epoch over the last quarter, mean over seeds.
    control : float
        Overall accuracy of the positive control less that of cross-entropy at the last epoch, mean
        over the noise rates and seeds that both have.
    control_name : str
    """

    fit: float
    slope: float
    control: float
    control_name: str

    @property
    def passed(self) -> bool:
        """Whether a difference may be called a verdict."""
        return not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why it was not passed, in words; empty where it was."""
        found = {  # NaN compares as false
            f"{REFERENCE} has not fitted its labels": self.fit < FITTED_SHARE,
            f"what {REFERENCE} fits without wrong labels is not known": np.isnan(self.fit),
            "validation accuracy still rises": self.slope >= LEVEL_SLOPE,
            "how its validation accuracy goes on is not known": np.isnan(self.slope),
            "the positive control is behind": self.control < 0,
            "the positive control was not run": np.isnan(self.control),
        }
        return [reason for reason, is_so in found.items() if is_so]

    def __str__(self) -> str:
        """Say in one line whether it passed, why not, and by which numbers."""
        verdict = "passed" if self.passed else f"{INCONCLUSIVE}, as {' and '.join(self.reasons)}"
        numbers = [
            f"{REFERENCE} fits {self.fit:.1%} of its labels, without noise ({FITTED_SHARE:.0%} "
            "wanted)",
            f"validation accuracy changes by {100 * self.slope:+.2f} points an epoch (below "
            f"{100 * LEVEL_SLOPE:+.2f} wanted)",
            f"{self.control_name} is {100 * self.control:+.1f} points from {REFERENCE} under noise "
            "(0 or more wanted)",
        ]
        known = [
            words
            for words, number in zip(numbers, (self.fit, self.slope, self.control), strict=True)
            if not np.isnan(number)
        ]
        return f"{verdict}: {'; '.join(known)}" if known else verdict


def study_gate(results: pd.DataFrame, epochs: pd.DataFrame, control: str = CONTROL) -> Gate:
    """Return the gate of a study, from its long tables.

    Parameters
    ----------
    results, epochs : pandas.DataFrame
        As `nlalib.report.collect` makes them.
    control : str
        The method that is known to help under label noise.
    """
    clean = epochs[(epochs["method"] == REFERENCE) & (epochs["noise_rate"] == 0)]
    clean = clean[(clean["imbalance_factor"] == 1) & (clean["settings"] == "")]
    clean = clean[clean["label_source"] == RULE]
    last = clean[clean["epoch"] == clean.groupby("run_id")["epoch"].transform("max")]
    fits = [last[last["metric"] == name] for name in ("fitted_accuracy_given", "accuracy_given")]
    fit = next((rows["value"].mean() for rows in fits if len(rows)), np.nan)
    slopes = list(late_slopes(clean).values())
    slope = float(np.mean(slopes)) if slopes else np.nan
    return Gate(fit, slope, _control(results, control), control)


def gate_of(study: Study, results: pd.DataFrame, epochs: pd.DataFrame) -> Gate:
    """Return the study's gate: its own, or that of the published study that it names."""
    if study.gate:
        return gate_of_published(study.gate, study.positive_control)
    return study_gate(results, epochs, study.positive_control or CONTROL)


def published_gate(content: dict) -> Gate:
    """Return the gate of a published study, or of the one that its file, `content`, names."""
    name = content.get("gate") or content["study"]
    return gate_of_published(name, content.get("positive_control", ""))


def gate_of_published(name: str, control: str) -> Gate:
    """Return the gate of the published tables of this name; `control` as a study's file has it."""
    tables = published_table(name), published_table(name, "_epochs")
    return study_gate(*tables, control or CONTROL)


def late_slopes(epochs: pd.DataFrame) -> dict[str, float]:
    """Return by run id the slope of validation accuracy over the last quarter of the epochs.

    Least squares, as a fraction an epoch, of the long table of numbers over epochs.
    """
    course = epochs[epochs["metric"] == "validation_overall_accuracy"]
    slopes = {}
    for run_id, run in course.groupby("run_id"):
        late = run.sort_values("epoch").tail(max(2, round(len(run) / 4)))
        slopes[run_id] = float(np.polyfit(late["epoch"], late["value"], 1)[0])
    return slopes


def _control(results: pd.DataFrame, control: str) -> float:
    noisy = results[(results["noise_rate"] > 0) & (results["settings"] == "")]
    if not {control, REFERENCE} <= set(noisy["method"]):
        return float("nan")
    rows = chosen_rows(noisy, "overall_accuracy", "last")
    table = rows.pivot_table(index=["noise_rate", "seed"], columns="method", values="value")
    return float((table[control] - table[REFERENCE]).mean())
