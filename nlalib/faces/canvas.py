"""An image to paint on, in fractions of its side."""

import cv2
import numpy as np

# OpenCV's threads cost more than they save on pictures this small, and draw the same pixels.
cv2.setNumThreads(1)

_SHIFT = 4  # OpenCV's fixed point: 1/16 pixel
SMALLEST_CANVAS = 96  # pixels: OpenCV's thinnest line, one pixel, is too thick for less


class Canvas:
    """An image, and drawing on it in fractions of its side."""

    def __init__(self, image: np.ndarray) -> None:
        self.image, self.side = image, image.shape[0]
        self.skin = np.zeros(image.shape[:2], np.uint8)  # above 0 where skin was painted

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        # OpenCV counts from the first pixel's centre, the fractions from the image's corner.
        return (points * (self.side << _SHIFT) - 0.5 * (1 << _SHIFT)).astype(np.int32)

    def fill(self, points: np.ndarray, colour: tuple) -> None:
        cv2.fillPoly(self.image, [self._fixed(points)], colour, cv2.LINE_AA, _SHIFT)

    def fill_skin(self, points: np.ndarray, colour: tuple) -> None:
        self.fill(points, colour)
        cv2.fillPoly(self.skin, [self._fixed(points)], 255, cv2.LINE_AA, _SHIFT)

    def line(self, points: np.ndarray, colour: tuple, width: float, closed: bool = False) -> None:
        thickness = max(1, round(width * self.side))
        cv2.polylines(
            self.image, [self._fixed(points)], closed, colour, thickness, cv2.LINE_AA, _SHIFT
        )


def scaled(colour: tuple, factor: float) -> tuple:
    """Return a colour made lighter or darker."""
    return tuple(min(255.0, factor * channel) for channel in colour)
