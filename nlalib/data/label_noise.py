"""Label noise and long-tailed subsets with exact counts, made from clean labels.

Synthetic noise is what the papers on noisy labels measure with: it is independent of the picture,
where annotators' mistakes are not. Trust a ranking of methods under it for no more than that.
The noise of SCN, EAC and NLA draws for each line whether to replace it, so their rate varies a
little from seed to seed and from class to class; here the counts of each class are exact, of
training and held-out images together; in each part they vary a little.
"""

import numpy as np
import pandas as pd

from nlalib.data.labels import expressions

NOISE_KINDS = ("symmetric", "pair")


def noisy_labels(
    labels: np.ndarray, rate: float, num_classes: int, seed: int, kind: str = "symmetric"
) -> np.ndarray:
    """Return labels of which an exact share of each class is replaced by another class.

    Parameters
    ----------
    labels : numpy.ndarray, (N,) int
    rate : float
        Share of each class's labels that change, from 0 to below 1; the number is
        `round(rate * count)`, halves to even.
    num_classes : int
    seed : int
    kind : {"symmetric", "pair"}
        The new label is any other class, each as likely as the next (the protocol of SCN and
        EAC), or always the class after it in the project's order, the last one's being the first.

    Returns
    -------
    numpy.ndarray, (N,) int64
    """
    labels = np.asarray(labels, dtype=np.int64)
    generator = np.random.default_rng([seed, NOISE_KINDS.index(kind)])
    noisy = labels.copy()
    for label in range(num_classes):
        positions = np.flatnonzero(labels == label)
        changed = generator.permutation(positions)[: round(rate * len(positions))]
        steps = generator.integers(1, num_classes, len(changed)) if kind == "symmetric" else 1
        noisy[changed] = (label + steps) % num_classes
    return noisy


def long_tail_counts(available: np.ndarray, imbalance_factor: float, images: int = 0) -> np.ndarray:
    """Return how many images each class keeps in an exponentially long-tailed set.

    With the classes in the order of their frequency, i = 0 .. K-1, class i keeps
    n_i = n_0 factor^(-i / (K - 1)): the largest has `imbalance_factor` times the images of the
    smallest (Cui et al. 2019, section 5.1), rounded to whole images.

    Parameters
    ----------
    available : numpy.ndarray, (K,) int
        Images of each class.
    imbalance_factor : float
        At least 1.
    images : int
        How many in all, within the rounding; 0 for as many as the classes allow.

    Returns
    -------
    numpy.ndarray, (K,) int64

    Raises
    ------
    ValueError
        If a class would need more images than it has, or would keep none.
    """
    available = np.asarray(available, dtype=np.int64)
    rank = np.empty(len(available), dtype=np.int64)
    rank[np.argsort(-available, kind="stable")] = np.arange(len(available))
    share = imbalance_factor ** (-rank / (len(available) - 1))
    largest = (available / share).min()
    if images:
        if images > largest * share.sum():
            raise ValueError(
                f"{images:,} images with imbalance factor {imbalance_factor:g} need more of some "
                f"class than there is; at most {int(largest * share.sum()):,} are possible"
            )
        largest = images / share.sum()
    counts = np.minimum(np.rint(largest * share).astype(np.int64), available)
    if counts.min() < 1:
        raise ValueError(f"a class would keep no image: counts {counts.tolist()}; ask for more")
    return counts


def long_tailed(
    index: pd.DataFrame, imbalance_factor: float, num_classes: int, seed: int, images: int = 0
) -> pd.DataFrame:
    """Return the rows of the index that make its training split long-tailed, in their order.

    Other splits stay whole. See `long_tail_counts`.
    """
    train = index[index["split"] == "train"]
    available = np.bincount(train["label"], minlength=num_classes)
    if available.min() == 0:
        names = [n for n, c in zip(expressions(num_classes), available, strict=True) if not c]
        raise ValueError(f"no training image of {', '.join(names)}: a long tail needs all classes")
    counts = long_tail_counts(available, imbalance_factor, images)
    generator = np.random.default_rng([seed, 7])
    kept = [
        generator.permutation(train.index[train["label"] == label])[:count]
        for label, count in enumerate(counts)
    ]
    return index[index.index.isin(np.concatenate(kept)) | (index["split"] != "train")]
