"""Metrics against plain loops, and the three rules that pick an epoch."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, pearsonr, spearmanr

from nlalib.data.labels import expressions
from nlalib.metrics import (
    ONE_EPOCH_RULES,
    SELECTION_RULES,
    agreement_accuracies,
    classification_metrics,
    expected_calibration_error,
    picked_epochs,
    selective_risks,
    vote_metrics,
)


def probabilities_of(seed: int, number: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, classes, number), generator.dirichlet(np.ones(classes), number)


def mean_average_precision(labels, probabilities, classes: int) -> float:
    """Of each class that occurs: the mean, over its images, of the precision down to that image."""
    found = []
    for c in range(classes):
        order = sorted(range(len(labels)), key=lambda n: -probabilities[n][c])
        hits, precisions = 0, []
        for rank, n in enumerate(order, 1):
            if labels[n] == c:
                hits += 1
                precisions.append(hits / rank)
        if precisions:
            found.append(sum(precisions) / len(precisions))
    return sum(found) / len(found)


def calibration_error(pairs, confidences) -> float:
    """Fifteen bins, each (n/15, (n+1)/15]."""
    total = 0.0
    for b in range(15):
        inside = [
            (label == guess, confidence)
            for (label, guess), confidence in zip(pairs, confidences, strict=True)
            if b / 15 < confidence <= (b + 1) / 15
        ]
        if inside:
            accuracy = sum(right for right, _ in inside) / len(inside)
            confidence = sum(confidence for _, confidence in inside) / len(inside)
            total += len(inside) / len(pairs) * abs(accuracy - confidence)
    return total


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
    truths = [[float(label == c) for c in range(classes)] for label in labels]
    squares = [
        sum((p - t) ** 2 for p, t in zip(row, truth, strict=True))
        for row, truth in zip(probabilities, truths, strict=True)
    ]
    likelihood = [-math.log(row[c]) for row, c in zip(probabilities, labels, strict=True)]
    return {
        "overall_accuracy": sum(label == guess for label, guess in pairs) / len(pairs),
        "mean_accuracy": sum(there) / len(there),
        "worst_class_recall": min(there),
        "macro_f1": sum(f1) / classes,
        "mean_average_precision": mean_average_precision(labels, probabilities, classes),
        "brier": sum(squares) / len(squares),
        "ece": calibration_error(pairs, [max(row) for row in probabilities.tolist()]),
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


def test_calibration_of_known_cases():
    """Sure and right costs nothing, sure and wrong everything; half right at .6 costs .1."""
    labels = np.zeros(4, dtype=int)
    sure = np.eye(7)[[0, 0, 0, 0]]
    assert expected_calibration_error(labels, sure) == 0
    assert expected_calibration_error(labels + 1, sure) == 1
    level = np.tile([0.6, 0.4, 0, 0, 0, 0, 0], (4, 1))
    assert expected_calibration_error(np.array([0, 0, 1, 1]), level) == pytest.approx(0.1)


def test_brier_score_of_known_cases():
    sure = np.eye(7)[[2, 2]]
    assert classification_metrics(np.array([2, 2]), sure, 7)["brier"] == 0
    assert classification_metrics(np.array([3, 3]), sure, 7)["brier"] == 2


@pytest.mark.parametrize("seed", range(3))
def test_vote_metrics_equal_scipys_image_by_image(seed):
    generator = np.random.default_rng(seed)
    votes = generator.multinomial(10, generator.dirichlet(np.ones(7)), 40).astype(np.float32)
    votes[3] = 0
    _, probabilities = probabilities_of(seed, 40, 7)
    divergences, correlations = [], []
    for row, predicted in zip(votes, probabilities, strict=True):
        if row.sum():
            divergences.append(entropy(row, predicted))
            correlations.append(spearmanr(row, predicted).statistic)
    found = vote_metrics(votes, probabilities)
    assert found["kl_to_votes"] == pytest.approx(sum(divergences) / 39, rel=1e-5)
    assert found["vote_rank_correlation"] == pytest.approx(sum(correlations) / 39)


def test_votes_that_are_predicted_exactly():
    votes = np.array([[8.0, 2, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 3, 6]])
    found = vote_metrics(votes, votes / 10)
    assert found["kl_to_votes"] == pytest.approx(0, abs=1e-9)
    assert found["vote_rank_correlation"] == pytest.approx(1)
    level = vote_metrics(np.vstack([votes, np.ones(7)]), np.vstack([votes, np.arange(7)]) / 10)
    assert level["vote_rank_correlation"] == pytest.approx(1)  # no order to agree with


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
    assert {rule: picked_epochs(metrics, rule) for rule in SELECTION_RULES} == {
        "last": [3],
        "best_validation": [1],
        "last_five": [0, 1, 2, 3],  # of four
        "best_test": [2],
    }
    assert picked_epochs(metrics, "best_test", "mean_accuracy") == [0]
    longer = pd.concat([metrics, metrics], ignore_index=True).assign(epoch=range(8))
    assert picked_epochs(longer, "last_five") == [3, 4, 5, 6, 7]
    for rule in ONE_EPOCH_RULES:
        assert len(picked_epochs(longer, rule)) == 1


def test_epoch_is_the_recorded_one_and_no_position(metrics):
    assert picked_epochs(metrics.iloc[1:], "best_validation") == [1]
    assert picked_epochs(metrics.iloc[1:], "best_test") == [2]


def test_unknown_rule_lists_the_known(metrics):
    with pytest.raises(ValueError, match="unknown selection rule 'best'; known are last, best_val"):
        picked_epochs(metrics, "best")


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    """0.6 is the upper edge of the ninth of 15 bins: it shares that bin with 0.58."""
    probabilities = np.array([[0.6, 0.4], [0.58, 0.42]])
    # Right and wrong: apart they would cost (0.4 + 0.58) / 2, together |0.5 - 0.59|.
    found = expected_calibration_error(np.array([0, 1]), probabilities)
    assert found == pytest.approx(0.09)


@pytest.mark.parametrize("seed", range(3))
def test_agreement_with_votes_image_by_image(seed):
    generator = np.random.default_rng(seed)
    votes = generator.multinomial(10, generator.dirichlet(np.ones(7)), 40).astype(np.float32)
    _, probabilities = probabilities_of(seed, 40, 7)
    weights = generator.integers(1, 4, 40)
    rows = [
        {
            "manhattan_to_votes": sum(abs(v / 10 - p) for v, p in zip(row, predicted, strict=True)),
            "jsd_to_votes": jensenshannon(row, predicted) ** 2,
            "kl_to_votes": entropy(row, predicted),
            "people": entropy(row),
            "network": entropy(predicted),
        }
        for row, predicted in zip(votes, probabilities, strict=True)
    ]
    # An image of weight 3 counts as if it stood there three times.
    for given, repeated in (
        (None, rows),
        (weights, [r for r, n in zip(rows, weights, strict=True) for _ in range(n)]),
    ):
        table = pd.DataFrame(repeated)
        found = vote_metrics(votes, probabilities, given)
        for name in ("manhattan_to_votes", "jsd_to_votes", "kl_to_votes"):
            assert found[name] == pytest.approx(table[name].mean(), rel=1e-5)
        expected = pearsonr(table["people"], table["network"]).statistic
        assert found["vote_entropy_correlation"] == pytest.approx(expected, rel=1e-5)


def test_predictions_far_from_the_votes_and_on_them():
    votes = np.array([[8.0, 2, 0], [0, 0, 10]])
    found = vote_metrics(votes, votes / 10)
    assert found["manhattan_to_votes"] == found["jsd_to_votes"] == 0
    assert found["vote_entropy_correlation"] == pytest.approx(1)
    apart = vote_metrics(votes, np.array([[0, 0, 1.0], [1.0, 0, 0]]))
    assert apart["manhattan_to_votes"] == 2
    assert apart["jsd_to_votes"] == pytest.approx(math.log(2))
    assert math.isnan(apart["vote_entropy_correlation"])  # always equally sure


def test_accuracy_by_agreement_of_the_annotators():
    votes = np.array([[10, 0, 0], [9, 1, 0], [7, 0, 3], [6, 4, 0], [4, 3, 3], [3, 3, 3]])
    labels, predicted = np.zeros(6, int), np.array([0, 0, 1, 0, 1, 2])
    found = agreement_accuracies(labels, votes, predicted)
    expected = {"10": (1, 1 / 6), "7_to_9": (1 / 2, 1 / 3), "4_to_6": (1 / 2, 1 / 3)}
    expected["below_4"] = (0, 1 / 6)
    for name, (accuracy, share) in expected.items():
        assert found[f"accuracy_{name}"] == pytest.approx(accuracy)
        assert found[f"share_{name}"] == pytest.approx(share)
    weighted = agreement_accuracies(labels, votes, predicted, np.array([1, 3, 1, 1, 1, 1]))
    assert weighted["accuracy_7_to_9"] == pytest.approx(3 / 4)
    assert math.isnan(agreement_accuracies(labels[:1], votes[:1], predicted[:1])["accuracy_4_to_6"])


def test_risk_at_each_coverage_of_the_surest():
    confidence = np.array([0.95, 0.9, 0.8, 0.7, 0.65, 0.6, 0.58, 0.56, 0.54, 0.52])
    wrong = np.array([0, 0, 1, 0, 0, 1, 0, 1, 1, 1])
    order = np.random.default_rng(0).permutation(10)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)[order]
    found = selective_risks(wrong[order], probabilities)
    risks = [wrong[: n + 1].mean() for n in range(10)]
    assert [found[f"risk_at_{c}"] for c in range(10, 101, 10)] == pytest.approx(risks)
    assert found["aurc"] == pytest.approx(np.mean(risks))


def test_equal_confidences_count_in_every_order_alike():
    wrong, probabilities = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    orders = itertools.permutations(range(3))
    sorted_ones = [o for o in orders if o[0] == 0]
    expected = np.mean([[wrong[list(o)][: n + 1].mean() for n in range(3)] for o in sorted_ones])
    assert selective_risks(wrong, probabilities)["aurc"] == pytest.approx(expected)
    assert selective_risks(np.array([0, 1]), np.full((2, 2), 0.5))["aurc"] == pytest.approx(0.5)
