"""Differences between a study's methods, in one table: how large, and how sure."""

from collections import Counter
from functools import cache

import numpy as np
import pandas as pd

from nlalib.report.certainty import (
    ACCURACIES,
    CONDITION,
    bootstrap_differences,
    bootstrap_interval,
    comparisons,
    detectable_difference,
    holm,
    paired_differences,
    resampled_counts,
)
from nlalib.report.collect import identity_columns
from nlalib.report.frame import SETTING, published_table
from nlalib.report.records import KEPT_RULES, read_record
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig

DIFFERENCE_COLUMNS = [
    *("study", *SETTING, "reference", "selection", "metric", "primary"),
    *("n", "difference", "deviation", "low", "high", "p_seeds", "detectable", "p_equivalent"),
    *("images_low", "images_high", "p_images", "p_seeds_holm", "p_images_holm"),
]


def hits_on_test(config: RunConfig, selection: str, study: str) -> pd.DataFrame:
    """Return of each test image of a run its label and whether it is predicted right.

    Returns
    -------
    pandas.DataFrame
        Rows `image_id`, sorted; columns `label` (int) and `hit` (bool).
    """
    table = read_record(config, study).at(selection)
    predicted = table.drop(columns="label").to_numpy().argmax(axis=1)
    return table[["label"]].assign(hit=predicted == table["label"])


def study_differences(study: Study, results: pd.DataFrame, reference: str = "ce") -> pd.DataFrame:
    """Return all comparisons of a study's methods with the reference, one row each.

    Overall and mean accuracy, each under the selection rules "last" and "best_validation". No
    rows where the reference shares its conditions with no other run of the study.

    Parameters
    ----------
    study : Study
        All of its runs have to be done, or kept.
    results : pandas.DataFrame
        Of `nlalib.report.collect.study_table`.
    reference : str

    Returns
    -------
    pandas.DataFrame
        Columns `DIFFERENCE_COLUMNS`: as `paired_differences`; `primary`, whether the study declared
        the contrast; `detectable`, see `detectable_difference`; `images_low`, `images_high` and
        `p_images`, see `bootstrap_interval`; `p_seeds_holm` and `p_images_holm`, corrected among
        the primary contrasts, both accuracies and rules together, and those of the study that this
        one asks again; apart from them for all others under one selection rule. What the study's
        file declares and has not run yet counts, with p = 1: what holds now will not turn into a
        hint by it.

    Raises
    ------
    FileNotFoundError
        If the study that this one asks again is not published.
    """
    runs = pd.DataFrame([identity_columns(c, study.name) for c in study.runs.values()])
    compared = runs.groupby(CONDITION)["method"].agg(set)
    if not any(reference in methods and len(methods) > 1 for methods in compared):
        return pd.DataFrame(columns=DIFFERENCE_COLUMNS)
    parts = [
        paired_differences(results, metric, selection, reference)
        for selection in KEPT_RULES
        for metric in ACCURACIES
    ]
    table = pd.concat(parts, ignore_index=True)
    declared = table["method"].isin(study.primary) & (table["settings"] == "")
    table["primary"] = declared & (reference == study.references[0])
    table["detectable"] = [
        detectable_difference(s, n) for s, n in zip(table["deviation"], table["n"], strict=True)
    ]
    bootstrap = _study_bootstrap(study, runs, reference)
    table = table.merge(bootstrap, on=[*SETTING, "selection", "metric"], validate="one_to_one")
    families = table["selection"].where(~table["primary"], "primary")
    again = study.asks_again
    asked = published_table(again, "_differences").query("primary == True") if again else table[:0]
    not_run = [
        family
        for family, number in _declared(study, reference).items()
        for _ in range(number - int((families == family).sum()))
    ]
    further = ["primary"] * len(asked) + not_run
    families = pd.concat([families, pd.Series(further, dtype=object)], ignore_index=True)
    for name in ("p_seeds", "p_images"):
        p_values = [table[name], asked[name], pd.Series(np.ones(len(not_run)))]
        joined = pd.concat(p_values, ignore_index=True)
        table[f"{name}_holm"] = joined.groupby(families).transform(holm)
    return table[DIFFERENCE_COLUMNS]


def _declared(study: Study, reference: str) -> dict[str, int]:
    """Return by family how many comparisons the study's file declares, run or not."""
    number: Counter = Counter()
    rows = [identity_columns(c, study.name) for c in study.declared.values()]
    runs = pd.DataFrame(rows, columns=["study", *SETTING]).drop_duplicates()
    for own, _ in comparisons(runs, runs, reference):
        first = own.iloc[0]
        is_primary = first["method"] in study.primary and first["settings"] == ""
        if is_primary and reference == study.references[0]:
            number["primary"] += len(KEPT_RULES) * len(ACCURACIES)
        else:
            number.update(dict.fromkeys(KEPT_RULES, len(ACCURACIES)))
    return number


def _study_bootstrap(study: Study, runs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return the bootstraps' columns for each setting, selection and accuracy."""
    draw = cache(resampled_counts)  # once for each number of test images
    rows = []
    for selection in KEPT_RULES:
        hits = {name: hits_on_test(c, selection, study.name) for name, c in study.runs.items()}
        for own, baseline in comparisons(runs, runs, reference):
            pairs = own.merge(baseline, on="seed", suffixes=("", "_of_reference"))
            gains = np.array(
                [_gains(hits, one.run_id, one.run_id_of_reference) for one in pairs.itertuples()]
            ).sum(axis=0)
            labels = hits[pairs["run_id"].iloc[0]]["label"].to_numpy()
            resampled = bootstrap_differences(gains, len(pairs), labels, draw(len(labels)))
            setting = own.iloc[0][SETTING].to_dict()
            for metric in ACCURACIES:
                which = {"selection": selection, "metric": metric}
                rows.append({**setting, **which, **bootstrap_interval(resampled[metric])})
    return pd.DataFrame(rows)


def _gains(hits: dict[str, pd.DataFrame], run_id: str, reference: str) -> np.ndarray:
    """Return of each test image whether a run is right less whether its reference is, (N,)."""
    own, other = hits[run_id], hits[reference]
    if not own["label"].equals(other["label"]):
        raise ValueError(
            f"{run_id} and the reference of its seed were tested on other images or labels; has "
            "the data set changed? Remove the older run's folder and train anew"
        )
    return own["hit"].to_numpy(int) - other["hit"].to_numpy(int)
