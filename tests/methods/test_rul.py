"""RUL against a plain loop; its draws, its heads, what it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from method_batches import SAMPLES, WIDTH, make_output, mean, of_labels, ready, softmax
from nlalib.methods import METHODS, ModelOutput, make_method
from nlalib.methods.rul import PLACES, Head, mix


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
    method, output = ready("rul", width=4), make_output(kind)
    shape = (len(output.labels), WIDTH, PLACES, PLACES)
    output = replace(output, feature_map=torch.randn(shape, generator=torch.Generator()))
    loss, records = method(output)

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
    assert records["uncertainty"].tolist() == pytest.approx(uncertainty, rel=1e-4)


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
    output = make_output("long")
    states = []
    for other in (
        output,
        replace(output, epoch=1),
        replace(output, samples=output.samples.flip(0)),
    ):
        torch.manual_seed(len(states))  # no global state takes part
        loss, _ = ready("rul")(other)
        np.random.seed(len(states))  # noqa: NPY002
        assert torch.equal(ready("rul")(other)[0], loss)
        states.append(loss.item())
    assert len(set(states)) == 3
    other_seed = ready("rul")
    other_seed.seed += 1
    assert other_seed(output)[0].item() not in states


def test_rul_drops_in_training_alone():
    torch.manual_seed(0)
    head = Head(WIDTH, 4, dropout=0.4)
    nn.init.constant_(head.linear.weight, 0.0)
    ones = torch.randn(200, WIDTH, PLACES, PLACES)
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
    head = Head(WIDTH, 4, dropout=0.0)
    by_channel = torch.randn(4, WIDTH)
    head.linear.weight.data = by_channel.repeat_interleave(PLACES**2, dim=1)
    head.norm = nn.Identity()
    feature_map = torch.randn(9, WIDTH, side, side)
    found = head(feature_map, None)
    normalised = functional.batch_norm(feature_map, None, None, training=True)
    expected = normalised.sum(dim=(2, 3)) @ by_channel.T + head.linear.bias
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_rul_learns_and_predicts_by_its_own_head():
    """The network's classifier takes no part: its logits are noise here."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(SAMPLES) % 3
    maps = torch.randn(SAMPLES, WIDTH, 2, 2, generator=generator)
    maps[torch.arange(SAMPLES), labels] += 3.0
    method = ready("rul", of_labels(labels, 3))
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    noise = torch.randn(SAMPLES, 3, generator=generator)
    output = ModelOutput(
        noise, None, labels, epoch=0, epochs=30, samples=torch.arange(SAMPLES), feature_map=maps
    )
    for epoch in range(30):
        loss, records = method(replace(output, epoch=epoch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = replace(output, labels=None, samples=None)
    found = method.eval().predict(unseen)
    assert torch.equal(found.argmax(dim=1), labels)
    # No dropout, no batch statistics: an image's logits do not depend on its place in the batch.
    reversed_order = method.predict(replace(unseen, feature_map=maps.flip(0)))
    torch.testing.assert_close(reversed_order.flip(0), found)
    assert (records["predicted"] == labels).float().mean() > 0.9
    assert METHODS["rul"].lr_factor == 10


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("dropout", value) for value in (-0.1, 1, 1.0)],
        *[("width", value) for value in (0, -1, 1.5)],
    ],
)
def test_settings_outside_their_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"{setting} of rul is .*; it (lies from|is a)"):
        make_method("rul", {setting: value})


@pytest.mark.parametrize("settings", [{"dropout": 0.1}, {"width": 32}])
def test_settings_change_the_loss(settings):
    output = make_output()
    assert ready("rul", **settings)(output)[0] != ready("rul")(output)[0]
