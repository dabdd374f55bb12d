"""What every method promises, whatever its loss."""

from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from method_batches import (
    BATCHES,
    CLASSES,
    EPOCHS,
    SAMPLES,
    TRAINING_SET,
    WIDTH,
    make_output,
    ready,
    three_turns,
    with_one_candidate,
)
from nlalib.methods import METHODS, Method, ModelOutput, make_method

every_method = pytest.mark.parametrize("name", sorted(METHODS))
methods_with_needs = pytest.mark.parametrize(
    "name", sorted(name for name, method in METHODS.items() if method.needs)
)


# --- losses and records -------------------------------------------------------------------------


def assert_sound(method: Method, output: ModelOutput) -> None:
    """A finite scalar with finite gradients; finite detached records, one number a sample."""
    loss, records = method(output)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    leaves = [getattr(output, field.name) for field in fields(output)]
    leaves = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    gradients = [leaf.grad for leaf in [*leaves, *method.parameters()] if leaf.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    for values in records.values():
        assert values.shape == output.labels.shape
        assert values.dtype == torch.float32
        assert not values.requires_grad
        assert torch.isfinite(values).all()


@every_method
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-6, 0.0])
@pytest.mark.parametrize("kind", BATCHES)
def test_every_scale_gives_finite_values_and_gradients_turn_after_turn(name, scale, kind):
    method = ready(name)
    for epoch in (0, 3, EPOCHS - 1):
        assert_sound(method, make_output(kind, epoch=epoch, seed=epoch, scale=scale))
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())


@every_method
@pytest.mark.parametrize("sign", [1, -1])
def test_certain_logits_give_finite_values_and_gradients(name, sign):
    """One class has all of the probability, the right one and the wrong one."""
    output = make_output()
    logits = sign * 1e4 * functional.one_hot(output.labels, CLASSES).float()
    views = logits.requires_grad_(), logits.detach().flip(0).requires_grad_()
    assert_sound(ready(name), replace(output, logits=views[0], logits_flipped=views[1]))


@every_method
def test_a_training_set_of_one_class_is_no_obstacle(name):
    labels = torch.zeros_like(TRAINING_SET.labels)
    training_set = with_one_candidate(replace(TRAINING_SET, labels=labels))
    assert_sound(ready(name, training_set), make_output(training_set=training_set))


class TinyNetwork(nn.Module):
    """One convolution; returns what a backbone does."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, WIDTH, 3, stride=2)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, images):
        feature_map = self.convolution(images).relu()
        features = feature_map.mean(dim=(2, 3))
        return self.fc(features), features, feature_map


@every_method
def test_bfloat16_autocast_changes_little_and_reaches_the_network(name):
    torch.manual_seed(0)
    network, hand_made = TinyNetwork(), make_output()
    images, losses = torch.randn(12, 3, 9, 9), {}
    for enabled in (True, False):
        network.zero_grad()
        method = ready(name)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits, features, feature_map = network(images)
            flipped = network(images.flip(3))
            assert feature_map.dtype == (torch.bfloat16 if enabled else torch.float32)
            output = replace(
                hand_made,
                logits=logits.float(),
                logits_flipped=flipped[0].float(),
                features=features,
                features_flipped=flipped[1],
                feature_map=feature_map,
                feature_map_flipped=flipped[2],
                classifier=network.fc,
            )
            loss, records = method(output)
            predicted = method.eval().predict(output)
        assert predicted.shape == (12, CLASSES)
        assert loss.dtype == predicted.dtype == torch.float32
        assert {values.dtype for values in records.values()} <= {torch.float32}
        loss.backward()
        assert torch.isfinite(network.convolution.weight.grad).all()
        assert network.convolution.weight.grad.abs().sum() > 0
        losses[enabled] = loss.item()
    assert losses[True] == pytest.approx(losses[False], rel=0.05)


@every_method
def test_global_random_numbers_are_left_alone(name):
    method, output = ready(name), make_output()
    state = torch.get_rng_state()
    method(output)
    method.predict(output)
    assert torch.equal(state, torch.get_rng_state())


# --- what a method remembers, and asks for ----------------------------------------------------


@every_method
def test_a_resumed_method_goes_on_as_if_never_stopped(name):
    """All that it remembers is in its state: labels, targets and random numbers are others here."""
    first, second, third = three_turns()
    kept = ready(name)
    kept(first)
    kept(second)
    others = {
        field: getattr(TRAINING_SET, field).flip(0) for field in ("labels", "votes", "candidates")
    }
    torch.manual_seed(99)
    resumed = make_method(name)
    resumed.setup(replace(TRAINING_SET, **others))
    resumed.load_state_dict(kept.state_dict())
    (loss, records), (loss_resumed, records_resumed) = kept(third), resumed(third)
    assert torch.equal(loss, loss_resumed)
    assert records.keys() == records_resumed.keys()
    assert all(torch.equal(records[key], records_resumed[key]) for key in records)
    state, state_resumed = kept.state_dict(), resumed.state_dict()
    assert all(torch.equal(state[key], state_resumed[key]) for key in state)


@every_method
def test_memory_of_single_samples_is_declared(name):
    method = ready(name)
    rows = [value for value in method.buffers() if value.shape[:1] == (SAMPLES,)]
    assert bool(rows) == method.keeps_samples


@every_method
def test_views_votes_and_candidates_are_used_where_they_are_declared(name):
    method, output = ready(name), make_output()
    missing = dict.fromkeys({"votes", "candidates"} - set(method.needs))
    if not method.two_views:
        missing |= dict.fromkeys(("logits_flipped", "features_flipped", "feature_map_flipped"))
    loss, _ = method(replace(output, **missing))
    again, _ = ready(name)(output)
    assert torch.equal(loss, again)


@methods_with_needs
def test_a_training_set_without_what_is_needed_is_refused(name):
    needed = make_method(name).needs[0]
    with pytest.raises(ValueError, match=f"the training set has no {needed}, which"):
        ready(name, replace(TRAINING_SET, **{needed: None}))
    values = getattr(TRAINING_SET, needed).clone()
    values[5] = 0
    with pytest.raises(ValueError, match=r"1 samples have no .* first sample 5"):
        ready(name, replace(TRAINING_SET, **{needed: values}))


@pytest.mark.parametrize(
    ("name", "setting"), [(name, s) for name in sorted(METHODS) for s in METHODS[name].settings()]
)
def test_settings_of_another_kind_are_refused_by_name(name, setting):
    for value in ("0.5", float("nan"), 2 + 1j):
        with pytest.raises(ValueError, match=f"{setting} of {name} is "):
            make_method(name, {setting: value})


# --- what reports ask a method ----------------------------------------------------------------


@every_method
def test_detectors_are_records_of_the_method_and_say_low_or_high(name):
    _, records = ready(name)(make_output())
    detectors = METHODS[name].detectors
    assert set(detectors) <= set(records)
    assert set(detectors.values()) <= {"low", "high"}
    # Whatever weighs a sample or doubts it is declared.
    assert set(detectors) >= {"weight", "attention", "uncertainty"} & set(records)
    assert not METHODS[name].weight_adds_to_one or "weight" in detectors


def loss_by_its_weight(name: str, settings: dict, factor_of) -> tuple[float, float]:
    """The loss of a batch with sure votes and one candidate each, and the weighted mean of CE."""
    training_set = with_one_candidate()
    output = make_output(training_set=training_set)
    loss, records = ready(name, training_set, **settings)(output)
    entropies = functional.cross_entropy(output.logits, output.labels, reduction="none")
    return loss.item(), (factor_of(records["weight"]) * entropies).mean().item()


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
    method, output = ready(name, **settings), make_output()
    output = replace(output, logits=output.classifier(output.features))
    network, own = {"fc.weight": output.classifier.weight}, dict(method.named_parameters())
    # A report asks a method that was never set up.
    vectors = make_method(name, settings).class_vectors(network, own)
    assert len(vectors) == CLASSES
    method.eval().predict(output)[:, 0].sum().backward()
    assert vectors.grad.abs().sum() > 0


# --- what a CUDA graph forbids ------------------------------------------------------------------

# Reading a number, or a shape that depends on values, waits for the device.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal"}


class Waiting(TorchDispatchMode):
    """Notes operations that a recording forbids; those show on the CPU as well."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            place is not None and place.dtype == torch.bool for place in args[1]
        )
        if by_mask or name in WAITS:
            self.found.add(name)
        return operation(*args, **(kwargs or {}))


@every_method
@pytest.mark.parametrize("epoch", [0, EPOCHS - 1])
def test_a_step_waits_for_no_value_but_where_its_partners_are_drawn(monkeypatch, name, epoch):
    # PyTorch's own looks at the values on the CPU alone, for better words on a wrong class.
    monkeypatch.setattr(
        functional, "one_hot", lambda labels, classes: labels[:, None].eq(torch.arange(classes)) * 1
    )
    method, output = ready(name), make_output(epoch=epoch)
    with Waiting() as waiting:
        loss, _ = method(output)
        loss.backward()
    assert bool(waiting.found) == (name == "rul"), waiting.found


def test_a_wait_is_seen():
    for wait in (
        lambda values: values[values > 0],
        lambda values: float(values[0]),
        lambda values: values.nonzero(),
    ):
        with Waiting() as waiting:
            wait(torch.ones(3))
        assert waiting.found
