"""Face alignment by three landmarks: the two eyes and the middle of the mouth.

The paper aligns and crops faces by three landmarks and resizes them to 224 x 224. Which three,
and where they go in the crop, is not known; the choice made here is ours (see `TEMPLATE`).

All points are (x, y) in pixels with (0, 0) at the *top left corner* of the image, not at the
centre of its first pixel, whose centre is (0.5, 0.5). So a fraction of the width times the width
is a point, and resizing an image scales its points without an offset of half a pixel.
"""

import cv2
import numpy as np
from skimage.transform import AffineTransform, SimilarityTransform

from nlalib.names import named

# The five points that ArcFace's preparation puts into a crop of 112 x 112 pixels (insightface,
# `arcface_dst` in face_align.py): eyes, nose, corners of the mouth.
_ARCFACE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
# Its eyes and mouth centre as fractions of the crop. Made for recognition: the crop ends at the
# chin of a closed mouth.
ARCFACE_TEMPLATE = np.array([*_ARCFACE_112[:2], _ARCFACE_112[3:].mean(axis=0)]) / 112

# Ours, the default: made exactly symmetric, because the second view of an image is its mirror,
# with about ArcFace's proportions (mouth 1.15 inter-eye distances below the eyes) but smaller and
# higher, so that the jaw of an open mouth and raised brows stay inside.
TEMPLATE = np.array([[0.35, 0.40], [0.65, 0.40], [0.50, 0.745]])

# Smallest accepted area of the landmarks' triangle over its longest side squared (the template
# has 0.46): below it the shape is a line, and a transform would only amplify noise.
_SMALLEST_TRIANGLE = 0.01


def three_landmarks(points: np.ndarray) -> np.ndarray:
    """Return the three landmarks that align a face: both eyes and the middle of the mouth.

    Parameters
    ----------
    points : numpy.ndarray
        (..., 5, 2), in the order of `nlalib.data.index.LANDMARKS`: left and right eye, nose, left
        and right corner of the mouth, left and right as the viewer sees them.

    Returns
    -------
    numpy.ndarray
        (..., 3, 2), float64.

    Raises
    ------
    ValueError
        If the shape is another one.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.shape[-2:] != (5, 2):
        raise ValueError(f"landmarks have shape {points.shape}; expected (..., 5, 2)")
    mouth = points[..., 3:, :].mean(axis=-2, keepdims=True)
    return np.concatenate([points[..., :2, :], mouth], axis=-2)


def _check_triangle(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.shape != (3, 2):
        raise ValueError(f"landmarks have shape {points.shape}; expected three points, (3, 2)")
    if not np.isfinite(points).all():
        raise ValueError(f"landmarks are not finite: {points.tolist()}; leave this face out")
    (ax, ay), (bx, by) = points[1] - points[0], points[2] - points[0]
    sides = points - np.roll(points, 1, axis=0)
    longest = (sides**2).sum(axis=1).max()
    # Positive where the third point lies below the line from the left to the right eye (y points
    # down), whatever the rotation of the face.
    shape = (ax * by - ay * bx) / 2 / longest if longest > 0 else 0.0
    if abs(shape) < _SMALLEST_TRIANGLE:
        raise ValueError(
            f"landmarks {points.tolist()} lie on one line or in one point; "
            "eyes and mouth must form a triangle"
        )
    if shape < 0:
        raise ValueError(
            f"landmarks {points.tolist()} are mirrored; left and right are meant as the viewer "
            "sees them, so swap the eyes if they are the subject's"
        )
    return points


def similarity_transform(points: np.ndarray, template: np.ndarray) -> SimilarityTransform:
    """Return the rotation, uniform scale and shift that take `points` closest to `template`.

    Least squares over the three points (Umeyama 1991). It keeps the face's own proportions, so
    the points meet the template only as far as the face has the template's shape.

    Parameters
    ----------
    points, template : numpy.ndarray
        (3, 2), pixels of the image and of the crop.

    Returns
    -------
    skimage.transform.SimilarityTransform
        Called with points (n, 2) of the image, it gives points (n, 2) of the crop.

    Raises
    ------
    ValueError
        If `points` are not finite, lie on a line or in a point, or are mirrored.
    """
    return SimilarityTransform.from_estimate(_check_triangle(points), template)


def affine_transform(points: np.ndarray, template: np.ndarray) -> AffineTransform:
    """Return the affine map that takes the three `points` exactly to `template`.

    It changes the face's proportions. Parameters, result and errors as for
    `similarity_transform`.
    """
    return AffineTransform.from_estimate(_check_triangle(points), template)


_TRANSFORMS = {"similarity": similarity_transform, "affine": affine_transform}


def warp_image(
    image: np.ndarray,
    transform: AffineTransform,
    size: int,
    *,
    border: int = cv2.BORDER_CONSTANT,
) -> np.ndarray:
    """Return the square of `size` pixels that `transform` cuts out of `image`.

    Bilinear. Where the crop is smaller than its source, the
    source is smoothed first, with the width `skimage.transform.resize` uses against aliasing.

    Parameters
    ----------
    image : numpy.ndarray
        (height, width, 3), uint8.
    transform : skimage.transform.AffineTransform or SimilarityTransform
        From points of the image to points of the crop.
    size : int
        Side of the crop in pixels.
    border : int
        What lies outside the image, as OpenCV names it: black, or with `cv2.BORDER_REPLICATE` the
        nearest pixel of the image.

    Returns
    -------
    numpy.ndarray
        (size, size, 3), uint8.

    Raises
    ------
    ValueError
        If the image has another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.dtype} of shape {image.shape}; expected uint8 (height, width, 3)"
        )
    matrix = transform.params[:2]
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if scale < 1:
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=(1 / scale - 1) / 2 + 1e-6)
    # OpenCV counts from the centre of the first pixel, this module from its corner.
    linear, half = matrix[:, :2], np.array([0.5, 0.5])
    shift = linear @ half + matrix[:, 2] - half
    return cv2.warpAffine(
        image,
        np.column_stack([linear, shift]),
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=border,
    )


def align_face(
    image: np.ndarray,
    points: np.ndarray,
    *,
    size: int = 224,
    method: str = "similarity",
    template: np.ndarray = TEMPLATE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a face rotated, scaled and cropped to the template, and its landmarks in the crop.

    Parameters
    ----------
    image : numpy.ndarray
        (height, width, 3), uint8.
    points : numpy.ndarray
        (5, 2), pixels, in the order of `nlalib.data.index.LANDMARKS`.
    size : int
        Side of the crop in pixels.
    method : {"similarity", "affine"}
        Keep the face's proportions, or meet the template exactly.
    template : numpy.ndarray
        (3, 2), where the eyes and the mouth's centre go, in fractions of the crop.

    Returns
    -------
    crop : numpy.ndarray
        (size, size, 3), uint8.
    points : numpy.ndarray
        (5, 2), float64, pixels of the crop.

    Raises
    ------
    ValueError
        For an unknown method, an image of another kind, or points that define no transform.
    """
    estimate = named(_TRANSFORMS, method, "method")
    transform = estimate(three_landmarks(points), np.asarray(template) * size)
    return warp_image(image, transform, size), transform(np.asarray(points, dtype=np.float64))


def landmark_error(found: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of each landmark from its known place, in pixels and relative.

    Parameters
    ----------
    found, known : numpy.ndarray
        (..., points, 2), pixels; the first two of `known` are the eyes.

    Returns
    -------
    pixels, relative : numpy.ndarray
        (..., points); `relative` is in inter-eye distances of the known face, so that faces of
        any size can be compared.

    Raises
    ------
    ValueError
        If the shapes differ or the known eyes coincide.
    """
    found, known = np.asarray(found, dtype=np.float64), np.asarray(known, dtype=np.float64)
    if found.shape != known.shape or known.ndim < 2 or known.shape[-1] != 2 or known.shape[-2] < 2:
        raise ValueError(
            f"found {found.shape} and known {known.shape} landmarks must share one shape "
            "(..., points, 2) with both eyes first"
        )
    between_eyes = np.linalg.norm(known[..., 0, :] - known[..., 1, :], axis=-1)
    if (between_eyes == 0).any():
        raise ValueError("the known eyes of a face coincide; its inter-eye distance is 0")
    pixels = np.linalg.norm(found - known, axis=-1)
    return pixels, pixels / between_eyes[..., None]
