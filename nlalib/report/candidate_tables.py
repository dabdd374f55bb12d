"""A study's candidate label sets, described: how large they are and what they hold.

The rule that a study uses stands beside the others that it could have used, on the same training
images, so that the choice can be judged without the data set.
"""

import numpy as np
import pandas as pd

from nlalib.data.candidates import VOTE_RULES, candidate_statistics
from nlalib.data.index import VOTE_COLUMNS
from nlalib.data.label_sources import RULE
from nlalib.data.splits import (
    TRAIN,
    class_votes,
    load_dataset,
    training_candidates,
)
from nlalib.report.studies import Study
from nlalib.training.config import RunConfig

# Rule and threshold; what each means stands in nlalib.data.candidates.
ALTERNATIVES = (
    *(("count", float(votes)) for votes in (1, 2, 3)),
    *(("share", share) for share in (0.1, 0.2, 0.3)),
    *(("mass", share) for share in (0.8, 0.9, 1.0)),
    *(("random", rate) for rate in (0.1, 0.3)),
)


def learns_from_candidates(config: RunConfig) -> bool:
    """Return whether the run's method learns from candidate sets."""
    from nlalib.methods import make_method  # PyTorch takes seconds; the tables need none

    return "candidates" in make_method(config.method, config.method_settings).needs


def study_candidates(study: Study) -> pd.DataFrame:
    """Return statistics of the candidate sets of a study's training images, by rule.

    Returns
    -------
    pandas.DataFrame
        A row for each data set, rule, threshold and class, and one for all classes. Columns
        `study`, `dataset`, `rule`, `threshold`, `used` (whether a run of the study learns from
        these sets), those of `nlalib.data.candidates.candidate_statistics`, where the label is the
        one that the study's methods with labels learn from, and `votes_covered`: the share of the
        votes for the classes that is for candidates; NaN for a data set without votes.
    """
    runs = [config for config in study.runs.values() if learns_from_candidates(config)]
    tables = []
    for parameters in dict.fromkeys(config.data for config in runs):
        same = [config for config in runs if config.data == parameters]
        index, _ = load_dataset(parameters)
        train = index[index["part"] == TRAIN]
        labels = train["label"].to_numpy()
        has_votes = set(VOTE_COLUMNS) <= set(train)
        votes = class_votes(train, same[0].num_classes) if has_votes else None
        # By rule and threshold; a run of the study stands behind its own.
        asked = {(c.candidate_rule, c.candidate_threshold): c for c in same}
        used = set(asked)
        for rule, threshold in ALTERNATIVES:
            if has_votes or rule not in VOTE_RULES:
                change = {"candidate_rule": rule, "candidate_threshold": threshold}
                # Only described, so the votes may be looked at where a run with noise may not.
                change |= {"candidate_scores": "", "noise_rate": 0.0, "noise_kind": "symmetric"}
                change |= {"label_source": RULE}
                other = RunConfig(**{**vars(same[0]), **change})
                asked.setdefault((rule, threshold), other)
        for rule, threshold in sorted(asked):
            config = asked[rule, threshold]
            candidates = training_candidates(config.data, config.candidates, train)
            table = candidate_statistics(candidates, labels).reset_index()
            table["votes_covered"] = _votes_covered(candidates, votes, labels)
            which = {"study": study.name, "dataset": config.dataset, "rule": rule}
            which |= {"threshold": threshold, "used": (rule, threshold) in used}
            tables.append(table.assign(**which)[[*which, *table]])
    return pd.concat(tables, ignore_index=True)


def _votes_covered(
    candidates: np.ndarray, votes: np.ndarray | None, labels: np.ndarray
) -> list[float]:
    """Return the share of the votes that is for candidates, for each class's images and for all."""
    classes = candidates.shape[1]
    if votes is None:
        return [float("nan")] * (classes + 1)
    counts = pd.DataFrame({"inside": (votes * candidates).sum(axis=1), "given": votes.sum(axis=1)})
    sums = counts.groupby(labels).sum().reindex(range(classes))
    return [*(sums["inside"] / sums["given"]), counts["inside"].sum() / counts["given"].sum()]
