"""A study's candidate label sets, described: how large they are and how often they hold the label.

The rule that a study uses stands beside the others that it could have used, on the same training
images, so that the choice can be judged without the data set.
"""

import pandas as pd

from nlalib.datasets import TRAIN, dataset_parameters, load_dataset, training_candidates
from nlalib.methods import make_method
from nlalib.partial_labels import candidate_statistics
from nlalib.runs import RunConfig
from nlalib.studies import Study

# Rule and threshold; what each means stands in nlalib.partial_labels.
ALTERNATIVES = (
    *(("count", float(votes)) for votes in (1, 2, 3)),
    *(("share", share) for share in (0.1, 0.2, 0.3)),
    *(("mass", share) for share in (0.8, 0.9, 1.0)),
    *(("random", rate) for rate in (0.1, 0.3)),
)


def learns_from_candidates(config: RunConfig) -> bool:
    """Return whether the run's method learns from candidate sets."""
    return "candidates" in make_method(config.method, config.method_settings).needs


def study_candidates(study: Study) -> pd.DataFrame:
    """Return statistics of the candidate sets of a study's training images, by rule.

    Returns
    -------
    pandas.DataFrame
        A row for each data set, rule, threshold and class, and one for all classes. Columns
        `study`, `dataset`, `rule`, `threshold`, `used` (whether a run of the study learns from
        these sets), and those of `nlalib.partial_labels.candidate_statistics`, where the label
        is the one that the study's methods with labels learn from.
    """
    runs = [config for config in study.runs.values() if learns_from_candidates(config)]
    used = {(dataset_parameters(c), c.candidate_rule, c.candidate_threshold) for c in runs}
    tables = []
    for parameters, config in {dataset_parameters(c): c for c in runs}.items():
        index, _ = load_dataset(config)
        train = index[index["part"] == TRAIN]
        own = [(rule, threshold) for of, rule, threshold in used if of == parameters]
        for rule, threshold in sorted({*ALTERNATIVES, *own}):
            asked = RunConfig(
                **{**vars(config), "candidate_rule": rule, "candidate_threshold": threshold}
            )
            table = candidate_statistics(training_candidates(asked, train), train["label"])
            table = table.reset_index()
            table.insert(0, "used", (rule, threshold) in own)
            table.insert(0, "threshold", threshold)
            table.insert(0, "rule", rule)
            table.insert(0, "dataset", config.dataset)
            table.insert(0, "study", study.name)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)
