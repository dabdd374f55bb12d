"""Methods that learn from votes and candidate sets: plain loops, limits, toy problems."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional

from nlalib.data.candidates import random_candidates
from nlalib.methods import ModelOutput, TrainingSet, make_method
from nlalib.methods.decoder import uniformity_loss
from nlalib.methods.nla.weights import weight_at
from nlalib.methods.targets import probabilities_within

CLASSES, WIDTH, SAMPLES = 5, 8, 24
FROM_CANDIDATES = ["cc", "rc", "proden", "pico", "cavl", "lws", "decoder", "nla_candidates"]
FROM_VOTES = ["ldl", "uncertainty", "self_distillation", "nla_soft"]
EVERY = FROM_CANDIDATES + FROM_VOTES


def make_training_set(samples: int = SAMPLES, seed: int = 0) -> TrainingSet:
    generator = torch.Generator().manual_seed(seed)
    votes = torch.randint(0, 4, (samples, CLASSES), generator=generator).float()
    votes[:, 1] += 1
    candidates = torch.rand((samples, CLASSES), generator=generator) < 0.4
    labels = torch.randint(0, CLASSES, (samples,), generator=generator)
    candidates[torch.arange(samples), labels] = True
    return TrainingSet(labels, CLASSES, WIDTH, votes, candidates)


def make_output(training_set: TrainingSet, samples: list[int], epoch=3, seed=1) -> ModelOutput:
    """A batch of random numbers; logits and features are leaves with gradients."""
    generator = torch.Generator().manual_seed(seed)
    n = len(samples)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    classifier = nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        classifier.weight.copy_(draw(CLASSES, WIDTH))
    return ModelOutput(
        logits=(2 * draw(n, CLASSES)).requires_grad_(),
        logits_flipped=(2 * draw(n, CLASSES)).requires_grad_(),
        labels=training_set.labels[samples],
        epoch=epoch,
        epochs=10,
        samples=torch.tensor(samples),
        features=draw(n, WIDTH).requires_grad_(),
        features_flipped=draw(n, WIDTH),
        feature_map=draw(n, WIDTH, 2, 2).requires_grad_(),
        classifier=classifier,
        votes=training_set.votes[samples],
        candidates=training_set.candidates[samples],
    )


def ready(name: str, training_set: TrainingSet, **settings):
    torch.manual_seed(0)
    method = make_method(name, settings)
    method.setup(training_set)
    return method


def with_one_candidate(training_set: TrainingSet) -> TrainingSet:
    one = functional.one_hot(training_set.labels, CLASSES)
    return replace(training_set, candidates=one.bool(), votes=10.0 * one)


def with_all_candidates(training_set: TrainingSet) -> TrainingSet:
    return replace(training_set, candidates=torch.ones_like(training_set.candidates))


def softmax(row) -> list[float]:
    highest = max(row)
    exponentials = [math.exp(value - highest) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def rows_of(output: ModelOutput):
    """(logits, p, candidates, vote shares, label) of each sample, as lists."""
    for logits, candidates, votes, label in zip(
        output.logits.tolist(),
        output.candidates.tolist(),
        output.votes.tolist(),
        output.labels.tolist(),
        strict=True,
    ):
        members = [c for c in range(CLASSES) if candidates[c]]
        yield logits, softmax(logits), members, [v / sum(votes) for v in votes], label


def share_within(p: list[float], members: list[int]) -> list[float]:
    held = sum(p[c] for c in members)
    return [p[c] / held if c in members else 0.0 for c in range(CLASSES)]


def jsd(z, z_flipped) -> float:
    p, q = softmax(z), softmax(z_flipped)
    return sum(
        a * math.log(2 * a / (a + b)) / 2 + b * math.log(2 * b / (a + b)) / 2
        for a, b in zip(p, q, strict=True)
    )


@pytest.fixture
def training_set() -> TrainingSet:
    return make_training_set()


@pytest.fixture
def output(training_set) -> ModelOutput:
    return make_output(training_set, [3, 0, 17, 8, 23, 11])


# --- plain loops ---------------------------------------------------------------------------


def test_cc_by_hand(training_set, output):
    loss, facts = ready("cc", training_set)(output)
    by_hand = [-math.log(sum(p[c] for c in members)) for _, p, members, _, _ in rows_of(output)]
    assert loss.item() == pytest.approx(sum(by_hand) / 6, rel=1e-5)
    identified = [max(members, key=lambda c: p[c]) for _, p, members, _, _ in rows_of(output)]
    assert facts["identified"].tolist() == identified
    labels = output.labels.tolist()
    assert facts["disambiguated"].tolist() == [
        float(a == b) for a, b in zip(identified, labels, strict=True)
    ]


@pytest.mark.parametrize(("epoch", "uniform_epochs"), [(0, 1), (1, 1), (1, 2), (0, 0)])
def test_rc_by_hand(training_set, output, epoch, uniform_epochs):
    method = ready("rc", training_set, uniform_epochs=uniform_epochs)
    loss, _ = method(replace(output, epoch=epoch))
    total = 0.0
    for _, p, members, _, _ in rows_of(output):
        even = [float(c in members) / len(members) for c in range(CLASSES)]
        weights = even if epoch < uniform_epochs else share_within(p, members)
        total -= sum(w * math.log(value) for w, value in zip(weights, p, strict=True))
    assert loss.item() == pytest.approx(total / 6, rel=1e-5)


def test_rc_has_the_gradient_of_cc_after_the_uniform_epochs(training_set, output):
    gradients = []
    for name in ("rc", "cc"):
        loss, _ = ready(name, training_set)(output)
        gradients.append(torch.autograd.grad(loss, output.logits)[0])
    torch.testing.assert_close(*gradients)


def three_turns(training_set: TrainingSet) -> list[ModelOutput]:
    """The same and other samples again, with other logits each time."""
    return [
        make_output(training_set, samples, epoch, seed=epoch)
        for epoch, samples in enumerate([[0, 1, 2, 3], [2, 3, 4], [3, 2, 0, 5]])
    ]


def test_proden_by_hand_over_three_turns(training_set):
    method, stored = ready("proden", training_set), {}
    for batch in three_turns(training_set):
        loss, facts = method(batch)
        total, identified = 0.0, []
        for sample, (_, p, members, _, _) in zip(
            batch.samples.tolist(), rows_of(batch), strict=True
        ):
            even = [float(c in members) / len(members) for c in range(CLASSES)]
            target = stored.get(sample, even)
            total -= sum(q * math.log(value) for q, value in zip(target, p, strict=True))
            stored[sample] = share_within(p, members)
            identified.append(max(members, key=lambda c: p[c]))
        assert loss.item() == pytest.approx(total / len(batch.labels), rel=1e-5)
        assert facts["identified"].tolist() == identified
    for sample, target in stored.items():
        assert method.targets[sample].tolist() == pytest.approx(target, rel=1e-5)


def contrast_by_hand(own, positives, others) -> float:
    """C of one sample, from its embedding and lists of embeddings."""
    shares = [math.exp(sum(own * b).item() / 0.07) for b in others]
    attracted = [math.exp(sum(own * a).item() / 0.07) / sum(shares) for a in positives]
    return -sum(math.log(share) for share in attracted) / max(len(attracted), 1)


def test_pico_by_hand_over_three_turns(training_set):
    """The first turn of three is warm-up; the queue of 6 places turns over."""
    method = ready("pico", training_set, weight=0.3, warm_up=0.1, prototype_momentum=0.9, queue=6)
    stored, queue = {}, []
    prototypes = [torch.zeros(128)] * CLASSES
    for batch in three_turns(training_set):
        with torch.no_grad():
            u, v = (
                [x / x.norm() for x in method.head(features)]
                for features in (batch.features, batch.features_flipped)
            )
        rows = list(rows_of(batch))
        pseudo = [max(members, key=lambda c: p[c]) for _, p, members, _, _ in rows]
        phi = 0.95 - 0.15 * batch.epoch / 9
        loss, facts = method(batch)
        total, contrasts = 0.0, []
        for i, (_, p, members, _, _) in enumerate(rows):
            sample = int(batch.samples[i])
            even = [float(c in members) / len(members) for c in range(CLASSES)]
            target = stored.get(sample, even)
            if batch.epoch >= 1:
                nearest = max(members, key=lambda c: sum(u[i] * prototypes[c]).item())
                target = [phi * q + (1 - phi) * (c == nearest) for c, q in enumerate(target)]
                labelled = [(u[j], pseudo[j]) for j in range(len(u)) if j != i]
                labelled += [*zip(v, pseudo, strict=True), *queue]
                positives = [a for a, label in labelled if label == pseudo[i]]
            else:
                labelled = [(v[i], None), *queue]
                positives = [v[i]]
            contrasts.append(contrast_by_hand(u[i], positives, [a for a, _ in labelled]))
            stored[sample] = target
            total -= sum(q * math.log(value) for q, value in zip(target, p, strict=True))
            total += 0.3 * contrasts[-1]
        assert loss.item() == pytest.approx(total / len(rows), rel=1e-4)
        assert facts["contrast"].tolist() == pytest.approx(contrasts, rel=1e-4)
        # While targets are even, none is settled for: y' says what the network sees.
        targets = [stored[sample] for sample in batch.samples.tolist()]
        settled = [target.index(max(target)) for target in targets] if batch.epoch else pseudo
        assert facts["identified"].tolist() == settled
        for embedding, c in zip(u, pseudo, strict=True):
            prototypes[c] = 0.9 * prototypes[c] + 0.1 * embedding
        prototypes = [x / x.norm() if x.any() else x for x in prototypes]
        torch.testing.assert_close(method.prototypes, torch.stack(prototypes))
        queue = [*queue, *zip(v, pseudo, strict=True)][-6:]
    for sample, target in stored.items():
        assert method.targets[sample].tolist() == pytest.approx(target, rel=1e-5)


def test_pico_learns_from_the_first_view_alone(training_set, output):
    flipped = output.features_flipped.clone().requires_grad_()
    method = ready("pico", training_set)
    loss, _ = method(replace(output, features_flipped=flipped))
    loss.backward()
    assert flipped.grad is None
    assert output.features.grad.abs().sum() > 0


@pytest.mark.parametrize(("warm_up", "own_alone"), [(1.0, True), (0.0, False)])
def test_pico_draws_images_of_one_pseudo_label_together_after_warm_up(
    training_set, warm_up, own_alone
):
    """Two images, one pseudo-label; the second view of each is the other's first."""
    batch = make_output(training_set, [0, 1])
    both = torch.zeros(2, CLASSES, dtype=torch.bool)
    both[:, 2] = True
    features = batch.features.detach()
    batch = replace(batch, candidates=both, features_flipped=features.flip(0))
    method = ready("pico", training_set, warm_up=warm_up)
    _, facts = method(batch)
    # Alone, the own second view is the only one to choose from, so C is 0.
    assert (facts["contrast"].abs().max() < 1e-6) == own_alone


def test_cavl_by_hand_over_three_turns(training_set):
    method, stored = ready("cavl", training_set), {}
    for batch in three_turns(training_set):
        loss, _ = method(batch)
        total = 0.0
        for sample, (z, p, members, _, _) in zip(
            batch.samples.tolist(), rows_of(batch), strict=True
        ):
            even = [float(c in members) / len(members) for c in range(CLASSES)]
            target = stored.get(sample, even)
            total -= sum(q * math.log(value) for q, value in zip(target, p, strict=True))
            highest = max(members, key=lambda c: z[c] * abs(1 - z[c]))
            stored[sample] = [float(c == highest) for c in range(CLASSES)]
        assert loss.item() == pytest.approx(total / len(batch.labels), rel=1e-5)


def test_cavl_takes_a_candidate_also_where_all_activations_are_negative(training_set, output):
    negative = replace(output, logits=-3.0 - output.logits.detach().abs())
    method = ready("cavl", training_set)
    method(negative)
    targets = method.targets[negative.samples]
    assert (targets[negative.candidates.logical_not()] == 0).all()
    assert targets.sum(dim=1).tolist() == [1.0] * 6


@pytest.mark.parametrize("leverage", [0.0, 1.0, 2.0])
def test_lws_by_hand_over_three_turns(training_set, leverage):
    method, stored = ready("lws", training_set, leverage=leverage), {}
    for batch in three_turns(training_set):
        loss, _ = method(batch)
        total = 0.0
        for sample, (z, p, members, _, _) in zip(
            batch.samples.tolist(), rows_of(batch), strict=True
        ):
            weights = stored.get(sample, [1 / CLASSES] * CLASSES)
            others = [c for c in range(CLASSES) if c not in members]
            total += sum(weights[c] / (1 + math.exp(z[c])) for c in members)
            total += leverage * sum(weights[c] / (1 + math.exp(-z[c])) for c in others)
            inside = share_within(p, members)
            outside = share_within(p, others) if others else [0.0] * CLASSES
            stored[sample] = [a + b for a, b in zip(inside, outside, strict=True)]
        assert loss.item() == pytest.approx(total / len(batch.labels), rel=1e-5)


def kl(targets, p) -> float:
    return sum(q * math.log(q / value) for q, value in zip(targets, p, strict=True) if q > 0)


def test_ldl_by_hand(training_set, output):
    loss, facts = ready("ldl", training_set)(output)
    by_hand = [kl(shares, p) for _, p, _, shares, _ in rows_of(output)]
    assert loss.item() == pytest.approx(sum(by_hand) / 6, rel=1e-5)
    assert facts["kl_to_votes"].tolist() == pytest.approx(by_hand, rel=1e-4)


def test_uncertainty_by_hand(training_set, output):
    method = ready("uncertainty", training_set, draws=4)
    with torch.no_grad():
        method.scale.weight.normal_(generator=torch.Generator().manual_seed(2))
    loss, facts = method(output)
    total, means = 0.0, []
    for number, (z, _, _, shares, _) in enumerate(rows_of(output)):
        raw = method.scale.weight @ output.features[number] + method.scale.bias
        scales = [math.log(1 + math.exp(value)) for value in raw.tolist()]
        noise = method.noise[(int(output.samples[number]) + 97 * output.epoch) % 256].tolist()
        expected = [0.0] * CLASSES
        for draw in noise:
            p = softmax([a + s * e for a, s, e in zip(z, scales, draw, strict=True)])
            expected = [a + b / 4 for a, b in zip(expected, p, strict=True)]
        total -= sum(q * math.log(value) for q, value in zip(shares, expected, strict=True))
        means.append(sum(scales) / CLASSES)
    assert loss.item() == pytest.approx(total / 6, rel=1e-5)
    assert facts["uncertainty"].tolist() == pytest.approx(means, rel=1e-5)


def test_uncertainty_predicts_the_mean_over_its_draws(training_set, output):
    method = ready("uncertainty", training_set, draws=3)
    predicted = method.predict(replace(output, labels=None, samples=None)).exp()
    scale = math.log(1 + math.exp(-1))
    for row, z in zip(predicted.tolist(), output.logits.tolist(), strict=True):
        draws = [
            softmax([a + scale * e for a, e in zip(z, noise, strict=True)])
            for noise in method.noise[:16].reshape(-1, CLASSES).tolist()
        ]
        assert len(draws) == 48
        assert row == pytest.approx([sum(column) / 48 for column in zip(*draws, strict=True)], 1e-4)


def test_self_distillation_by_hand_over_three_turns(training_set):
    method = ready("self_distillation", training_set, weight=2.0, momentum=0.6, ramp=0.2)
    history = {}
    for batch in three_turns(training_set):
        loss, facts = method(batch)
        ramp = math.exp(-5 * (1 - batch.epoch / 2) ** 2) if batch.epoch < 2 else 1.0
        total, to_teacher = 0.0, []
        for sample, (_, p, _, shares, _) in zip(
            batch.samples.tolist(), rows_of(batch), strict=True
        ):
            past = history.setdefault(sample, [])
            # Weights 0.4 * 0.6^age of what was said before, divided by their sum.
            ages = [0.6 ** (len(past) - 1 - turn) for turn in range(len(past))]
            teacher = [
                sum(age * said[c] for age, said in zip(ages, past, strict=True)) / sum(ages)
                for c in range(CLASSES)
                if past
            ]
            to_teacher.append(kl(teacher, p) if past else 0.0)
            total += kl(shares, p) + 2.0 * ramp * to_teacher[-1]
            past.append(p)
        assert loss.item() == pytest.approx(total / len(batch.labels), rel=1e-4)
        assert facts["kl_to_teacher"].tolist() == pytest.approx(to_teacher, rel=1e-3, abs=1e-6)
    assert sorted(len(past) for past in history.values()) == [1, 1, 1, 2, 3, 3]


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


def test_decoder_by_hand_over_three_turns(training_set):
    method = ready("decoder", training_set, momentum=0.7, uniformity=0.3, heads=2)
    stored = {}
    for batch in three_turns(training_set):
        scores = [decode_by_hand(method.label_decoder, each) for each in batch.feature_map]
        torch.testing.assert_close(method.predict(batch), torch.tensor(scores))
        loss, facts = method(batch)
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
        assert facts["identified"].tolist() == identified
    for sample, target in stored.items():
        assert method.targets[sample].tolist() == pytest.approx(target, rel=1e-4)


def uniformity_by_hand(embeddings: list[list[float]]) -> float:
    units = [[x / math.hypot(*row) for x in row] for row in embeddings]
    terms = [math.exp(-2 * math.dist(a, b) ** 2) for a, b in combinations(units, 2)]
    return math.log(sum(terms) / len(terms))


def test_linear_head_without_memory_and_uniformity_is_proden(training_set):
    linear = ready("decoder", training_set, decoder=False, momentum=0.0, uniformity=0.0)
    proden = ready("proden", training_set)
    for batch in three_turns(training_set):
        torch.testing.assert_close(linear(batch)[0], proden(batch)[0])
        assert linear.predict(batch) is batch.logits
    torch.testing.assert_close(linear.targets, proden.targets)
    assert not list(linear.parameters())


def test_linear_head_keeps_the_rows_of_its_weight_apart(training_set, output):
    with_term = ready("decoder", training_set, decoder=False, uniformity=0.5)
    without = ready("decoder", training_set, decoder=False, uniformity=0.0)
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


@pytest.mark.parametrize("trade_off", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["nla_candidates", "nla_soft"])
def test_nla_with_votes_by_hand(training_set, output, name, trade_off):
    loss, facts = ready(name, training_set, trade_off=trade_off)(output)
    total, weights = 0.0, []
    for row, z_flipped in zip(rows_of(output), output.logits_flipped.tolist(), strict=True):
        z, p, members, shares, _ = row
        if name == "nla_candidates":
            p_gt = sum(p[c] for c in members)
            p_nn = max([p[c] for c in range(CLASSES) if c not in members], default=0.0)
            inner = -math.log(p_gt)
        else:
            p_gt = sum(q * value for q, value in zip(shares, p, strict=True))
            p_nn = max((1 - q) * value for q, value in zip(shares, p, strict=True))
            inner = kl(shares, p)
        assert p_gt + p_nn <= 1 + 1e-9
        at = torch.tensor(p_gt), torch.tensor(p_nn)
        weights.append(weight_at(*at, epoch=3, epochs=10).item())
        total += trade_off * (1 + weights[-1]) * inner + (1 - trade_off) * jsd(z, z_flipped)
    assert loss.item() == pytest.approx(total / 6, rel=1e-4)
    assert facts["weight"].tolist() == pytest.approx(weights, rel=1e-4)


@pytest.mark.parametrize("name", ["nla_candidates", "nla_soft"])
def test_detached_weights_change_the_gradient_and_not_the_value(training_set, output, name):
    attached, detached = (ready(name, training_set, detached=d)(output)[0] for d in (False, True))
    torch.testing.assert_close(attached, detached)
    one, other = (torch.autograd.grad(loss, output.logits)[0] for loss in (attached, detached))
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["nla_candidates", "nla_soft"])
def test_nla_with_votes_without_its_weight_is_the_inner_loss(training_set, output, name):
    loss, facts = ready(name, training_set, trade_off=1.0, weighting=False)(output)
    inner, _ = ready({"nla_candidates": "cc", "nla_soft": "ldl"}[name], training_set)(output)
    torch.testing.assert_close(loss, inner)
    assert "weight" not in facts


def test_one_stray_vote_moves_the_weight_by_little(training_set, output):
    clear = torch.tensor([[0.0, 100, 0, 0, 0]]).expand(6, -1)
    stray = torch.tensor([[1.0, 99, 0, 0, 0]]).expand(6, -1)
    method = ready("nla_soft", training_set)
    one, other = (method(replace(output, votes=votes))[1] for votes in (clear, stray))
    assert (one["weight"] - other["weight"]).abs().max() < 0.01
    assert (one["p_negative"] - other["p_negative"]).abs().max() <= 0.01


# --- limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *[(name, {}) for name in ("cc", "rc", "proden", "cavl", "ldl", "self_distillation")],
        ("decoder", {"decoder": False, "uniformity": 0.0}),
        ("pico", {"weight": 0.0}),
    ],
)
def test_one_candidate_or_votes_that_agree_give_the_cross_entropy(
    training_set, output, name, settings, epoch
):
    """Not `lws`, whose loss is sigmoid, and not `uncertainty` while its noise is not zero."""
    certain = with_one_candidate(training_set)
    samples = output.samples.tolist()
    batch = replace(
        output, candidates=certain.candidates[samples], votes=certain.votes[samples], epoch=epoch
    )
    loss, _ = ready(name, certain, **settings)(batch)
    expected = functional.cross_entropy(output.logits, output.labels)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(x, output.logits)[0] for x in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_one_candidate_gives_the_decoder_the_cross_entropy_of_its_scores(training_set, output):
    certain = with_one_candidate(training_set)
    batch = replace(output, candidates=certain.candidates[output.samples])
    method = ready("decoder", certain, uniformity=0.0)
    for _ in range(2):  # also after the targets were replaced
        expected = functional.cross_entropy(method.predict(batch), batch.labels)
        torch.testing.assert_close(method(batch)[0], expected)


@pytest.mark.parametrize("name", ["nla_candidates", "nla_soft"])
@pytest.mark.parametrize("variant", ["paper", "released_2025_05", "v_naw"])
def test_one_candidate_or_votes_that_agree_give_nla(training_set, output, name, variant):
    certain = with_one_candidate(training_set)
    samples = output.samples.tolist()
    batch = replace(output, candidates=certain.candidates[samples], votes=certain.votes[samples])
    loss, facts = ready(name, certain, variant=variant)(batch)
    expected, expected_facts = make_method("nla", {"variant": variant})(batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(facts["weight"], expected_facts["weight"])
    views = (output.logits, output.logits_flipped)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), atol=1e-6, rtol=1e-4
    )


def test_uncertainty_without_noise_is_the_cross_entropy_to_the_votes(training_set, output):
    method = ready("uncertainty", training_set)
    nn.init.constant_(method.scale.bias, -1e4)
    shares = output.votes / output.votes.sum(dim=1, keepdim=True)
    torch.testing.assert_close(method(output)[0], functional.cross_entropy(output.logits, shares))


def test_self_distillation_without_weight_is_ldl(training_set):
    alone = ready("self_distillation", training_set, weight=0.0)
    ldl = ready("ldl", training_set)
    for batch in three_turns(training_set):
        torch.testing.assert_close(alone(batch)[0], ldl(batch)[0])


def all_classes(training_set, output):
    everything = with_all_candidates(training_set)
    return everything, replace(output, candidates=everything.candidates[output.samples])


def test_all_candidates_give_cc_and_rc_no_gradient(training_set, output):
    everything, batch = all_classes(training_set, output)
    loss, _ = ready("cc", everything)(batch)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    for name in ("cc", "rc"):
        loss, _ = ready(name, everything)(batch)
        assert torch.autograd.grad(loss, output.logits)[0].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("name", "settings"),
    [("proden", {}), ("decoder", {"decoder": False, "momentum": 0.0, "uniformity": 0.0})],
)
def test_all_candidates_give_stored_targets_no_gradient_where_predictions_stand_still(
    training_set, output, name, settings
):
    everything, batch = all_classes(training_set, output)
    method = ready(name, everything, **settings)
    first, second = (
        torch.autograd.grad(method(batch)[0], output.logits)[0].abs().max() for _ in range(2)
    )
    assert first > 1e-3  # towards the uniform targets of the first turn
    assert second < 1e-6


def test_all_candidates_leave_nla_its_consistency_alone(training_set, output):
    everything, batch = all_classes(training_set, output)
    loss, _ = ready("nla_candidates", everything, trade_off=1.0)(batch)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, output.logits)[0].abs().max() < 1e-6
    loss, _ = ready("nla_candidates", everything, trade_off=0.5)(batch)
    pairs = zip(output.logits.tolist(), output.logits_flipped.tolist(), strict=True)
    assert loss.item() == pytest.approx(sum(jsd(*pair) for pair in pairs) / 12, rel=1e-4)


def test_all_candidates_do_move_cavl_and_leave_equal_logits_of_lws_equal(training_set, output):
    everything, batch = all_classes(training_set, output)
    cavl = ready("cavl", everything)
    cavl(batch)
    assert torch.autograd.grad(cavl(batch)[0], output.logits)[0].abs().max() > 1e-3
    equal = torch.full((6, CLASSES), 0.7, requires_grad=True)
    loss, _ = ready("lws", everything)(replace(batch, logits=equal))
    (gradient,) = torch.autograd.grad(loss, equal)
    assert gradient.max() < 0
    torch.testing.assert_close(gradient, gradient[:, :1].expand(-1, CLASSES))


# --- a truth that is hidden ------------------------------------------------------------------


def blobs(samples: int = 240, seed: int = 0):
    """(features, truth): one cluster in two dimensions for each class."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(samples) % CLASSES
    angles = 2 * math.pi * truth / CLASSES
    centres = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return centres + 0.5 * torch.randn(samples, 2, generator=generator), truth


def train(method, model, features, truth, training_set, steps=80, lr=0.05, feature_map=None):
    """Full batches; returns the facts of the last step."""
    optimizer = torch.optim.Adam([*model.parameters(), *method.parameters()], lr=lr)
    for step in range(steps):
        logits = model(features)
        output = ModelOutput(
            logits=logits,
            logits_flipped=model(features + 0.1) if method.two_views else None,
            labels=truth,
            epoch=step,
            epochs=steps,
            samples=torch.arange(len(truth)),
            features=features,
            features_flipped=features + 0.1,
            feature_map=feature_map,
            classifier=model,
            votes=training_set.votes,
            candidates=training_set.candidates,
        )
        optimizer.zero_grad()
        loss, facts = method(output)
        loss.backward()
        optimizer.step()
    return facts


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *[(name, {}) for name in FROM_CANDIDATES if name != "decoder"],
        ("decoder", {"decoder": False}),
    ],
)
def test_a_linear_model_finds_the_truth_in_the_candidates(name, settings):
    features, truth = blobs()
    # More dimensions than two, so that the weight's rows have room to keep apart.
    features = functional.pad(features, (0, WIDTH - 2))
    candidates = torch.from_numpy(random_candidates(truth.numpy(), CLASSES, 0.5, seed=1))
    training_set = TrainingSet(truth, CLASSES, WIDTH, candidates=candidates)
    chance = (1 / candidates.sum(dim=1)).mean()
    method = ready(name, training_set, **settings)
    facts = train(method, nn.Linear(WIDTH, CLASSES), features, truth, training_set)
    assert chance < 0.5
    assert facts["disambiguated"].mean() > 0.9
    assert (facts["identified"] == truth).float().mean() > 0.9


def test_the_decoder_finds_the_truth_in_one_token_of_four():
    features, truth = blobs(400)
    candidates = torch.from_numpy(random_candidates(truth.numpy(), CLASSES, 0.5, seed=1))
    generator = torch.Generator().manual_seed(4)
    tokens = 0.1 * torch.randn(len(truth), WIDTH, 4, generator=generator)
    place = torch.randint(0, 4, (len(truth),), generator=generator)
    tokens[torch.arange(len(truth)), :2, place] += features
    training_set = TrainingSet(truth, CLASSES, WIDTH, candidates=candidates)
    method = ready("decoder", training_set)
    model = nn.Linear(2, CLASSES)  # its logits are not what is learnt here
    feature_map = tokens.unflatten(2, (2, 2))
    facts = train(method, model, features, truth, training_set, 50, 0.02, feature_map)
    assert facts["disambiguated"].mean() > 0.9
    assert (facts["predicted"] == truth).float().mean() > 0.9
    assert model.weight.grad is None


def learn_from_three_votes(name: str, **settings) -> tuple[float, float, float]:
    """Three votes an image, of which 45 % are right.

    Returns the accuracy of their majority and of the model, and its mean probability of the
    truth.
    """
    features, truth = blobs(400)
    generator = torch.Generator().manual_seed(2)
    shares = torch.full((CLASSES, CLASSES), 0.55 / (CLASSES - 1))
    shares.fill_diagonal_(0.45)
    draws = torch.multinomial(shares[truth], 3, replacement=True, generator=generator)
    votes = functional.one_hot(draws, CLASSES).sum(dim=1).float()
    training_set = TrainingSet(truth, CLASSES, 2, votes=votes)
    method, model = ready(name, training_set, **settings), nn.Linear(2, CLASSES)
    train(method, model, features, truth, training_set)
    output = ModelOutput(model(features), None, None, 0, 1, features=features)
    predicted = method.predict(output).softmax(dim=1)
    right = predicted.argmax(dim=1) == truth
    majority = votes.argmax(dim=1) == truth
    return (
        majority.float().mean().item(),
        right.float().mean().item(),
        predicted.gather(1, truth[:, None]).mean().item(),
    )


@pytest.mark.parametrize("name", FROM_VOTES)
def test_a_linear_model_sees_through_the_votes_of_single_images(name):
    settings = {"detached": True} if name == "nla_soft" else {}
    majority, accuracy, p_truth = learn_from_three_votes(name, **settings)
    assert majority < 0.6
    assert accuracy > 0.9
    assert 0.3 < p_truth < 0.6  # the distribution of the votes, and no sure answer


def test_gradients_through_the_weight_cost_accuracy_where_votes_are_few():
    """What the docstring of nla_soft says."""
    _, attached, _ = learn_from_three_votes("nla_soft")
    _, detached, _ = learn_from_three_votes("nla_soft", detached=True)
    assert attached < detached - 0.05


# --- numbers, checkpoints, settings ------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_extreme_logits_and_two_samples_give_finite_values_and_gradients(name):
    large = 1e4
    training_set = make_training_set()
    method = ready(name, training_set)
    rows = [[large, -large, -large, 0, large], [-large, large, -large, -large, 0]]
    for turn in range(3):
        output = make_output(training_set, [4, 9], epoch=turn)
        output = replace(
            output,
            logits=torch.tensor(rows, requires_grad=True),
            logits_flipped=torch.tensor(rows[::-1], requires_grad=True),
            feature_map=(large * output.feature_map.detach()).requires_grad_(),
        )
        loss, facts = method(output)
        loss.backward()
        assert loss.shape == ()
        assert torch.isfinite(loss)
        sources = [output.logits, output.feature_map, *method.parameters()]
        gradients = [source.grad for source in sources if source.grad is not None]
        assert gradients
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        for values in facts.values():
            assert values.shape == (2,)
            assert not values.requires_grad
            assert torch.isfinite(values).all()
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())


def test_probabilities_within_sets_that_underflow_or_are_empty():
    logits = torch.tensor([[1e4, 0.0, 0.0], [1.0, 2.0, 3.0]])
    members = torch.tensor([[False, True, True], [False, False, False]])
    assert probabilities_within(logits, members).tolist() == [[0, 0.5, 0.5], [0, 0, 0]]


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_autocast_changes_little(name):
    training_set = make_training_set()
    losses = []
    for enabled in (False, True):
        method = ready(name, training_set)
        output = make_output(training_set, [4, 9, 2, 7])
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            if enabled:
                names = ("features", "features_flipped", "feature_map")
                low = {name: getattr(output, name).bfloat16() for name in names}
                output = replace(output, **low)
            loss, facts = method(output)
            predicted = method.predict(output)
        loss.backward()
        losses.append(loss.detach())
        assert loss.dtype == predicted.dtype == torch.float32
        assert {values.dtype for values in facts.values()} == {torch.float32}
        assert torch.isfinite(loss)
    torch.testing.assert_close(*losses, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("name", EVERY)
def test_a_resumed_method_goes_on_as_if_never_stopped(name):
    training_set = make_training_set()
    first, second, third = three_turns(training_set)
    kept = ready(name, training_set)
    kept(first)
    kept(second)
    torch.manual_seed(99)
    resumed = make_method(name)
    resumed.setup(training_set)
    resumed.load_state_dict(kept.state_dict())
    loss, facts = kept(third)
    loss_resumed, facts_resumed = resumed(third)
    assert torch.equal(loss, loss_resumed)
    assert facts.keys() == facts_resumed.keys()
    assert all(torch.equal(facts[key], facts_resumed[key]) for key in facts)
    state, state_resumed = kept.state_dict(), resumed.state_dict()
    assert all(torch.equal(state[key], state_resumed[key]) for key in state)


@pytest.mark.parametrize("name", EVERY)
def test_what_a_method_asks_for_is_what_it_uses(name):
    """Memory only where it says so, votes and candidates only where it needs them."""
    training_set = make_training_set()
    method = ready(name, training_set)
    rows = [value for value in method.buffers() if value.shape[:1] == (SAMPLES,)]
    assert bool(rows) == method.keeps_samples
    assert method.needs == (("candidates",) if name in FROM_CANDIDATES else ("votes",))
    unneeded = {"votes", "candidates"} - set(method.needs)
    output = make_output(training_set, [4, 9])
    loss, _ = method(replace(output, **dict.fromkeys(unneeded)))
    again, _ = ready(name, training_set)(output)
    assert torch.equal(loss, again)


@pytest.mark.parametrize("name", EVERY)
def test_a_training_set_without_what_is_needed_is_refused(name):
    training_set = make_training_set()
    needed = make_method(name).needs[0]
    with pytest.raises(ValueError, match=f"the training set has no {needed[:6]}"):
        ready(name, replace(training_set, **{needed: None}))
    values = getattr(training_set, needed).clone()
    values[5] = 0
    with pytest.raises(ValueError, match=r"1 samples have no .* first sample 5"):
        ready(name, replace(training_set, **{needed: values}))


@pytest.mark.parametrize("name", EVERY)
def test_global_random_numbers_are_left_alone(name):
    training_set = make_training_set()
    method = ready(name, training_set)
    output = make_output(training_set, [4, 9])
    state = torch.get_rng_state()
    method(output)
    method.predict(output)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rc", {"uniform_epochs": -1}, "uniform_epochs of rc is -1"),
        ("lws", {"leverage": -1.0}, "leverage of lws is -1"),
        ("uncertainty", {"draws": 0}, "draws of uncertainty is 0"),
        ("self_distillation", {"momentum": 1.0}, "momentum of self_distillation is 1"),
        ("self_distillation", {"weight": -1.0}, "weight of self_distillation is -1"),
        ("self_distillation", {"ramp": 2.0}, "ramp of self_distillation is 2"),
        ("decoder", {"momentum": 1.0}, "momentum of decoder is 1"),
        ("decoder", {"uniformity": "yes"}, "uniformity of decoder is 'yes'"),
        ("decoder", {"decoder": 1}, "decoder of decoder is 1"),
        ("decoder", {"heads": 0}, "heads of decoder is 0"),
        ("decoder", {"heads": 2, "decoder": False}, "decoder=False has none"),
        ("nla_candidates", {"variant": "released_2025_03"}, "unknown variant"),
        ("nla_soft", {"trade_off": 1.5}, r"trade_off of .* is 1\.5"),
        ("nla_soft", {"weighting": 0}, r"weighting of .* is 0"),
        ("nla_soft", {"detached": "no"}, r"detached of .* is 'no'"),
        ("nla_soft", {"detached": True, "weighting": False}, r"detached of .* no weight"),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, settings)


def test_heads_that_do_not_divide_the_width_are_refused(training_set):
    with pytest.raises(ValueError, match="heads of decoder is 3, which does not divide D = 8"):
        ready("decoder", training_set, heads=3)
