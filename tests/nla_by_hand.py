"""NLA's formulas once more, with nothing but `math`: plain numbers, sample by sample."""

import math

from method_batches import divergence, mean, softmax


def covariance_from_axes(long_variance: float, ratio: float) -> tuple[float, float]:
    """Return (s, c) with variance `long_variance` along (1, 1), and 1/ratio^2 of it across."""
    short = long_variance / ratio**2
    return (long_variance + short) / 2, (long_variance - short) / 2


# The variance s and the size of the covariance c of the two cases. In the paper s = 0.8 and the
# half axes are 2 : 1 or 6 : 1, so that the two variances along the diagonals sum to 1.6 and are
# 4 : 1 or 36 : 1.
PAPER = {
    "true": covariance_from_axes(1.6 * 4 / 5, 2),
    "false": covariance_from_axes(1.6 * 36 / 37, 6),
    "normalised": True,
    "slope": 15.0,
    "weighting": True,
    "consistency": "jensen_shannon",
    "trade_off": 0.5,
}
RELEASED = {"consistency": "released"}
MAY = {"false": covariance_from_axes(2 * 0.91**2, 6)}
V_NAW = {"true": (0.75, 0.5), "false": (0.85, 0.8), "normalised": False}
CHOICES = {
    "paper": PAPER,
    "released_2025_03": PAPER | MAY | RELEASED,
    "released_2025_05": PAPER | MAY | RELEASED,
    "v_naw": PAPER | V_NAW | RELEASED,
}


def point(z: list[float], label: int) -> tuple[float, float]:
    """Return (p_gt, p_nn)."""
    p = softmax(z)
    return p[label], max(value for c, value in enumerate(p) if c != label)


def density(first, second, centre, s: float, c: float, normalised: bool) -> float:
    """Return exp(-(first - centre)' Sigma^-1 (second - centre) / 2), Sigma = [[s, c], [c, s]]."""
    (a, b), (d, e) = ([x - m for x, m in zip(at, centre, strict=True)] for at in (first, second))
    determinant = s * s - c * c
    form = (s * a * d - c * a * e - c * b * d + s * b * e) / determinant
    return math.exp(-form / 2) / (2 * math.pi * math.sqrt(determinant) if normalised else 1)


def gaussians(choice: dict, epoch: int, epochs: int):
    """Return (centre, s, c) of the True and of the False case in one epoch."""
    scale = 1 - math.exp(-choice["slope"] * epoch / epochs)
    (s, c), false = choice["true"], choice["false"]
    return ((0.50, 0.50), s, -c * scale), ((0.30, 0.15), *false)


def weight(first, second, choice: dict, epoch: int, epochs: int) -> float:
    """Return the weight of the point `first`; `second` is another point only in March's release."""
    true, false = gaussians(choice, epoch, epochs)
    case = true if first[0] >= first[1] else false
    return density(first, second, *case, choice["normalised"])


def weights(logits, labels, choice: dict, epoch: int, epochs: int) -> list[float]:
    points = [point(z, label) for z, label in zip(logits, labels, strict=True)]
    return [weight(at, at, choice, epoch, epochs) for at in points]


def naw_loss(logits, labels, variant: str, epoch: int, epochs: int) -> float:
    """Return mean(w CE), or March's mean over all pairs."""
    points = [point(z, label) for z, label in zip(logits, labels, strict=True)]
    pairs = [
        (one, other)
        for one in points
        for other in (points if variant == "released_2025_03" else [one])
    ]
    choice = CHOICES[variant]
    return mean(
        weight(one, other, choice, epoch, epochs) * -math.log(one[0]) for one, other in pairs
    )


def jensen_shannon(z: list[float], mirrored: list[float]) -> float:
    p, q = softmax(z), softmax(mirrored)
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (divergence(p, m) + divergence(q, m)) / 2


def released_consistency(logits, logits_flipped) -> float:
    """Return the released term: KL of the mean *logits* from each view, summed over the batch."""
    total = 0.0
    for z, mirrored in zip(logits, logits_flipped, strict=True):
        m = softmax([(a + b) / 2 for a, b in zip(z, mirrored, strict=True)])
        total += (divergence(m, softmax(z)) + divergence(m, softmax(mirrored))) / 2
    return total


def total(logits, logits_flipped, labels, choice: dict, epoch: int, epochs: int) -> float:
    """Return lambda mean((1 + w) CE) + (1 - lambda) L_reg, or without L_reg and lambda."""
    found = weights(logits, labels, choice, epoch, epochs)
    weighted = mean(
        (1 + w * choice["weighting"]) * -math.log(point(z, label)[0])
        for w, z, label in zip(found, logits, labels, strict=True)
    )
    if choice["consistency"] == "none":
        return weighted
    if choice["consistency"] == "released":
        regulariser = released_consistency(logits, logits_flipped)
    else:
        regulariser = mean(map(jensen_shannon, logits, logits_flipped))
    return choice["trade_off"] * weighted + (1 - choice["trade_off"]) * regulariser
