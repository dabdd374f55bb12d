"""Metrics against plain loops, and the three rules that pick an epoch."""

import math

import numpy as np
import pandas as pd
import pytest

from nlalib.evaluation import SELECTION_RULES, classification_metrics, selected_epoch
from nlalib.labels import expressions


def probabilities_of(seed: int, number: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, classes, number), generator.dirichlet(np.ones(classes), number)


def by_hand(labels, probabilities, classes: int) -> dict[str, float]:
    predicted = [row.index(max(row)) for row in probabilities.tolist()]
    pairs = list(zip(labels.tolist(), predicted, strict=True))
    recalls, f1 = {}, []
    for c in range(classes):
        hit = sum(label == guess == c for label, guess in pairs)
        occurs = sum(label == c for label, _ in pairs)
        guessed = sum(guess == c for _, guess in pairs)
        recalls[c] = hit / occurs if occurs else math.nan
        f1.append(2 * hit / (occurs + guessed) if occurs + guessed else 0.0)
    there = [recall for recall in recalls.values() if not math.isnan(recall)]
    likelihood = [-math.log(row[c]) for row, c in zip(probabilities, labels, strict=True)]
    return {
        "overall_accuracy": sum(label == guess for label, guess in pairs) / len(pairs),
        "mean_accuracy": sum(there) / len(there),
        "worst_class_recall": min(there),
        "macro_f1": sum(f1) / classes,
        "nll": sum(likelihood) / len(likelihood),
        **{f"recall_{name}": recalls[c] for c, name in enumerate(expressions(classes))},
    }


@pytest.mark.parametrize("classes", [7, 8])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_plain_loops(seed, classes):
    labels, probabilities = probabilities_of(seed, 200, classes)
    found = classification_metrics(labels, probabilities, classes)
    assert found == pytest.approx(by_hand(labels, probabilities, classes))


def test_absent_class_has_no_recall_and_no_say_in_the_mean():
    labels, probabilities = probabilities_of(0, 200, 8)
    labels[labels == 7] = 0
    found = classification_metrics(labels, probabilities, 8)
    assert math.isnan(found["recall_contempt"])
    assert found == pytest.approx(by_hand(labels, probabilities, 8), nan_ok=True)
    recalls = [found[f"recall_{name}"] for name in expressions(7)]
    assert found["mean_accuracy"] == pytest.approx(sum(recalls) / 7)


def test_two_images_by_hand():
    """One right with .6, one of another class taken for the first: overall and mean are 1/2."""
    probabilities = np.array([[0.6, 0.4, 0, 0, 0, 0, 0], [0.7, 0.3, 0, 0, 0, 0, 0]])
    found = classification_metrics(np.array([0, 1]), probabilities, 7)
    assert found["overall_accuracy"] == found["mean_accuracy"] == 0.5
    assert found["worst_class_recall"] == 0
    assert found["recall_surprise"] == 1
    assert found["macro_f1"] == pytest.approx((2 / 3) / 7)
    assert found["nll"] == pytest.approx(-(math.log(0.6) + math.log(0.3)) / 2)


def test_impossible_label_costs_much_but_not_everything():
    probabilities = np.eye(7)[[0, 0]]
    found = classification_metrics(np.array([0, 1]), probabilities, 7)
    assert found["nll"] == pytest.approx(-math.log(1e-12) / 2)


@pytest.fixture
def metrics() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epoch": [0, 1, 2, 3],
            "validation_overall_accuracy": [0.1, 0.6, 0.6, 0.2],
            "test_overall_accuracy": [0.1, 0.2, 0.7, 0.7],
            "test_mean_accuracy": [0.9, 0.2, 0.1, 0.9],
        }
    )


def test_rules_pick_their_epoch_and_the_first_of_equals(metrics):
    assert {rule: selected_epoch(metrics, rule) for rule in SELECTION_RULES} == {
        "last": 3,
        "best_validation": 1,
        "best_test": 2,
    }
    assert selected_epoch(metrics, "best_test", "mean_accuracy") == 0


def test_epoch_is_the_recorded_one_and_no_position(metrics):
    assert selected_epoch(metrics.iloc[1:], "best_validation") == 1
    assert selected_epoch(metrics.iloc[1:], "best_test") == 2


def test_unknown_rule_lists_the_known(metrics):
    with pytest.raises(ValueError, match="unknown selection rule 'best'; known are last, best_val"):
        selected_epoch(metrics, "best")
