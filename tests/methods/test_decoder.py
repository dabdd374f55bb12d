"""The decoder against a plain loop, head by head, and its limits."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional

from method_batches import (
    CLASSES,
    WIDTH,
    ready,
    rows_of,
    share_within,
    softmax,
    three_turns,
    with_one_candidate,
)
from method_toys import blobs, train
from nlalib.data.candidates import random_candidates
from nlalib.methods import TrainingSet, make_method
from nlalib.methods.decoder import uniformity_loss


def decode_by_hand(decoder, feature_map):
    """The decoder for one image, with the attention written out head by head."""
    tokens = feature_map.flatten(1).T  # (h w, D)
    embeddings, attention = decoder.label_embeddings, decoder.attention
    query, key, value = (
        x @ w.T + b
        for x, w, b in zip(
            (embeddings, tokens, tokens),
            attention.in_proj_weight.chunk(3),
            attention.in_proj_bias.chunk(3),
            strict=True,
        )
    )
    heads, size = attention.num_heads, WIDTH // attention.num_heads
    attended = torch.zeros(CLASSES, WIDTH)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for c in range(CLASSES):
            scores = softmax([(query[c, part] @ k).item() / math.sqrt(size) for k in key[:, part]])
            attended[c, part] = sum(s * v for s, v in zip(scores, value[:, part], strict=True))
    a = decoder.norm_attended(embeddings + attention.out_proj(attended))
    d = decoder.norm_decoded(a + decoder.mlp(a))
    return [decoder.score(row).item() for row in d]


def test_decoder_by_hand_over_three_turns():
    method = ready("decoder", momentum=0.7, uniformity=0.3, heads=2)
    stored = {}
    for batch in three_turns():
        scores = [decode_by_hand(method.label_decoder, each) for each in batch.feature_map]
        torch.testing.assert_close(method.predict(batch), torch.tensor(scores))
        loss, records = method(batch)
        total, identified = 0.0, []
        for sample, z, (_, _, members, _, _) in zip(
            batch.samples.tolist(), scores, rows_of(batch), strict=True
        ):
            p = softmax(z)
            even = [float(c in members) / len(members) for c in range(CLASSES)]
            target = stored.get(sample, even)
            total -= sum(q * math.log(value) for q, value in zip(target, p, strict=True))
            within = share_within(p, members)
            stored[sample] = [0.7 * q + 0.3 * w for q, w in zip(target, within, strict=True)]
            identified.append(max(members, key=lambda c: stored[sample][c]))
        apart = uniformity_by_hand(method.label_decoder.label_embeddings.tolist())
        expected = total / len(batch.labels) + 0.3 * apart
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        assert records["identified"].tolist() == identified
    for sample, target in stored.items():
        assert method.targets[sample].tolist() == pytest.approx(target, rel=1e-4)


def uniformity_by_hand(embeddings: list[list[float]]) -> float:
    units = [[x / math.hypot(*row) for x in row] for row in embeddings]
    terms = [math.exp(-2 * math.dist(a, b) ** 2) for a, b in combinations(units, 2)]
    return math.log(sum(terms) / len(terms))


def test_linear_head_without_memory_and_uniformity_is_proden():
    linear = ready("decoder", decoder=False, momentum=0.0, uniformity=0.0)
    proden = ready("proden")
    for batch in three_turns():
        torch.testing.assert_close(linear(batch)[0], proden(batch)[0])
        assert linear.predict(batch) is batch.logits
    torch.testing.assert_close(linear.targets, proden.targets)
    assert not list(linear.parameters())


def test_linear_head_keeps_the_rows_of_its_weight_apart(output):
    with_term = ready("decoder", decoder=False, uniformity=0.5)
    without = ready("decoder", decoder=False, uniformity=0.0)
    difference = (with_term(output)[0] - without(output)[0]).item()
    by_hand = 0.5 * uniformity_by_hand(output.classifier.weight.tolist())
    assert difference == pytest.approx(by_hand, rel=1e-4)


def test_uniformity_spreads_embeddings_to_a_simplex():
    torch.manual_seed(0)
    embeddings = (torch.ones(4, 6) + 0.1 * torch.randn(4, 6)).requires_grad_()
    start = uniformity_loss(embeddings).item()
    optimizer = torch.optim.Adam([embeddings], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        uniformity_loss(embeddings).backward()
        optimizer.step()
    assert start > -0.5
    assert uniformity_loss(embeddings).item() == pytest.approx(-4 * 4 / 3, abs=0.01)
    cosines = functional.cosine_similarity(embeddings[:, None], embeddings, dim=2)
    torch.testing.assert_close(
        cosines[~torch.eye(4).bool()], torch.full((12,), -1 / 3), atol=0.02, rtol=0
    )
    alike = torch.ones(3, 2, requires_grad=True)
    uniformity_loss(alike).backward()
    assert uniformity_loss(alike).item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(alike.grad).all()


def test_one_candidate_gives_the_decoder_the_cross_entropy_of_its_scores(output):
    certain = with_one_candidate()
    batch = replace(output, candidates=certain.candidates[output.samples])
    method = ready("decoder", certain, uniformity=0.0)
    for _ in range(2):  # also after the targets were replaced
        expected = functional.cross_entropy(method.predict(batch), batch.labels)
        torch.testing.assert_close(method(batch)[0], expected)


def test_the_decoder_finds_the_truth_in_one_token_of_four():
    features, truth = blobs(400)
    candidates = torch.from_numpy(random_candidates(truth.numpy(), CLASSES, 0.5, seed=1))
    generator = torch.Generator().manual_seed(4)
    tokens = 0.1 * torch.randn(len(truth), WIDTH, 4, generator=generator)
    place = torch.randint(0, 4, (len(truth),), generator=generator)
    tokens[torch.arange(len(truth)), :2, place] += features
    training_set = TrainingSet(truth, CLASSES, WIDTH, candidates=candidates)
    method = ready("decoder", training_set)
    torch.manual_seed(0)
    model = nn.Linear(2, CLASSES)  # its logits are not what is learnt here
    feature_map = tokens.unflatten(2, (2, 2))
    records = train(method, model, features, truth, training_set, 50, 0.02, feature_map)
    assert records["disambiguated"].mean() > 0.9
    assert (records["predicted"] == truth).float().mean() > 0.9
    assert model.weight.grad is None


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads of decoder is 3, which does not divide D = 8"):
        ready("decoder", heads=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum of decoder is 1"),
        ({"uniformity": "yes"}, "uniformity of decoder is 'yes'"),
        ({"decoder": 1}, "decoder of decoder is 1"),
        ({"heads": 0}, "heads of decoder is 0"),
        ({"heads": 2, "decoder": False}, "decoder=False has none"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("decoder", settings)
