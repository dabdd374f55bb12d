"""Peer methods: each loss against plain loops, what each promises on a toy, and a short run."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from nlalib.data.pixels import image_array
from nlalib.data.splits import load_dataset
from nlalib.methods import METHODS, ModelOutput, TrainingSet, make_method
from nlalib.methods.class_balanced import effective_number_weights
from nlalib.methods.lnsu import rarity_weights, smooth_targets
from nlalib.methods.rul import PLACES, Head, mix
from nlalib.methods.scn import rank_regularisation
from nlalib.training.config import RunConfig
from nlalib.training.loop import train

PEERS = (
    "scn",
    "rul",
    "eac",
    "lnsu",
    "focal",
    "class_balanced",
    "logit_adjusted",
    "label_smoothing",
    "gce",
)
CLASSES, FEATURES, SAMPLES = 5, 6, 40
# Class 4 has no image.
TRAINING_LABELS = torch.tensor([0] * 20 + [1] * 12 + [2] * 7 + [3])
BATCHES = {"random": 12, "pair": 2, "one class": 8, "long": 30}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums are ordered by threads, and runs are compared bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(name: str, labels=TRAINING_LABELS, features=FEATURES, classes=CLASSES, **settings):
    """The method, set up from a seed."""
    method = make_method(name, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        method.setup(TrainingSet(labels, num_classes=classes, num_features=features))
    return method


def batch(kind: str, scale: float = 2.0, requires_grad: bool = False, side: int = 3) -> ModelOutput:
    """A hand-made output of the network, its labels those of the training set."""
    generator = torch.Generator().manual_seed(len(kind))
    count = BATCHES[kind]
    samples = torch.randperm(SAMPLES, generator=generator)[:count]
    if kind == "one class":
        samples = torch.randperm(20, generator=generator)[:count]

    def numbers(*shape):
        values = scale * torch.randn(*shape, generator=generator)
        return values.requires_grad_(requires_grad)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        classifier = nn.Linear(FEATURES, CLASSES)
    return ModelOutput(
        numbers(count, CLASSES),
        numbers(count, CLASSES),
        TRAINING_LABELS[samples],
        epoch=0,
        epochs=8,
        samples=samples,
        features=numbers(count, FEATURES),
        features_flipped=numbers(count, FEATURES),
        feature_map=numbers(count, FEATURES, side, side + 1),
        feature_map_flipped=numbers(count, FEATURES, side, side + 1),
        classifier=classifier,
    )


# Losses by hand: plain Python numbers, straight from the formulas.


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def rows_of(output: ModelOutput):
    return zip(output.logits.tolist(), output.labels.tolist(), strict=True)


def counts() -> list[int]:
    return [TRAINING_LABELS.tolist().count(c) for c in range(CLASSES)]


def focal_by_hand(output, method) -> float:
    probabilities = [softmax(row)[label] for row, label in rows_of(output)]
    return mean((1 - p) ** 2 * -math.log(p) for p in probabilities)


def class_balanced_by_hand(output, method) -> float:
    inverse = [(1 - 0.9999) / (1 - 0.9999**n) if n else 0.0 for n in counts()]
    weights = [value * 4 / sum(inverse) for value in inverse]  # four classes have images
    return mean(weights[label] * -math.log(softmax(row)[label]) for row, label in rows_of(output))


def logit_adjusted_by_hand(output, method) -> float:
    numbers = [max(n, 1) for n in counts()]
    prior = [math.log(n / sum(numbers)) for n in numbers]
    adjusted = [([z + a for z, a in zip(row, prior, strict=True)], y) for row, y in rows_of(output)]
    return mean(-math.log(softmax(row)[label]) for row, label in adjusted)


def label_smoothing_by_hand(output, method) -> float:
    total = []
    for row, label in rows_of(output):
        target = [0.9 * (c == label) + 0.1 / CLASSES for c in range(CLASSES)]
        total.append(-sum(t * math.log(p) for t, p in zip(target, softmax(row), strict=True)))
    return mean(total)


def gce_by_hand(output, method) -> float:
    return mean((1 - softmax(row)[label] ** 0.7) / 0.7 for row, label in rows_of(output))


def attention_by_hand(output, method) -> list[float]:
    weight, bias = method.attention.weight[0].tolist(), method.attention.bias.item()
    sums = [sum(w * x for w, x in zip(weight, row, strict=True)) for row in output.features]
    return [1 / (1 + math.exp(-(float(value) + bias))) for value in sums]


def scn_by_hand(output, method) -> float:
    alphas = attention_by_hand(output, method)
    entropy = mean(
        -math.log(softmax([alpha * z for z in row])[label])
        for alpha, (row, label) in zip(alphas, rows_of(output), strict=True)
    )
    ranked = sorted(alphas, reverse=True)
    high = {2: 1, 8: 6, 12: 8, 30: 21}[len(ranked)]  # 70 %, rounded
    return entropy + max(0.0, 0.15 - (mean(ranked[:high]) - mean(ranked[high:])))


def map_differences_by_hand(output) -> np.ndarray:
    """Squared difference of CAM and mirrored CAM, (N, K, h, w)."""
    weight = output.classifier.weight.detach().double().numpy()
    first, second = output.feature_map.double().numpy(), output.feature_map_flipped.double().numpy()
    count, _, height, width = first.shape
    squared = np.zeros((count, CLASSES, height, width))
    for n, c, y, x in np.ndindex(squared.shape):
        one = sum(weight[c, k] * first[n, k, y, x] for k in range(FEATURES))
        two = sum(weight[c, k] * second[n, k, y, width - 1 - x] for k in range(FEATURES))
        squared[n, c, y, x] = (one - two) ** 2
    return squared


def eac_by_hand(output, method) -> float:
    entropy = mean(-math.log(softmax(row)[label]) for row, label in rows_of(output))
    return entropy + 5 * map_differences_by_hand(output).mean()


def lnsu_by_hand(output, method) -> float:
    weights = [0.1 * SAMPLES / n if n else 0.0 for n in counts()]
    entropies = []
    for row, label in rows_of(output):
        others = sum(w for c, w in enumerate(weights) if c != label)
        target = [0.7 if c == label else 0.3 * w / others for c, w in enumerate(weights)]
        entropies.append(-sum(t * math.log(p) for t, p in zip(target, softmax(row), strict=True)))
    squared = map_differences_by_hand(output)
    consistency = mean(w * squared[:, c].mean() for c, w in enumerate(weights))
    return mean(entropies) + 0.1 * consistency


BY_HAND = {
    "scn": scn_by_hand,
    "eac": eac_by_hand,
    "lnsu": lnsu_by_hand,
    "focal": focal_by_hand,
    "class_balanced": class_balanced_by_hand,
    "logit_adjusted": logit_adjusted_by_hand,
    "label_smoothing": label_smoothing_by_hand,
    "gce": gce_by_hand,
}


# At the small scale attentions lie close together, so that SCN's ranking costs something.
@pytest.mark.parametrize("scale", [0.1, 2.0])
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", BY_HAND)
def test_loss_equals_a_plain_loop(name, kind, scale):
    method, output = made(name), batch(kind, scale)
    loss, _ = method(output)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(BY_HAND[name](output, method), rel=2e-5)


def head_by_hand(head: Head, feature_map: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Batch normalisation, dropout, linear layer, batch normalisation; (N, width)."""
    centred = feature_map - feature_map.mean(axis=(0, 2, 3), keepdims=True)
    normalised = centred / np.sqrt((centred**2).mean(axis=(0, 2, 3), keepdims=True) + 1e-5)
    dropped = np.where(kept, normalised / 0.6, 0.0)
    weight, bias = head.linear.weight.detach().double().numpy(), head.linear.bias.detach().numpy()
    projected = np.zeros((len(dropped), len(weight)))
    for n, d in np.ndindex(projected.shape):
        projected[n, d] = (dropped[n].ravel() * weight[d]).sum() + bias[d]
    centred = projected - projected.mean(axis=0)
    return centred / np.sqrt((centred**2).mean(axis=0) + 1e-5)


@pytest.mark.parametrize("kind", ["random", "one class", "long"])
def test_rul_equals_a_plain_loop(kind):
    method, output = made("rul", width=4), batch(kind)
    shape = (len(output.labels), FEATURES, PLACES, PLACES)
    output = replace(output, feature_map=torch.randn(shape, generator=torch.Generator()))
    loss, facts = method(output)

    draws = np.random.default_rng([method.seed.item(), output.epoch, output.samples[0].item()])
    partners = draws.permutation(len(output.labels))
    means, log_variances = (
        head_by_hand(head, output.feature_map.double().numpy(), draws.random(shape, "f4") >= 0.4)
        for head in (method.mean_head, method.variance_head)
    )
    uncertainty = [mean(math.exp(s) for s in row) for row in log_variances]
    weight = method.classifier.weight.detach().double().numpy()
    bias = method.classifier.bias.detach().numpy()
    total = []
    for i, j in enumerate(partners):
        mixed = uncertainty[i] * means[i] + uncertainty[j] * means[j]
        mixed /= uncertainty[i] + uncertainty[j]
        p = softmax([(row * mixed).sum() + b for row, b in zip(weight, bias, strict=True)])
        for label in (output.labels[i], output.labels[j]):
            total.append(-math.log(p[label]) / 2)
    assert loss.item() == pytest.approx(sum(total) / len(partners), rel=1e-4)
    assert facts["uncertainty"].tolist() == pytest.approx(uncertainty, rel=1e-4)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("scale", [1e4, 1e-6, 0.0])
@pytest.mark.parametrize("name", PEERS)
def test_extreme_outputs_give_finite_values_and_gradients(name, scale, kind):
    output, method = batch(kind, scale, requires_grad=True), made(name)
    loss, facts = method(output)
    assert torch.isfinite(loss)
    loss.backward()
    inputs = [output.logits, output.features, output.feature_map, output.feature_map_flipped]
    gradients = [t.grad for t in [*inputs, *method.parameters()] if t.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(torch.isfinite(values).all() for values in facts.values())


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("sign", [1, -1])
def test_certain_logits_are_finite(name, sign):
    """One class has all of the probability, the right one and the wrong one."""
    output = batch("random")
    logits = sign * 1e4 * functional.one_hot(output.labels, CLASSES).float()
    logits.requires_grad_()
    loss, _ = made(name)(replace(output, logits=logits))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", PEERS)
def test_training_set_of_one_class_is_no_obstacle(name):
    method = made(name, labels=torch.zeros(SAMPLES, dtype=torch.int64))
    output = batch("random", requires_grad=True)
    loss, _ = method(replace(output, labels=torch.zeros_like(output.labels)))
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", PEERS)
def test_facts_are_detached_and_one_number_a_sample(name):
    output = batch("random", requires_grad=True)
    _, facts = made(name)(output)
    for values in facts.values():
        assert values.shape == (12,)
        assert values.dtype == torch.float32
        assert not values.requires_grad
    weighing = {"scn", "focal", "class_balanced", "gce"}
    assert ("weight" in facts) == (name in weighing)


class TinyNetwork(nn.Module):
    """One convolution; returns what a backbone does."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, FEATURES, 3, stride=2)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images):
        feature_map = self.convolution(images).relu()
        features = feature_map.mean(dim=(2, 3))
        return self.fc(features), features, feature_map


@pytest.mark.parametrize("name", PEERS)
def test_bf16_autocast_forward_and_backward(name):
    torch.manual_seed(0)
    network, method, hand_made = TinyNetwork(), made(name), batch("random")
    images = torch.randn(12, 3, 9, 9)
    losses = {}
    for enabled in (True, False):
        network.zero_grad()
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
            loss, facts = method(output)
            assert method.eval().predict(output).shape == (12, CLASSES)
            method.train()
        assert loss.dtype == torch.float32
        assert all(values.dtype == torch.float32 for values in facts.values())
        loss.backward()
        assert torch.isfinite(network.convolution.weight.grad).all()
        assert network.convolution.weight.grad.abs().sum() > 0
        losses[enabled] = loss.item()
    assert losses[True] == pytest.approx(losses[False], rel=0.05)


# Settings.


@pytest.mark.parametrize(
    ("name", "setting", "bad"),
    [
        ("scn", "rank_margin", [-0.1, 1.1]),
        ("scn", "relabel_margin", [-0.1, 1.1]),
        ("scn", "high_share", [0, 1, 1.5]),
        ("scn", "relabel_from", [-1, 2]),
        ("rul", "dropout", [-0.1, 1, 1.0]),
        ("rul", "width", [0, -1, 1.5]),
        ("eac", "consistency_weight", [-1, float("inf")]),
        ("lnsu", "class_weight_scale", [0, -1]),
        ("lnsu", "label_share", [-0.1, 1.1]),
        ("lnsu", "consistency_weight", [-1]),
        ("focal", "gamma", [-0.5, float("inf")]),
        ("class_balanced", "beta", [-0.1, 1, 1.0]),
        ("logit_adjusted", "tau", [-0.1]),
        ("label_smoothing", "epsilon", [-0.1, 1.1]),
        ("gce", "q", [0, -0.1, 1.1]),
    ],
)
def test_settings_are_checked(name, setting, bad):
    for value in [*bad, "0.5", True, None, float("nan")]:
        with pytest.raises(ValueError, match=f"{setting} of {name} is .*; it (lies from|is a)"):
            make_method(name, {setting: value})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("scn", {"rank_margin": 0.5}),
        ("scn", {"high_share": 0.4}),
        ("rul", {"dropout": 0.1}),
        ("rul", {"width": 32}),
        ("eac", {"consistency_weight": 1.0}),
        ("lnsu", {"class_weight_scale": 0.5}),
        ("lnsu", {"label_share": 0.9}),
        ("lnsu", {"consistency_weight": 1.0}),
        ("focal", {"gamma": 1.0}),
        ("class_balanced", {"beta": 0.9}),
        ("logit_adjusted", {"tau": 0.5}),
        ("label_smoothing", {"epsilon": 0.2}),
        ("gce", {"q": 0.5}),
    ],
)
def test_setting_changes_the_loss(name, settings):
    output = batch("random", scale=0.1)
    assert made(name, **settings)(output)[0] != made(name)(output)[0]


# What each method promises. SCN:


def test_scn_relabels_a_planted_flip_and_nothing_else():
    """Two groups far apart; one sample of the first bears the label of the second."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(SAMPLES) % 2
    points = 0.5 * torch.randn(SAMPLES, 2, generator=generator) + 4.0 * truth[:, None] - 2.0
    given = truth.clone()
    given[6] = 1
    method, network = made("scn", given, features=2, classes=2), nn.Linear(2, 2)
    optimizer = torch.optim.Adam([*network.parameters(), *method.parameters()], lr=0.05)
    for epoch in range(40):
        loss, facts = method(
            ModelOutput(
                network(points),
                None,
                given,
                epoch=epoch,
                epochs=40,
                samples=torch.arange(SAMPLES),
                features=points,
            )
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch < 10:  # a quarter of 40
            assert torch.equal(method.stored_labels, given)
            assert facts["relabelled"].sum() == 0
    assert torch.equal(method.stored_labels, truth)
    assert facts["relabelled"].nonzero().flatten().tolist() == [6]
    assert torch.equal(facts["stored_label"], truth.float())


@pytest.mark.parametrize(("epochs", "first"), [(6, 2), (8, 2), (40, 10)])
def test_scn_relabels_from_a_share_of_the_epochs(epochs, first):
    output = batch("random", scale=20.0)
    changed = []
    for epoch in range(epochs):
        method = made("scn")
        method(replace(output, epoch=epoch, epochs=epochs))
        changed.append(not torch.equal(method.stored_labels, TRAINING_LABELS))
    assert changed == [epoch >= first for epoch in range(epochs)]


@pytest.mark.parametrize(("margin", "expected"), [(0.2, 1), (0.6, 0)])
def test_scn_relabels_beyond_the_margin_and_only_the_batch(margin, expected):
    """P = (0.75, 0.25) and (0.5, 0.5) at full attention: differences of 0.5 and 0."""
    given = torch.tensor([1, 1, 1])
    method = made("scn", given, features=1, classes=2, relabel_margin=margin, relabel_from=0.0)
    nn.init.constant_(method.attention.weight, 0.0)
    nn.init.constant_(method.attention.bias, 100.0)
    output = ModelOutput(
        torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]),
        None,
        given[:2],
        epoch=0,
        epochs=1,
        samples=torch.tensor([2, 0]),
        features=torch.zeros(2, 1),
    )
    first, facts = method(output)
    assert method.stored_labels.tolist() == [1, 1, 1 - expected]
    assert facts["relabelled"].tolist() == [expected, 0]
    # The next turn of the sample learns the stored label.
    second, _ = method(output)
    assert (second < first) == bool(expected)


def test_scn_attention_scales_logits_in_testing_too():
    method, output = made("scn"), batch("random")
    found = method.eval().predict(replace(output, labels=None, samples=None))
    attention = attention_by_hand(output, method)
    for row, alpha, logits in zip(found, attention, output.logits, strict=True):
        assert row.tolist() == pytest.approx([alpha * z for z in logits.tolist()], rel=1e-4)


def test_scn_records_its_own_predictions_of_the_given_labels():
    method, output = made("scn", relabel_from=0.0), batch("random", scale=20.0)
    _, facts = method(output)
    assert facts["relabelled"].sum() > 0
    alphas = attention_by_hand(output, method)
    assert facts["attention"].tolist() == pytest.approx(alphas, rel=1e-4)
    for n, (row, label) in enumerate(rows_of(output)):
        p = softmax([alphas[n] * z for z in row])
        assert facts["p_gt"][n].item() == pytest.approx(p[label], rel=1e-3, abs=1e-6)
        assert facts["predicted"][n].item() == p.index(max(p))


def test_rank_regularisation_is_zero_where_groups_lie_apart():
    apart = torch.tensor([0.9, 0.1, 0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9, 0.9])
    assert rank_regularisation(apart, 0.15, 0.7) == 0
    assert rank_regularisation(torch.full((10,), 0.5), 0.15, 0.7).item() == pytest.approx(0.15)


# RUL:


def test_rul_mixture_lies_towards_the_uncertain_one():
    mean_of = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    log_variance = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    mixed, uncertainty = mix(mean_of, log_variance, torch.tensor([1, 0]))
    share = math.exp(2) / (1 + math.exp(2))
    assert mixed.flatten().tolist() == pytest.approx([share] * 4)
    assert uncertainty.tolist() == pytest.approx([1.0, math.exp(2)])
    alone, _ = mix(mean_of, log_variance, torch.tensor([0, 1]))
    assert torch.equal(alone, mean_of)


def test_rul_draws_depend_on_seed_epoch_and_samples_alone():
    output = batch("long")
    states = []
    for other in (
        output,
        replace(output, epoch=1),
        replace(output, samples=output.samples.flip(0)),
    ):
        torch.manual_seed(len(states))  # no global state takes part
        loss, _ = made("rul")(other)
        np.random.seed(len(states))  # noqa: NPY002
        assert torch.equal(made("rul")(other)[0], loss)
        states.append(loss.item())
    assert len(set(states)) == 3
    other_seed = made("rul")
    other_seed.seed += 1
    assert other_seed(output)[0].item() not in states


def test_rul_drops_in_training_alone():
    torch.manual_seed(0)
    head = Head(FEATURES, 4, dropout=0.4)
    nn.init.constant_(head.linear.weight, 0.0)
    ones = torch.randn(200, FEATURES, PLACES, PLACES)
    # Each column looks at one place of one channel, so that what was dropped shows as the bias.
    head.norm = nn.Identity()
    nn.init.constant_(head.linear.bias, 9.0)
    head.linear.weight.data[:, :4] = torch.eye(4)
    dropped = (head(ones, np.random.default_rng(0)) == 9.0).float().mean()
    assert dropped.item() == pytest.approx(0.4, abs=0.06)
    assert not (head.eval()(ones, None) == 9.0).any()


@pytest.mark.parametrize("side", [1, 2, 3, 6, 7, 8])
def test_rul_head_fits_maps_of_every_size(side):
    """With equal weights in all places it sees the sum over places, whatever the size."""
    torch.manual_seed(0)
    head = Head(FEATURES, 4, dropout=0.0)
    by_channel = torch.randn(4, FEATURES)
    head.linear.weight.data = by_channel.repeat_interleave(PLACES**2, dim=1)
    head.norm = nn.Identity()
    feature_map = torch.randn(9, FEATURES, side, side)
    found = head(feature_map, None)
    normalised = functional.batch_norm(feature_map, None, None, training=True)
    expected = normalised.sum(dim=(2, 3)) @ by_channel.T + head.linear.bias
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_rul_learns_and_predicts_by_its_own_head():
    """The network's classifier takes no part: its logits are noise here."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(SAMPLES) % 3
    maps = torch.randn(SAMPLES, FEATURES, 2, 2, generator=generator)
    maps[torch.arange(SAMPLES), labels] += 3.0
    method = made("rul", labels, classes=3)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    noise = torch.randn(SAMPLES, 3, generator=generator)
    output = ModelOutput(
        noise, None, labels, epoch=0, epochs=30, samples=torch.arange(SAMPLES), feature_map=maps
    )
    for epoch in range(30):
        loss, facts = method(replace(output, epoch=epoch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = replace(output, labels=None, samples=None)
    found = method.eval().predict(unseen)
    assert torch.equal(found.argmax(dim=1), labels)
    # No dropout, no batch statistics: an image's logits do not depend on its place in the batch.
    reversed_order = method.predict(replace(unseen, feature_map=maps.flip(0)))
    torch.testing.assert_close(reversed_order.flip(0), found)
    assert (facts["predicted"] == labels).float().mean() > 0.9
    assert METHODS["rul"].lr_factor == 10


# EAC and LNSU:


@pytest.mark.parametrize("name", ["eac", "lnsu"])
def test_equivariant_maps_have_no_inconsistency(name):
    output = batch("random")
    same = replace(output, feature_map_flipped=output.feature_map.flip(3))
    assert made(name)(same)[1]["consistency"].abs().max() == 0
    unmirrored = replace(output, feature_map_flipped=output.feature_map)
    assert made(name)(unmirrored)[1]["consistency"].min() > 0
    assert METHODS[name].two_views


@pytest.mark.parametrize("name", ["eac", "lnsu"])
def test_consistency_moves_both_maps_but_not_the_classifier(name):
    output = batch("random", requires_grad=True)
    made(name)(output)[0].backward()
    assert output.feature_map.grad.abs().sum() > 0
    assert output.feature_map_flipped.grad.abs().sum() > 0
    assert output.classifier.weight.grad is None
    assert output.logits_flipped.grad is None


def test_lnsu_targets_favour_rare_classes():
    weights = rarity_weights(TRAINING_LABELS, CLASSES, 0.1)
    assert weights.tolist() == pytest.approx([0.2, 4 / 12, 4 / 7, 4.0, 0.0])
    targets = smooth_targets(weights, 0.7)
    assert targets.sum(dim=1).tolist() == pytest.approx([1.0] * CLASSES)
    assert targets.diagonal().tolist() == pytest.approx([0.7] * CLASSES)
    assert targets[0, 3] > targets[0, 2] > targets[0, 1] > targets[0, 4] == 0


def test_lnsu_spreads_evenly_where_no_other_class_has_images():
    weights = rarity_weights(torch.zeros(9, dtype=torch.int64), 4, 0.1)
    assert smooth_targets(weights, 0.7)[0].tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1])


# Generic answers to imbalance and to noise:


def plain(output: ModelOutput) -> torch.Tensor:
    return functional.cross_entropy(output.logits, output.labels)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("focal", {"gamma": 0}),
        ("class_balanced", {"beta": 0}),
        ("logit_adjusted", {"tau": 0}),
        ("label_smoothing", {"epsilon": 0}),
        ("gce", {"q": 1e-4}),
        ("eac", {"consistency_weight": 0}),
        ("lnsu", {"label_share": 1, "consistency_weight": 0}),
    ],
)
def test_limit_is_cross_entropy(name, settings):
    output = batch("long")
    assert made(name, **settings)(output)[0].item() == pytest.approx(plain(output).item(), rel=1e-3)


def test_focal_weight_falls_with_the_probability():
    logits = torch.tensor([[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    output = ModelOutput(logits, None, torch.zeros(3, dtype=torch.int64), epoch=0, epochs=1)
    weight = made("focal")(output)[1]["weight"].tolist()
    assert weight == pytest.approx([(1 - softmax(row)[0]) ** 2 for row in logits.tolist()])
    assert weight == sorted(weight, reverse=True)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-12])
def test_class_balanced_weights_are_normalised_and_ordered(beta):
    weights = effective_number_weights(TRAINING_LABELS, CLASSES, beta).tolist()
    assert sum(weights) == pytest.approx(4)  # classes with images
    assert weights[4] == 0
    assert weights[:4] == sorted(weights[:4])
    if beta == 1 - 1e-12:  # the limit: one over the number of images
        assert [w * n for w, n in zip(weights, counts(), strict=True)][:4] == pytest.approx(
            [weights[3]] * 4, rel=1e-3
        )


def test_class_balanced_fact_is_the_weight_of_the_label():
    output = batch("long")
    weights = effective_number_weights(TRAINING_LABELS, CLASSES, 0.9999)
    found = made("class_balanced")(output)[1]["weight"].tolist()
    assert found == [weights[label].item() for label in output.labels]


def test_logit_adjustment_lifts_the_recall_of_the_tail():
    """Two overlapping Gaussians, 19 to 1; a linear network; tested on as many of both."""
    generator = torch.Generator().manual_seed(0)

    def points_of(labels):
        return torch.randn(len(labels), 2, generator=generator) + 1.5 * labels[:, None]

    labels = (torch.arange(1000) % 20 == 0).long()
    points, test_labels = points_of(labels), torch.arange(1000) % 2
    test_points = points_of(test_labels)
    recall = {}
    for name in ("ce", "logit_adjusted"):
        torch.manual_seed(0)
        method, network = made(name, labels, features=2, classes=2), nn.Linear(2, 2)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        for _ in range(100):
            output = ModelOutput(network(points), None, labels, epoch=0, epochs=1)
            optimizer.zero_grad()
            method(output)[0].backward()
            optimizer.step()
        test = ModelOutput(network(test_points), None, None, epoch=0, epochs=1)
        hits = method.predict(test).argmax(dim=1) == test_labels
        recall[name] = [hits[test_labels == c].float().mean().item() for c in (0, 1)]
    assert recall["logit_adjusted"][1] > recall["ce"][1] + 0.2
    # The best linear border treats both alike.
    assert recall["logit_adjusted"][0] == pytest.approx(recall["logit_adjusted"][1], abs=0.1)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_gce_pulls_less_at_confidently_wrong_samples(q):
    """By p_y^q against cross-entropy, which is what the fact says."""
    gradients = {}
    for name, settings in (("ce", {}), ("gce", {"q": q})):
        logits = torch.tensor([[5.0, 0.0, -1.0], [0.0, 5.0, -1.0]], requires_grad=True)
        output = ModelOutput(logits, None, torch.tensor([1, 1]), epoch=0, epochs=1)
        loss, facts = made(name, **settings)(output)
        loss.backward()
        gradients[name] = logits.grad
    ratio = gradients["gce"] / gradients["ce"]
    for n, row in enumerate(logits.tolist()):
        expected = softmax(row)[1] ** q
        assert ratio[n].tolist() == pytest.approx([expected] * 3, rel=1e-3)
        assert facts["weight"][n].item() == pytest.approx(expected, rel=1e-3)
    assert ratio[0].max() < 0.3 < ratio[1].min()


# Resumption.


@pytest.mark.parametrize("name", PEERS)
def test_state_dict_goes_on_as_if_nothing_had_happened(name):
    """What a method remembers after some batches is in its state dict, and all of it."""

    def step(method, epoch, kind):
        return method(replace(batch(kind, scale=20.0), epoch=epoch))

    method = made(name)
    for epoch, kind in itertools.product((2, 3), ("random", "long")):
        step(method, epoch, kind)
    again = make_method(name)
    # Another run's labels of as many samples, and other random numbers.
    again.setup(TrainingSet(TRAINING_LABELS.flip(0), num_classes=CLASSES, num_features=FEATURES))
    again.load_state_dict(method.state_dict())
    (loss, facts), (loss_again, facts_again) = step(method, 4, "long"), step(again, 4, "long")
    assert torch.equal(loss, loss_again)
    for fact, values in facts.items():
        assert torch.equal(values, facts_again[fact])
    if name == "scn":
        assert not torch.equal(method.stored_labels, TRAINING_LABELS)


def test_only_scn_keeps_something_of_each_sample():
    assert [name for name in PEERS if METHODS[name].keeps_samples] == ["scn"]
    for name in PEERS:
        rows = [len(value) for value in made(name).buffers() if value.dim()]
        assert (SAMPLES in rows) == METHODS[name].keeps_samples


# Whole runs.


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A configuration of one epoch, and the index and images of 40 rendered training faces."""
    config = RunConfig(
        dataset="rendered",
        train_images=180,  # as many as it takes to hold out some of each class
        test_images=40,
        image_size=24,
        backbone="resnet10_narrow16_stride2",
        epochs=1,
        batch_size=16,
        device="cpu",
    )
    index, _ = load_dataset(config.data)
    index = index.groupby("part").head(40).reset_index(drop=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return config, index, np.array(image_array(index, root=Path("nowhere"), size=24))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_trains(name, faces, tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path))
    config, index, images = faces
    folder = train(replace(config, method=name), index, images)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert np.isfinite(metrics["train_loss"]).all()
    assert metrics["test_overall_accuracy"].between(0, 1).all()
    facts = pd.read_parquet(folder / "naw.parquet")
    assert len(facts) == (index["part"] == "train").sum()
    assert facts.notna().all(axis=None)


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["scn", "rul"])
def test_killed_run_ends_with_the_same_bits(name, faces, tmp_path, monkeypatch):
    config, index, images = faces
    settings = {"relabel_margin": 0.0, "relabel_from": 0.0} if name == "scn" else {}
    config = replace(config, method=name, method_settings=settings, epochs=2)
    folders = []
    for part in ("whole", "killed"):
        monkeypatch.setenv("NLA_RUNS", str(tmp_path / part))
        if part == "killed":

            def stop(line: str):
                if "epoch 1/" in line:
                    raise Killed

            with pytest.raises(Killed):
                train(config, index, images, report=stop)
            torch.manual_seed(99)  # no global state takes part
        folders.append(train(config, index, images))
    for file in ("metrics.csv", "naw.parquet", "weights.safetensors"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    if name == "scn":
        facts = pd.read_parquet(folders[0] / "naw.parquet").query("epoch == 0")
        assert facts["relabelled"].sum() > 0
