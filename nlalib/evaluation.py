"""Metrics of predictions, and the rules that pick an epoch."""

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, recall_score

from nlalib.labels import expressions

SELECTION_RULES = ("last", "best_validation", "best_test")


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, num_classes: int
) -> dict[str, float]:
    """Return the metrics of one set of predictions.

    Parameters
    ----------
    labels : numpy.ndarray, (N,) int
    probabilities : numpy.ndarray, (N, num_classes) float
    num_classes : int

    Returns
    -------
    dict of float, fractions
        `overall_accuracy`; `mean_accuracy`, the mean of the recalls of the classes that occur;
        `worst_class_recall`; `macro_f1`, the mean over all `num_classes` classes, where one
        that neither occurs nor is predicted counts as 0; `recall_<expression>`, NaN for a class
        that does not occur; and `nll`, the mean negative log-likelihood in nats, with
        probabilities below 1e-12 taken as 1e-12.
    """
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(num_classes)
    recalls = recall_score(labels, predicted, labels=classes, average=None, zero_division=np.nan)
    true_probability = probabilities[np.arange(len(labels)), labels]
    return {
        "overall_accuracy": accuracy_score(labels, predicted),
        "mean_accuracy": float(np.nanmean(recalls)),
        "worst_class_recall": float(np.nanmin(recalls)),
        "macro_f1": f1_score(labels, predicted, labels=classes, average="macro", zero_division=0),
        "nll": float(-np.log(np.maximum(true_probability, 1e-12)).mean()),
        **{
            f"recall_{name}": float(recall)
            for name, recall in zip(expressions(num_classes), recalls, strict=True)
        },
    }


def selected_epoch(metrics: pd.DataFrame, rule: str, metric: str = "overall_accuracy") -> int:
    """Return the epoch (counted from 0) that a selection rule picks; the first of equals.

    Parameters
    ----------
    metrics : pandas.DataFrame
        One row an epoch: `epoch`, `validation_<metric>`, `test_<metric>`.
    rule : {"last", "best_validation", "best_test"}
        "best_test" looks at the test set, as the released code of NLA and of its peers does.
        It is kept beside the others to show what that is worth; it is no fair estimate.
    metric : str
        What "best" refers to.

    Raises
    ------
    ValueError
        For an unknown rule.
    """
    if rule not in SELECTION_RULES:
        raise ValueError(f"unknown selection rule {rule!r}; known are {', '.join(SELECTION_RULES)}")
    if rule == "last":
        return int(metrics["epoch"].iloc[-1])
    column = f"{rule.removeprefix('best_')}_{metric}"
    return int(metrics["epoch"].iloc[metrics[column].to_numpy().argmax()])
