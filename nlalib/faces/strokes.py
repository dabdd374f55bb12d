"""Brows, wrinkles and folds: curved strokes whose width and darkness follow the action units."""

import numpy as np

from nlalib.faces.geometry import project
from nlalib.faces.parameters import Identity, Pose

# (10,): times a stroke (see `crease_strokes`), this gives the stroke on the other side.
MIRROR_STROKE = np.array([-1.0, 1, -1, 1, -1, 1, 1, 1, 1, 1])
_STEP = np.linspace(0.0, 1.0, 8)  # position along a stroke
_BEZIER = np.array([(1 - _STEP) ** 2, 2 * _STEP * (1 - _STEP), _STEP**2]).T
_BEZIER_SLOPE = 2 * np.array([_STEP - 1, 1 - 2 * _STEP, _STEP]).T


def crease_strokes(identity: Identity, units: dict[str, float]) -> np.ndarray:
    """Return the wrinkles and folds that show, (m, 10), one row each.

    A row is the three points that the line passes through (x, y each), its half-width at them,
    and how dark it is (0..1).
    """
    u, age = units, 0.5 * identity.age
    nose, mouth, eye = identity.nose_width, identity.mouth_width, identity.eye_spacing
    pull, raised, wrinkle = u["lip_corner_pull"], u["cheek_raise"], u["nose_wrinkle"]
    lift = 0.05 * u["upper_lip_raise"] + 0.03 * wrinkle
    fold = 0.10 + 0.5 * age + 0.5 * max(wrinkle, u["upper_lip_raise"], 0.9 * pull)
    crow = 0.5 * raised + 0.4 * age
    bag = 0.12 + 0.6 * age + 0.35 * max(raised, u["lid_tighten"])
    crease = 0.16 + 0.085 * identity.eye_size + 0.05 * u["upper_lid_raise"]
    forehead = max(0.5 * u["outer_brow_raise"], 0.3 * u["inner_brow_raise"], 0.4 * age)
    marionette = 0.45 * u["lip_corner_depress"] + 0.3 * age + 0.2 * u["lip_stretch"]
    rows = [
        (-0.09, 0.80, 0.0, 0.77, 0.09, 0.80, 0.004, 0.012, 0.004, 0.55 * u["chin_raise"]),
        (-0.08, -0.21, 0.0, -0.19, 0.08, -0.21, 0.003, 0.012, 0.003, 0.7 * wrinkle),
        (-0.07, -0.13, 0.0, -0.11, 0.07, -0.13, 0.003, 0.010, 0.003, 0.6 * wrinkle),
        (-0.38, -0.55, 0.0, -0.58, 0.38, -0.55, 0.003, 0.010, 0.003, forehead),
        (-0.38, -0.65, 0.0, -0.68, 0.38, -0.65, 0.003, 0.010, 0.003, forehead),
        (-0.38, -0.75, 0.0, -0.78, 0.38, -0.75, 0.003, 0.010, 0.003, forehead),
    ]
    side = [  # of the right half, x outwards; mirrored below
        # from the nose's wing to beside the mouth's corner
        (nose + 0.03, 0.20 - lift, nose + 0.12 + 0.04 * pull, 0.32 - lift,
         mouth + 0.07 + 0.10 * pull, 0.54 - 0.05 * pull, 0.006, 0.016, 0.004, fold),
        # between the brows, and along the nose's side
        (0.06, -0.44, 0.05, -0.36, 0.065, -0.27, 0.003, 0.013, 0.003,
         0.75 * u["brow_lower"] + 0.2 * age),
        (0.06, -0.10, 0.11, -0.02, 0.17, 0.02, 0.003, 0.012, 0.003, 0.6 * wrinkle),
        # below and beside the eye
        (eye - 0.14, -0.04, eye, 0.02 - 0.02 * raised, eye + 0.14, -0.05,
         0.003, 0.012, 0.003, bag),
        (eye + 0.18, -0.15, eye + 0.22, -0.17, eye + 0.26, -0.20, 0.004, 0.007, 0.002, crow),
        (eye + 0.18, -0.11, eye + 0.22, -0.10, eye + 0.26, -0.09, 0.004, 0.007, 0.002, crow),
        # the upper lid's crease, which a lowered brow hides
        (eye - 0.15, -0.17, eye, -crease, eye + 0.16, -0.17, 0.003, 0.010, 0.003,
         0.4 * (1 - 0.5 * u["brow_lower"])),
        # from the mouth's corner downwards
        (mouth + 0.05, 0.60, mouth + 0.09, 0.68, mouth + 0.09, 0.77, 0.004, 0.010, 0.002,
         marionette),
        # the nose's wing
        (nose - 0.02, 0.14 - lift, nose + 0.01, 0.21 - lift, nose - 0.02, 0.27 - lift,
         0.004, 0.012, 0.006, 0.35),
    ]  # fmt: skip
    side = np.array(side)
    mirrored = side * MIRROR_STROKE
    rows = np.concatenate([np.array(rows), side, mirrored])
    return rows[rows[:, 9] > 0.02]


def brow_strokes(identity: Identity, units: dict[str, float]) -> np.ndarray:
    """Return both brows, (2, 9): strokes as in `crease_strokes`, without the darkness."""
    u = units
    base = -0.37 - identity.brow_height - 0.02 * u["upper_lid_raise"]
    inner = base - 0.13 * u["inner_brow_raise"] + 0.04 * u["nose_wrinkle"]
    inner += 0.10 * u["brow_lower"] * (1 - 0.5 * u["inner_brow_raise"])
    middle = base - 0.04 - 0.06 * u["inner_brow_raise"] - 0.10 * u["outer_brow_raise"]
    middle += 0.085 * u["brow_lower"] + 0.03 * u["nose_wrinkle"]
    outer = base + 0.03 - identity.brow_tilt - 0.12 * u["outer_brow_raise"] + 0.02 * u["brow_lower"]
    # Where only the inner end rises, the outer end sinks: the oblique brow of sorrow.
    outer += 0.05 * max(u["inner_brow_raise"] - u["outer_brow_raise"], 0)
    near = identity.eye_spacing - 0.19 - 0.05 * u["brow_lower"] - 0.02 * u["inner_brow_raise"]
    far = identity.eye_spacing + 0.22
    thick = identity.brow_thickness
    strokes = [
        (s * near, inner, s * (identity.eye_spacing + 0.03), middle, s * far, outer,
         0.7 * thick, 0.8 * thick, 0.2 * thick)
        for s in (-1, 1)
    ]  # fmt: skip
    return np.array(strokes)


def stroke_outlines(strokes: np.ndarray, pose: Pose) -> np.ndarray:
    """Return outlines (m, 16, 2), in fractions, of strokes (m, >= 9): see `crease_strokes`."""
    points = project(strokes[:, :6].reshape(-1, 2), pose).reshape(-1, 3, 2)
    # A quadratic Bezier curve passes half-way between its control point and the chord's middle.
    points[:, 1] = 2 * points[:, 1] - 0.5 * (points[:, 0] + points[:, 2])
    centre = _BEZIER @ points  # (m, 8, 2)
    along = _BEZIER_SLOPE @ points
    normal = along[..., ::-1] * (-1, 1) / np.sqrt((along * along).sum(axis=-1, keepdims=True))
    width = strokes[:, 6:9].copy()
    width[:, 1] = 2 * width[:, 1] - 0.5 * (width[:, 0] + width[:, 2])
    edge = normal * (width @ _BEZIER.T)[..., None] * pose.scale
    return np.concatenate([centre + edge, (centre - edge)[:, ::-1]], axis=1)
