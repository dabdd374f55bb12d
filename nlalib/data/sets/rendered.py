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

import numpy as np
import pandas as pd

from nlalib.data.index import LANDMARK_COLUMNS, TRUE_COLUMNS, VOTE_COLUMNS, check_index
from nlalib.data.labels import BASIC_EXPRESSIONS, RAFDB_TEST_COUNTS, RAFDB_TRAIN_COUNTS, class_id
from nlalib.faces.drawing import draw_face
from nlalib.faces.geometry import (
    ACTION_UNITS,
    HAIR_STYLES,
    OCCLUSIONS,
    FaceParameters,
    Identity,
    Pose,
    Scene,
    face_landmarks,
)

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

# Colours, shares and, below, the ranges of identity, pose and scene are chosen by us for variety;
# they are not measured on any population.
_SKINS = [(250, 222, 202), (240, 204, 178), (228, 184, 150), (208, 157, 120), (178, 125, 90),
          (145, 98, 68), (112, 74, 52), (88, 58, 42)]  # fmt: skip
# Shares of the hair styles, summed up; the last edge, 1, is left out.
_HAIR_EDGES = np.cumsum([0.06, 0.07, 0.22, 0.12, 0.14, 0.20, 0.10, 0.05])
_HAIRS = [(28, 24, 24), (48, 34, 26), (78, 52, 34), (112, 74, 44), (164, 122, 72), (212, 178, 120),
          (138, 64, 36)]  # fmt: skip
_IRISES = [(58, 38, 24), (92, 62, 38), (104, 92, 50), (84, 112, 84), (92, 124, 156),
           (110, 120, 126)]  # fmt: skip
_SPEAKING = [ACTION_UNITS.index(unit) for unit in ("lips_part", "jaw_drop")]


def _identity(generator: np.random.Generator) -> Identity:
    uniform, normal = generator.uniform, generator.normal
    tone = uniform(0, len(_SKINS) - 1)
    low = int(tone)
    skin = (1 - tone + low) * np.array(_SKINS[low]) + (tone - low) * np.array(_SKINS[low + 1])
    skin += normal(0, 5) + normal(0, 2, 3)
    age, bearded, made_up = uniform(), uniform() < 0.25, uniform() < 0.3
    # Light hair goes with light skin more often than not; old hair is grey.
    hair = np.array(_HAIRS[int(uniform() * (len(_HAIRS) if tone < 3 else 3))], dtype=float)
    hair += max(age - 0.6, 0) * 2 * (190 - hair)
    lips = skin * (0.84, 0.60, 0.60)
    if made_up:
        lips = 0.4 * lips + 0.6 * np.array((uniform(130, 210), uniform(20, 70), uniform(40, 90)))
    style = HAIR_STYLES[np.searchsorted(_HAIR_EDGES, uniform(), side="right")]
    if bearded and style in ("long", "headscarf"):
        style = "short"
    return Identity(
        skin=tuple(skin.tolist()),
        hair=tuple(np.maximum(hair + normal(0, 5, 3), 8).tolist()),
        iris=_IRISES[int(uniform() * (len(_IRISES) if tone < 3 else 2))],
        lips=tuple(lips.tolist()),
        clothes=tuple(uniform(25, 235, 3).tolist()),
        hair_style=style,
        hair_side=1.0 if uniform() < 0.5 else -1.0,
        face_width=uniform(0.70, 0.86),
        jaw=uniform(0.68, 1.02),
        chin=uniform(0.94, 1.06),
        brow_thickness=uniform(0.022, 0.060),
        brow_height=normal(0, 0.022),
        brow_tilt=normal(0, 0.025),
        brow_darkness=uniform(0.45, 1.0),
        eye_size=uniform(0.82, 1.16),
        eye_spacing=uniform(0.34, 0.40),
        eye_tilt=normal(0.04, 0.08),
        lashes=1.0 if made_up else uniform(0, 0.4),
        nose_width=uniform(0.11, 0.18),
        nose_length=uniform(0.20, 0.29),
        mouth_width=uniform(0.25, 0.34),
        lip_fullness=uniform(0.5, 1.5),
        mouth_curve=normal(0, 0.022),
        beard=uniform(0.25, 0.95) if bearded else 0.0,
        moustache=1.0 if uniform() < (0.6 if bearded else 0.04) else 0.0,
        glasses=uniform(0.3, 1.0) if uniform() < 0.14 else 0.0,
        age=age,
    )


def _pose(generator: np.random.Generator) -> Pose:
    normal = generator.normal
    yaw, pitch, roll = np.clip(normal(0, (0.20, 0.10, 0.10)), -0.45, 0.45).tolist()
    return Pose(
        yaw, pitch, roll,
        scale=generator.uniform(0.37, 0.46),
        shift=tuple(normal(0, 0.02, 2).tolist()),
        gaze=tuple(np.clip(normal(0, (0.22, 0.25)), -0.6, 0.6).tolist()),
    )  # fmt: skip


def _scene(generator: np.random.Generator) -> Scene:
    uniform, normal = generator.uniform, generator.normal
    base = uniform(25, 230) + normal(0, 22, 3)
    patches = normal(0, uniform(4, 45), (4, 4, 1)) + normal(0, 9, (4, 4, 3))
    background = np.clip(base + patches, 0, 255)
    occluded = uniform() < 0.10
    angle, contrast = uniform(0, 2 * np.pi), uniform(0.0, 0.38)
    return Scene(
        light=(float(contrast * np.cos(angle)), float(contrast * np.sin(angle))),
        gain=uniform(0.65, 1.2),
        tint=tuple((1 + normal(0, 0.03, 3)).tolist()),
        saturation=0.0 if uniform() < 0.12 else uniform(0.6, 1.0),
        background=background.astype(np.uint8),
        occlusion=OCCLUSIONS[generator.integers(1, len(OCCLUSIONS))] if occluded else "none",
        occlusion_place=tuple(uniform(0, 1, 3).tolist()),
        occlusion_colour=tuple(uniform(20, 225, 3).tolist()),
        blur=max(0.0, uniform(-0.008, 0.014)),
        noise=max(0.0, uniform(-3.0, 6.0)),
        noise_seed=int(generator.integers(2**32)),
    )


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
    identity, pose, scene = _identity(generator), _pose(generator), _scene(generator)
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
