"""Differences between a study's methods, in one table: how large, and how sure."""

import numpy as np
import pandas as pd

from nlalib.report.certainty import (
    ACCURACIES,
    CONDITION,
    bootstrap_differences,
    bootstrap_interval,
    detectable_difference,
    holm,
    paired_differences,
    reference_rows,
    resampled_counts,
)
from nlalib.report.collect import identity_columns
from nlalib.report.frame import SETTING
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


def study_differences(
    study: Study, results: pd.DataFrame, reference: str = "ce", seed: int = 0
) -> pd.DataFrame:
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
    seed : int
        Of the bootstraps.

    Returns
    -------
    pandas.DataFrame
        Columns `DIFFERENCE_COLUMNS`: as `paired_differences`; `primary`, whether the study declared
        the contrast; `detectable`, see `detectable_difference`; `images_low`, `images_high` and
        `p_images`, see `bootstrap_interval`; `p_seeds_holm` and `p_images_holm`, corrected among
        the primary contrasts, both accuracies and rules together, and apart from them for all
        others under one selection rule.
    """
    runs = pd.DataFrame(
        [{**identity_columns(c, study.name), "config": c} for c in study.runs.values()]
    )
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
    bootstrap = _study_bootstrap(runs, study.name, reference, seed)
    table = table.merge(bootstrap, on=[*SETTING, "selection", "metric"], validate="one_to_one")
    families = table["selection"].where(~table["primary"], "primary")
    for name in ("p_seeds", "p_images"):
        table[f"{name}_holm"] = table.groupby(families)[name].transform(holm)
    return table[DIFFERENCE_COLUMNS]


def _study_bootstrap(runs: pd.DataFrame, study: str, reference: str, seed: int) -> pd.DataFrame:
    """Return the bootstraps' columns for each setting, selection and accuracy."""
    drawn: dict[int, np.ndarray] = {}  # by the number of test images
    rows = []
    for selection in KEPT_RULES:
        for _, same in runs.groupby(CONDITION, sort=False):
            baseline = reference_rows(same, reference)
            if baseline.empty:
                continue
            theirs = {
                r.seed: hits_on_test(r.config, selection, study) for r in baseline.itertuples()
            }
            for _, own in same.drop(baseline.index).groupby(["method", "settings"], sort=False):
                ours = {
                    run.seed: hits_on_test(run.config, selection, study)
                    for run in own[own["seed"].isin(theirs)].itertuples()
                }
                _check_same_images(own, ours, theirs)
                labels = next(iter(ours.values()))["label"].to_numpy()
                hits = np.array([ours[s]["hit"] for s in ours])  # (S, N)
                others = np.array([theirs[s]["hit"] for s in ours])
                if len(labels) not in drawn:
                    drawn[len(labels)] = resampled_counts(len(labels), seed)
                gains = (hits.astype(float) - others).mean(axis=0)
                images = bootstrap_differences(gains, labels, drawn[len(labels)])
                for metric in ACCURACIES:
                    rows.append(
                        {
                            **own.iloc[0][SETTING].to_dict(),
                            **{"selection": selection, "metric": metric},
                            **bootstrap_interval(images[metric]),
                        }
                    )
    return pd.DataFrame(rows)


def _check_same_images(own: pd.DataFrame, ours: dict, theirs: dict) -> None:
    for run in own[own["seed"].isin(theirs)].itertuples():
        if not ours[run.seed]["label"].equals(theirs[run.seed]["label"]):
            raise ValueError(
                f"{run.run_id} and the reference of seed {run.seed} were tested on other images or "
                "labels; has the data set changed? Remove the older run's folder and train anew"
            )
