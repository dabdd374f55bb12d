"""What every method promises, whatever its loss."""

from dataclasses import replace

import pytest
from torch.nn import functional

from method_batches import CLASSES, make_output, make_training_set, ready
from nlalib.methods import METHODS, make_method

every_method = pytest.mark.parametrize("name", sorted(METHODS))


# --- what reports ask a method ----------------------------------------------------------------


@every_method
def test_detectors_are_facts_of_the_method_and_say_low_or_high(name):
    training_set = make_training_set()
    _, facts = ready(name, training_set)(make_output(training_set, [4, 9, 2, 7]))
    detectors = METHODS[name].detectors
    assert set(detectors) <= set(facts)
    assert set(detectors.values()) <= {"low", "high"}
    # Whatever weighs a sample or doubts it is declared.
    assert set(detectors) >= {"weight", "attention", "uncertainty"} & set(facts)
    assert not METHODS[name].weight_adds_to_one or "weight" in detectors


def loss_by_its_weight(name: str, settings: dict, factor_of) -> tuple[float, float]:
    """The loss of a batch with sure votes and one candidate each, and the weighted mean of CE."""
    training_set = make_training_set()
    one = functional.one_hot(training_set.labels, CLASSES)
    training_set = replace(training_set, votes=10.0 * one, candidates=one.bool())
    output = make_output(training_set, [4, 9, 2, 7])
    loss, facts = ready(name, training_set, **settings)(output)
    entropies = functional.cross_entropy(output.logits, output.labels, reduction="none")
    return loss.item(), (factor_of(facts["weight"]) * entropies).mean().item()


def test_weight_adds_to_one_where_the_loss_says_so():
    """With lambda = 1 the loss is mean((1 + w) CE); focal's and the class's weight multiply."""
    adds = {name for name, method in METHODS.items() if method.weight_adds_to_one}
    assert adds == {"nla", "nla_candidates", "nla_soft"}
    for name in adds:
        found, expected = loss_by_its_weight(name, {"trade_off": 1.0}, lambda w: 1 + w)
        assert found == pytest.approx(expected, rel=1e-4)
    for name in ("focal", "class_balanced"):
        found, expected = loss_by_its_weight(name, {}, lambda w: w)
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in sorted(METHODS)), ("decoder", {"decoder": False})],
)
def test_class_vectors_are_what_predictions_depend_on(name, settings):
    training_set = make_training_set()
    method = ready(name, training_set, **settings)
    output = make_output(training_set, [4, 9, 2, 7])
    output = replace(output, logits=output.classifier(output.features))
    network, own = {"fc.weight": output.classifier.weight}, dict(method.named_parameters())
    # A report asks a method that was never set up.
    vectors = make_method(name, settings).class_vectors(network, own)
    assert len(vectors) == CLASSES
    method.eval().predict(output)[:, 0].sum().backward()
    assert vectors.grad.abs().sum() > 0
