"""PiCO against a plain loop, and what it draws together."""

import math
from dataclasses import replace

import pytest
import torch

from method_batches import CLASSES, make_output, ready, rows_of, three_turns
from nlalib.methods import make_method


def contrast_by_hand(own, positives, others) -> float:
    """C of one sample, from its embedding and lists of embeddings."""
    shares = [math.exp(sum(own * b).item() / 0.07) for b in others]
    attracted = [math.exp(sum(own * a).item() / 0.07) / sum(shares) for a in positives]
    return -sum(math.log(share) for share in attracted) / max(len(attracted), 1)


def test_pico_by_hand_over_three_turns():
    """The first turn of three is warm-up; the queue of 6 places turns over."""
    method = ready("pico", weight=0.3, warm_up=0.1, prototype_momentum=0.9, queue=6)
    stored, queue = {}, []
    prototypes = [torch.zeros(128)] * CLASSES
    for batch in three_turns():
        with torch.no_grad():
            u, v = (
                [x / x.norm() for x in method.head(features)]
                for features in (batch.features, batch.features_flipped)
            )
        rows = list(rows_of(batch))
        pseudo = [max(members, key=lambda c: p[c]) for _, p, members, _, _ in rows]
        phi = 0.95 - 0.15 * batch.epoch / 9
        loss, records = method(batch)
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
        assert records["contrast"].tolist() == pytest.approx(contrasts, rel=1e-4)
        # While targets are even, none is settled for: y' says what the network sees.
        targets = [stored[sample] for sample in batch.samples.tolist()]
        settled = [target.index(max(target)) for target in targets] if batch.epoch else pseudo
        assert records["identified"].tolist() == settled
        for embedding, c in zip(u, pseudo, strict=True):
            prototypes[c] = 0.9 * prototypes[c] + 0.1 * embedding
        prototypes = [x / x.norm() if x.any() else x for x in prototypes]
        torch.testing.assert_close(method.prototypes, torch.stack(prototypes))
        queue = [*queue, *zip(v, pseudo, strict=True)][-6:]
    for sample, target in stored.items():
        assert method.targets[sample].tolist() == pytest.approx(target, rel=1e-5)


def test_pico_learns_from_the_first_view_alone(output):
    ready("pico")(output)[0].backward()
    assert output.features_flipped.grad is None
    assert output.features.grad.abs().sum() > 0


@pytest.mark.parametrize(("warm_up", "own_alone"), [(1.0, True), (0.0, False)])
def test_pico_draws_images_of_one_pseudo_label_together_after_warm_up(warm_up, own_alone):
    """Two images, one pseudo-label; the second view of each is the other's first."""
    batch = make_output([0, 1])
    both = torch.zeros(2, CLASSES, dtype=torch.bool)
    both[:, 2] = True
    features = batch.features.detach()
    batch = replace(batch, candidates=both, features_flipped=features.flip(0))
    method = ready("pico", warm_up=warm_up)
    _, records = method(batch)
    # Alone, the own second view is the only one to choose from, so C is 0.
    assert (records["contrast"].abs().max() < 1e-6) == own_alone


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "weight of pico is -1"),
        ({"first_momentum": 1.5}, "first_momentum of pico is 1.5"),
        ({"last_momentum": -0.5}, "last_momentum of pico is -0.5"),
        ({"prototype_momentum": 1.0}, "prototype_momentum of pico is 1"),
        ({"warm_up": 2.0}, "warm_up of pico is 2"),
        ({"queue": 0}, "queue of pico is 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("pico", settings)
