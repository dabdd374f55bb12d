"""SCN against a plain loop; its attention, its ranks, and when it relabels."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from method_batches import (
    BATCHES,
    SAMPLES,
    TRAINING_SET,
    make_output,
    mean,
    of_labels,
    ready,
    rows_of,
    softmax,
)
from nlalib.methods import ModelOutput, make_method
from nlalib.methods.scn import rank_regularisation


def attention_by_hand(output, method) -> list[float]:
    weight, bias = method.attention.weight[0].tolist(), method.attention.bias.item()
    sums = [
        sum(w * x for w, x in zip(weight, row, strict=True)) for row in output.features.tolist()
    ]
    return [1 / (1 + math.exp(-(value + bias))) for value in sums]


# At the small scale attentions lie close together, so that the ranking costs something.
@pytest.mark.parametrize("scale", [0.05, 1.0])
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(
    ("settings", "margin", "numbers"),
    [
        ({}, 0.15, {2: 1, 8: 6, 12: 8, 30: 21}),  # 70 % of the batch, rounded
        ({"rank_margin": 0.5}, 0.5, {2: 1, 8: 6, 12: 8, 30: 21}),
        ({"high_share": 0.4}, 0.15, {2: 1, 8: 3, 12: 5, 30: 12}),
    ],
)
def test_loss_equals_a_plain_loop(settings, margin, numbers, kind, scale):
    method, output = ready("scn", **settings), make_output(kind, scale=scale)
    alphas = attention_by_hand(output, method)
    entropy = mean(
        -math.log(softmax([alpha * z for z in row.z])[row.label])
        for alpha, row in zip(alphas, rows_of(output), strict=True)
    )
    ranked, high = sorted(alphas, reverse=True), numbers[len(alphas)]
    expected = entropy + max(0.0, margin - (mean(ranked[:high]) - mean(ranked[high:])))
    assert method(output)[0].item() == pytest.approx(expected, rel=2e-5)


def test_a_planted_flip_is_relabelled_and_nothing_else():
    """Two groups far apart; one sample of the first bears the label of the second."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(SAMPLES) % 2
    points = 0.5 * torch.randn(SAMPLES, 2, generator=generator) + 4.0 * truth[:, None] - 2.0
    given = truth.clone()
    given[6] = 1
    torch.manual_seed(0)
    method, network = ready("scn", of_labels(given, 2, 2)), nn.Linear(2, 2)
    optimizer = torch.optim.Adam([*network.parameters(), *method.parameters()], lr=0.05)
    for epoch in range(40):
        loss, records = method(
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
            assert records["relabelled"].sum() == 0
    assert torch.equal(method.stored_labels, truth)
    assert records["relabelled"].nonzero().flatten().tolist() == [6]
    assert torch.equal(records["stored_label"], truth.float())


@pytest.mark.parametrize(("epochs", "first"), [(6, 2), (8, 2), (40, 10)])
def test_relabelling_begins_after_a_share_of_the_epochs(epochs, first):
    output = make_output(scale=10)
    changed = []
    for epoch in range(epochs):
        method = ready("scn")
        method(replace(output, epoch=epoch, epochs=epochs))
        changed.append(not torch.equal(method.stored_labels, TRAINING_SET.labels))
    assert changed == [epoch >= first for epoch in range(epochs)]


# P = (0.75, 0.25) and (0.5, 0.5) at full attention: differences of 0.5 and 0. At half attention
# the logits are half as large, and P = (0.634, 0.366): a difference of 0.268.
@pytest.mark.parametrize(
    ("attention", "margin", "expected"),
    [(1.0, 0.2, 1), (1.0, 0.6, 0), (0.5, 0.2, 1), (0.5, 0.3, 0)],
)
def test_labels_are_replaced_beyond_the_margin_and_only_in_the_batch(attention, margin, expected):
    given = torch.tensor([1, 1, 1])
    settings = {"relabel_margin": margin, "relabel_from": 0.0}
    method = ready("scn", of_labels(given, 2, 1), **settings)
    nn.init.constant_(method.attention.weight, 0.0)
    nn.init.constant_(method.attention.bias, 100.0 if attention == 1 else 0.0)
    output = ModelOutput(
        torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]),
        None,
        given[:2],
        epoch=0,
        epochs=1,
        samples=torch.tensor([2, 0]),
        features=torch.zeros(2, 1),
    )
    first, records = method(output)
    assert method.stored_labels.tolist() == [1, 1, 1 - expected]
    assert records["relabelled"].tolist() == [expected, 0]
    # The next turn of the sample learns the stored label.
    second, _ = method(output)
    assert (second < first) == bool(expected)


def test_attention_scales_logits_in_testing_too():
    method, output = ready("scn"), make_output()
    found = method.eval().predict(replace(output, labels=None, samples=None))
    attention = attention_by_hand(output, method)
    for row, alpha, logits in zip(found, attention, output.logits, strict=True):
        assert row.tolist() == pytest.approx([alpha * z for z in logits.tolist()], rel=1e-4)


def test_recorded_are_own_predictions_of_the_given_labels():
    method, output = ready("scn", relabel_from=0.0), make_output(scale=10)
    _, records = method(output)
    assert records["relabelled"].sum() > 0
    alphas = attention_by_hand(output, method)
    assert records["attention"].tolist() == pytest.approx(alphas, rel=1e-4)
    for n, row in enumerate(rows_of(output)):
        p = softmax([alphas[n] * z for z in row.z])
        assert records["p_gt"][n].item() == pytest.approx(p[row.label], rel=1e-3, abs=1e-6)
        assert records["predicted"][n].item() == p.index(max(p))


def test_relabelled_state_goes_on_in_another_method():
    """The contract resumes every method; here labels have really been replaced before."""
    method = ready("scn", relabel_from=0.0)
    method(make_output("long", scale=10))
    assert not torch.equal(method.stored_labels, TRAINING_SET.labels)
    again = ready("scn", relabel_from=0.0)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.stored_labels, method.stored_labels)


def test_rank_regularisation_is_zero_where_groups_lie_apart():
    apart = torch.tensor([0.9, 0.1, 0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9, 0.9])
    assert rank_regularisation(apart, 0.15, 0.7) == 0
    assert rank_regularisation(torch.full((10,), 0.5), 0.15, 0.7).item() == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("rank_margin", value) for value in (-0.1, 1.1)],
        *[("relabel_margin", value) for value in (-0.1, 1.1)],
        *[("high_share", value) for value in (0, 1, 1.5)],
        *[("relabel_from", value) for value in (-1, 2)],
    ],
)
def test_settings_outside_their_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"{setting} of scn is .*; it lies from"):
        make_method("scn", {setting: value})
