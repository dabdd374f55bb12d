"""Which class is taken for which, from the kept predictions of a published study."""

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from nlalib.data.labels import expressions
from nlalib.report.records import kept_runs, read_record
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig


def kept_by_seed(study: Study, **chosen) -> dict[int, RunConfig]:
    """Return the study's kept runs with these parameters (as `method="nla"`), by seed.

    Raises
    ------
    ValueError
        If a seed has several such runs: more has to be chosen.
    """
    kept = kept_runs(study.name)
    runs = (config for run_id, config in study.runs.items() if run_id in kept)
    wanted = [c for c in runs if all(getattr(c, name) == to for name, to in chosen.items())]
    found = {config.seed: config for config in sorted(wanted, key=lambda config: config.seed)}
    if len(found) < len(wanted):
        raise ValueError(f"{chosen} leave several runs for one seed; choose more parameters")
    return found


def confusion(configs: list[RunConfig], study: str) -> pd.DataFrame:
    """Return the share of each class' test images that is taken for each class at the last epoch.

    Parameters
    ----------
    configs : list of RunConfig
        Done, or kept with the study; all of the same classes.
    study : str

    Returns
    -------
    pandas.DataFrame, (K, K) float
        Rows by true class, which sum to 1 (0 for a class without images); columns by predicted
        one. The mean over runs.
    """
    shares = []
    for config in configs:
        table = read_record(config, study).at("last")
        predicted = table.drop(columns="label").to_numpy().argmax(axis=1)
        classes = range(config.num_classes)
        matrix = confusion_matrix(table["label"], predicted, labels=classes, normalize="true")
        shares.append(matrix)
    names = expressions(configs[0].num_classes)
    table = pd.DataFrame(np.mean(shares, axis=0), index=names, columns=names)
    return table.rename_axis(index="true class", columns="taken for")
