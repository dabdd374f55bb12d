"""The embedded data set: faces drawn by code, whose truth is known.

No licence, no download, and for each image it is known which expressions it mixes, what each
annotator could see and whether its label was replaced. It is a controlled experiment, not a
stand-in for results on photographs.

A path `rendered:<seed>:<number>:<expression>` determines the picture and its votes; `expression`
is the largest share of the mixture. The frequencies of the expressions follow RAF-DB's.

Trust it for questions about labels (imbalance, ambiguity, noise). The faces are drawings: an
accuracy on them says nothing about photographs.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nlalib.data.index import LANDMARK_COLUMNS, TRUE_COLUMNS, VOTE_COLUMNS, check_index
from nlalib.data.label_sources import RULE, VOTE_SOURCES
from nlalib.data.labels import BASIC_EXPRESSIONS, RAFDB_TEST_COUNTS, RAFDB_TRAIN_COUNTS, class_id
from nlalib.data.sets.base import DataSet
from nlalib.faces.drawing import draw_face
from nlalib.faces.geometry import face_landmarks
from nlalib.faces.parameters import ACTION_UNITS, FaceParameters
from nlalib.faces.people import draw_identity, draw_pose, draw_scene

if TYPE_CHECKING:
    from nlalib.data.choice import DataChoice

# Paths of images begin with it.
RENDERED_MARK = "rendered:"

_PATH = re.compile(rf"rendered:(\d{{1,18}}):(\d{{1,18}}):({'|'.join(BASIC_EXPRESSIONS)})")

# Stored pictures are drawn anew when it changes: raise it with any change of a pixel.
RENDERER_VERSION = "1"
# How often a face is a blend, and the range of the leading expression's share. All three chosen
# by us so that there are clear and ambiguous faces; not measured on any data set.
BLEND_RATE = 0.25
BLENDED_SHARE = (0.52, 0.75)
PURE_SHARE = (0.88, 1.0)
# With whom an expression (row) is blended: probabilities, in the order of `nlalib.data.labels`.
# Chosen by us after the confusions that people make; not measured on any data set.
NEIGHBOURS = np.array([
    [0.00, 0.60, 0.00, 0.25, 0.00, 0.00, 0.15],  # surprise
    [0.70, 0.00, 0.00, 0.00, 0.30, 0.00, 0.00],  # fear
    [0.00, 0.00, 0.00, 0.00, 0.20, 0.65, 0.15],  # disgust
    [0.25, 0.00, 0.00, 0.00, 0.00, 0.00, 0.75],  # happiness
    [0.00, 0.15, 0.10, 0.00, 0.00, 0.15, 0.60],  # sadness
    [0.00, 0.00, 0.55, 0.00, 0.15, 0.00, 0.30],  # anger
    [0.00, 0.00, 0.00, 0.25, 0.50, 0.25, 0.00],  # neutral
])  # fmt: skip
_NEIGHBOUR_EDGES = NEIGHBOURS.cumsum(axis=1)[:, :-1]
# What an annotator calls (column) an expression (row). Chosen by us, as above.
CONFUSION = np.array([
    [0.88, 0.07, 0.01, 0.02, 0.00, 0.01, 0.01],  # surprise
    [0.16, 0.74, 0.02, 0.00, 0.05, 0.02, 0.01],  # fear
    [0.01, 0.02, 0.74, 0.01, 0.06, 0.14, 0.02],  # disgust
    [0.01, 0.00, 0.01, 0.95, 0.00, 0.00, 0.03],  # happiness
    [0.00, 0.03, 0.03, 0.01, 0.82, 0.03, 0.08],  # sadness
    [0.01, 0.02, 0.10, 0.00, 0.04, 0.79, 0.04],  # anger
    [0.01, 0.01, 0.01, 0.03, 0.07, 0.03, 0.84],  # neutral
])  # fmt: skip
# Chosen by us, not measured: the share of an expression of intensity 0 that annotators take for
# neutral, and how often they guess where something hides a part of the face.
FAINTNESS = 0.4
GUESSING = 0.15

_ALIGNED_FACES = 200
_SPEAKING = [ACTION_UNITS.index(unit) for unit in ("lips_part", "jaw_drop")]


class RenderedFaces(DataSet):
    """Faces drawn by code."""

    name, title = "rendered", "rendered faces"
    order = BASIC_EXPRESSIONS
    has_votes = is_made = True
    noise_kinds = ("symmetric",)
    label_sources = (RULE, *VOTE_SOURCES)

    def read(self, choice: "DataChoice") -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the index of as many faces as asked for; for all, as many as RAF-DB has."""
        index = rendered_index(
            train=choice.train_images or sum(RAFDB_TRAIN_COUNTS.values()),
            test=choice.test_images or sum(RAFDB_TEST_COUNTS.values()),
            seed=choice.data_seed,
            flip_rate=choice.noise_rate,
        )
        return index, pd.DataFrame({"split": [], "reason": [], "images": []})

    def to_align(self, root: Path) -> pd.DataFrame:
        """Return faces to look at; they have no reader of folders."""
        return rendered_index(train=_ALIGNED_FACES, test=0, seed=0)


def _face(path: str) -> tuple[FaceParameters, np.random.Generator]:
    """Return a face's parameters and its generator, from which its votes are drawn next."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError(
            f"path {path!r} is no rendered face; expected 'rendered:<seed>:<number>:<expression>' "
            f"with whole numbers >= 0 and an expression out of {', '.join(BASIC_EXPRESSIONS)}"
        )
    seed, number, leading = int(match[1]), int(match[2]), class_id(match[3])
    generator = np.random.default_rng(np.random.SeedSequence([seed, number]))
    # The expression comes last: the same number shows the same person under any expression.
    identity, pose, scene = draw_identity(generator), draw_pose(generator), draw_scene(generator)
    is_blend = generator.uniform() < BLEND_RATE
    share = generator.uniform(*(BLENDED_SHARE if is_blend else PURE_SHARE))
    mixture = np.zeros(len(BASIC_EXPRESSIONS))
    mixture[leading] = share
    mixture[np.searchsorted(_NEIGHBOUR_EDGES[leading], generator.uniform(), side="right")] += (
        1 - share
    )
    offset = np.maximum(generator.normal(-0.02, 0.07, len(ACTION_UNITS)), 0)
    if generator.uniform() < 0.15:  # speaking
        offset[_SPEAKING] += generator.uniform(0, (0.5, 0.35))
    parameters = FaceParameters(
        mixture=mixture,
        intensity=0.40 + 0.65 * generator.beta(2.0, 1.5),
        openness=generator.beta(0.6, 0.6),
        unit_gain=np.exp(generator.normal(0, 0.22, len(ACTION_UNITS))),
        unit_offset=offset,
        asymmetry=generator.normal(0, 0.15),
        identity=identity,
        pose=pose,
        scene=scene,
    )
    return parameters, generator


def face_parameters(path: str) -> FaceParameters:
    """Return all that is known of a rendered face: expression, identity, pose and scene.

    `nlalib.faces.drawing.draw_face` draws it, `dataclasses.replace` changes one thing of it.

    Raises
    ------
    ValueError
        If `path` is not `rendered:<seed>:<number>:<expression>`.
    """
    return _face(path)[0]


def render_face(path: str, size: int) -> np.ndarray:
    """Draw the face of a path; the same content at any size, the same pixels in any process.

    Parameters
    ----------
    path : str
        `rendered:<seed>:<number>:<expression>`, as in the index.
    size : int
        Side of the image, pixels, >= 8.

    Returns
    -------
    numpy.ndarray
        (size, size, 3), uint8, RGB.

    Raises
    ------
    ValueError
        If the path is malformed or the size too small.
    """
    return draw_face(face_parameters(path), size)


def perceived(mixture: np.ndarray, intensity: np.ndarray, occluded: np.ndarray) -> np.ndarray:
    """Return what an annotator calls a face: the mixture, faded, passed through `CONFUSION`.

    Parameters
    ----------
    mixture : numpy.ndarray
        (N, 7), rows sum to 1.
    intensity : numpy.ndarray
        (N,), 1 for a full expression.
    occluded : numpy.ndarray
        (N,), bool: something hides a part of the face.

    Returns
    -------
    numpy.ndarray
        (N, 7), probabilities.
    """
    fading = FAINTNESS * np.clip(1 - intensity, 0, 1)[:, None]
    seen = (1 - fading) * mixture
    seen[:, class_id("neutral")] += fading[:, 0]
    guessing = GUESSING * np.asarray(occluded, dtype=float)[:, None]
    return (1 - guessing) * (seen @ CONFUSION) + guessing / mixture.shape[1]


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Share `total` out by largest remainder; equal remainders go to the first."""
    exact = total * np.asarray(shares, dtype=float) / max(np.sum(shares), 1)
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def _flip(labels: np.ndarray, rate: float, generator: np.random.Generator) -> np.ndarray:
    """Replace `round(rate * N)` labels by a different class, spread over the classes evenly."""
    classes = len(BASIC_EXPRESSIONS)
    quota = _apportion(np.bincount(labels, minlength=classes), round(rate * len(labels)))
    order, step = generator.permutation(len(labels)), generator.integers(1, classes, len(labels))
    flipped = labels.copy()
    for label, count in enumerate(quota):
        chosen = order[labels[order] == label][:count]
        flipped[chosen] = (label + step[chosen]) % classes
    return flipped


def rendered_index(
    *, train: int, test: int, seed: int, flip_rate: float = 0.0, annotators: int = 10
) -> pd.DataFrame:
    """Make the index of a rendered data set.

    The leading expressions (`true_label`) have RAF-DB's frequencies of the same split, exactly,
    by largest remainder. Each annotator draws one class from `perceived`; `label` is the class
    with the most votes, of several the first in the order of `nlalib.data.labels`. Then exactly
    `round(flip_rate * train)` training labels, in each class its share, are replaced by a
    uniformly drawn different class (the noise protocol of SCN and EAC, with exact counts). Test
    labels stay as voted. Nobody votes for contempt, unknown or not a face.

    A face's number is even in the training split and odd in the test split, so both can grow
    without sharing a face. Picture, mixture and votes depend on the path alone; which numbers
    get which expression depends on the split's size.

    Parameters
    ----------
    train, test : int
        Images in each split, >= 0, not both 0.
    seed : int
        >= 0. Another seed gives other faces.
    flip_rate : float
        Share of the training labels to replace, 0 <= flip_rate < 1.
    annotators : int
        Votes for each image, >= 1.

    Returns
    -------
    pandas.DataFrame
        All columns of `nlalib.data.index`, training rows first.

    Raises
    ------
    ValueError
        If a parameter lies outside its range.
    """
    if train < 0 or test < 0 or train + test == 0:
        raise ValueError(f"train is {train} and test {test}; expected >= 0 and not both 0")
    if seed < 0 or annotators < 1 or not 0 <= flip_rate < 1:
        raise ValueError(
            f"seed is {seed}, annotators {annotators}, flip_rate {flip_rate}; expected seed >= 0, "
            "annotators >= 1 and a fraction 0 <= flip_rate < 1"
        )
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3)]
    rows = []
    splits = (("train", train, RAFDB_TRAIN_COUNTS), ("test", test, RAFDB_TEST_COUNTS))
    for parity, (split, count, frequencies) in enumerate(splits):
        leading = np.repeat(BASIC_EXPRESSIONS, _apportion(list(frequencies.values()), count))
        for position, expression in enumerate(streams[parity].permutation(leading)):
            path = f"rendered:{seed}:{2 * position + parity}:{expression}"
            rows.append((f"{split}_{position:06d}", path, split, class_id(str(expression))))
    index = pd.DataFrame(rows, columns=["image_id", "path", "split", "true_label"])

    faces = [_face(path) for path in index["path"]]
    draws = np.array([generator.random(annotators) for _, generator in faces])  # (N, annotators)
    parameters = [face for face, _ in faces]
    mixture = np.array([face.mixture for face in parameters])
    edges = perceived(
        mixture,
        np.array([face.intensity for face in parameters]),
        np.array([face.scene.occlusion != "none" for face in parameters]),
    ).cumsum(axis=1)
    # The last edge is 1 but for rounding, so it is left out: no draw can fall beyond it.
    called = (draws[:, :, None] >= edges[:, None, :-1]).sum(axis=2)
    votes = np.zeros((len(index), len(VOTE_COLUMNS)), dtype=np.int64)
    np.add.at(votes, (np.arange(len(index))[:, None], called), 1)
    label = votes.argmax(axis=1)
    given = label.copy()
    given[:train] = _flip(label[:train], flip_rate, streams[2])

    landmarks = np.array([face_landmarks(face).ravel() for face in parameters])
    index.insert(3, "label", given)
    index[VOTE_COLUMNS] = votes
    index[LANDMARK_COLUMNS] = landmarks
    index[TRUE_COLUMNS] = mixture
    index["is_flipped"] = given != label
    return check_index(index, len(BASIC_EXPRESSIONS))
