"""Where training labels come from: the rule on the votes, or people, who err.

==============  ==================================================================================
source          the label given for training is ...
==============  ==================================================================================
rule            that of `label_rule`; of a set without votes its own
random_vote     that of one annotator, drawn
worst_of_three  of three annotators drawn, the first who contradicts the rule's label; that label
                where none does. CIFAR-10N's "Worst" (Wei et al., "Learning with noisy labels
                revisited", ICLR 2022) has three annotators an image
worst_vote      the same of all annotators: wrong wherever a single one contradicts
fer2013         FER2013's own label of the image (FERPlus alone)
==============  ==================================================================================

The annotators of an image stand in an order drawn by a seed; the first is the random vote, the
first three are the three. An annotator who voted for none of the run's classes gives no label and
is left out. The order hangs on seed and name of the image alone: every subset has the same labels,
and whoever has the votes can draw them again, in any language.

The **twin** of a source (`noise_kind: matched`) has the same wrong labels in other places: among
the images with one label by the rule, the given labels are shuffled. So its transition matrix is
the source's, count by count, and its noise knows nothing of the image. What is lost on the source
and not on the twin is what it costs that people err on the hard images.
"""

import hashlib

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from nlalib.data.labels import expressions

RULE, FER2013 = "rule", "fer2013"
# How many annotators are asked; None for all.
_ASKED = {"random_vote": 1, "worst_of_three": 3, "worst_vote": None}
VOTE_SOURCES = tuple(_ASKED)
LABEL_SOURCES = (RULE, *VOTE_SOURCES, FER2013)
MATCHED = "matched"
_MOST_ANNOTATORS = 16  # numbers of 32 bits in a digest


def annotators_in_order(votes: np.ndarray, image_ids: pd.Series, seed: int) -> np.ndarray:
    """Return what each image's annotators voted for, in an order drawn by a seed.

    Annotator j, counted through the classes, has as its key the j-th big-endian 32-bit number of
    the SHA-512 digest of "<seed>:<image_id>"; they stand in the order of their keys.

    Parameters
    ----------
    votes : numpy.ndarray, (N, K) int
        Votes for the K classes.
    image_ids : pandas.Series
        N names.
    seed : int

    Returns
    -------
    numpy.ndarray, (N, A) int64
        Class ids, A as the most votes of one image; -1 behind an image's last annotator.

    Raises
    ------
    ValueError
        For more annotators than a digest has keys.
    """
    votes = np.asarray(votes).astype(np.int64)
    number = votes.sum(axis=1)
    most = int(number.max(initial=0))
    if most > _MOST_ANNOTATORS:
        raise ValueError(
            f"an image has {most} annotators; an order is drawn of at most {_MOST_ANNOTATORS}"
        )
    digests = [hashlib.sha512(f"{seed}:{name}".encode()).digest() for name in image_ids]
    keys = np.frombuffer(b"".join(digests), dtype=">u4").reshape(-1, _MOST_ANNOTATORS)[:, :most]
    place = np.arange(most)
    # (N, A): annotator j votes for the first class up to which more than j votes were counted.
    of_class = (votes.cumsum(axis=1)[:, None, :] <= place[:, None]).sum(axis=2)
    is_there = place < number[:, None]
    order = np.argsort(np.where(is_there, keys.astype(np.int64), 2**32), axis=1, kind="stable")
    return np.take_along_axis(np.where(is_there, of_class, -1), order, axis=1)


def vote_labels(
    votes: np.ndarray, labels: np.ndarray, image_ids: pd.Series, source: str, seed: int
) -> np.ndarray:
    """Return the labels of a source of `VOTE_SOURCES` (the table at the top of this module).

    Parameters
    ----------
    votes : numpy.ndarray, (N, K) int
        Votes for the K classes.
    labels : numpy.ndarray, (N,) int
        By the rule, which stand where nobody voted for a class or, of the worst, contradicts.
    image_ids : pandas.Series
    source : str
    seed : int

    Returns
    -------
    numpy.ndarray, (N,) int64
    """
    asked = annotators_in_order(votes, image_ids, seed)[:, : _ASKED[source]]
    labels = np.asarray(labels, dtype=np.int64)
    speaks = asked >= 0
    if source != "random_vote":
        speaks &= asked != labels[:, None]
    given = np.take_along_axis(asked, speaks.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(speaks.any(axis=1), given, labels)


def transition_table(labels: np.ndarray, given: np.ndarray, num_classes: int) -> pd.DataFrame:
    """Return how many images of each label (row) were given each label (column), (K, K) int64."""
    names = list(expressions(num_classes))
    counts = confusion_matrix(labels, given, labels=range(num_classes))
    return pd.DataFrame(counts, pd.Index(names, name="label"), pd.Index(names, name="given"))


def matched_labels(labels: np.ndarray, given: np.ndarray, seed: int | list[int]) -> np.ndarray:
    """Return the given labels, shuffled among the images of one label: a source's twin.

    Parameters
    ----------
    labels : numpy.ndarray, (N,) int
        By the rule.
    given : numpy.ndarray, (N,) int
        By the source.
    seed : int or list of int

    Returns
    -------
    numpy.ndarray, (N,) int64
        With the `transition_table` of `given`, exactly.
    """
    generator = np.random.default_rng(seed)
    matched = np.array(given, dtype=np.int64)
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        matched[positions] = generator.permutation(matched[positions])
    return matched
