"""Draws one face from parameters: expression, identity, pose and scene.

The face is a set of outlines on a shallow curved surface. They follow the action units (FACS,
Ekman and Friesen 1978), are turned, and are then painted from back to front; soft shading and
wrinkles are two small maps multiplied onto the skin. All lengths are fractions, so the same
parameters give the same face at any size.

Face coordinates: x to the viewer's right, y down, z towards the viewer; (0, 0) is the middle of
the face and the chin of a face at rest lies near (0, 1).
"""

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

# OpenCV's threads cost more than they save on pictures this small, and draw the same pixels.
cv2.setNumThreads(1)

ACTION_UNITS = (
    "inner_brow_raise", "outer_brow_raise", "brow_lower", "upper_lid_raise", "cheek_raise",
    "lid_tighten", "lid_droop", "nose_wrinkle", "upper_lip_raise", "lip_corner_pull",
    "lip_corner_depress", "chin_raise", "lip_stretch", "lip_press", "lips_part", "jaw_drop",
)  # fmt: skip
HAIR_STYLES = ("bald", "receding", "short", "fringe", "parted", "long", "curly", "headscarf", "cap")
OCCLUSIONS = ("none", "hand", "scarf", "hair", "sunglasses", "object")

_SHIFT = 4  # OpenCV's fixed point: 1/16 pixel
_SMALLEST_CANVAS = 96  # pixels: OpenCV's thinnest line, one pixel, is too thick for less
_LIP_LINE = np.array([0.0, 0.0022])  # half the thickness of the line between closed lips
_SHADING_SIZE = 32  # side of the map of soft shading before it is enlarged
_EYE_Y = -0.13  # of both eyes' centres, in face coordinates
_NOSE_LIFT = 0.16  # of the nose's tip above the face's surface
_DEPTH = 0.62  # of the face's middle before the silhouette's plane
_ALONG = np.linspace(-1.0, 1.0, 13)  # position along an eyelid or a lip, between its corners
_CIRCLE = np.array([f(np.linspace(0, 2 * np.pi, 20, endpoint=False)) for f in (np.cos, np.sin)]).T
_MIRROR_STROKE = np.array([-1.0, 1, -1, 1, -1, 1, 1, 1, 1, 1])
_IRIS = np.concatenate([0.088 * _CIRCLE, 0.040 * _CIRCLE, 0.018 * _CIRCLE + (-0.025, -0.028)])
_STEP = np.linspace(0.0, 1.0, 8)  # position along a stroke
_BEZIER = np.array([(1 - _STEP) ** 2, 2 * _STEP * (1 - _STEP), _STEP**2]).T
_BEZIER_SLOPE = 2 * np.array([_STEP - 1, 1 - 2 * _STEP, _STEP]).T


@dataclass(frozen=True)
class Identity:
    """What does not change with the expression. Lengths in face coordinates, colours 0..255."""

    skin: tuple = (226, 182, 148)
    hair: tuple = (70, 46, 30)
    iris: tuple = (92, 64, 40)
    lips: tuple = (190, 108, 98)
    clothes: tuple = (70, 90, 130)
    hair_style: str = "short"
    hair_side: float = 1.0  # -1 or 1: on which side it is parted
    face_width: float = 0.78
    jaw: float = 0.85  # below 1 square, above 1 pointed
    chin: float = 1.0
    brow_thickness: float = 0.045
    brow_height: float = 0.0
    brow_tilt: float = 0.0  # above 0: outer ends higher
    brow_darkness: float = 0.8
    eye_size: float = 1.0
    eye_spacing: float = 0.37
    eye_tilt: float = 0.05
    lashes: float = 0.3
    nose_width: float = 0.14
    nose_length: float = 0.25
    mouth_width: float = 0.30
    lip_fullness: float = 1.0
    mouth_curve: float = 0.0  # of the resting mouth; above 0: corners higher
    beard: float = 0.0  # 0 shaven .. 1 full
    moustache: float = 0.0
    glasses: float = 0.0  # 0 none, else the rims' darkness
    age: float = 0.3  # 0 smooth .. 1 deep lines


@dataclass(frozen=True)
class Pose:
    """Angles in radians (positive: to the viewer's right, down, clockwise), the rest fractions."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    scale: float = 0.40  # of the image's side, for one unit of face coordinates
    shift: tuple = (0.0, 0.0)
    gaze: tuple = (0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """Light, background, what hides the face, and the camera."""

    light: tuple = (0.0, -0.3)  # where the light comes from; its length is its contrast
    gain: float = 1.0
    tint: tuple = (1.0, 1.0, 1.0)
    saturation: float = 1.0  # 0 gives a grey picture
    background: np.ndarray = field(default_factory=lambda: np.full((4, 4, 3), 150, np.uint8))
    occlusion: str = "none"
    occlusion_place: tuple = (0.5, 0.5, 0.5)  # three numbers 0..1 that vary it
    occlusion_colour: tuple = (120, 60, 60)
    blur: float = 0.0  # standard deviation, as a fraction of the image's side
    noise: float = 0.0  # standard deviation, in grey levels
    noise_seed: int = 0


@dataclass(frozen=True)
class FaceParameters:
    """All that `draw_face` needs. `dataclasses.replace` gives the same face with one thing changed.

    `mixture` (7,) are the shares of the basic expressions, `intensity` scales all action units,
    `openness` (0..1) chooses between an expression's closed-mouth and open-mouth form, and
    `unit_gain` and `unit_offset` (16,) are this person's way of showing it: a unit is drawn as
    gain * prototype + offset.
    """

    mixture: np.ndarray
    intensity: float = 1.0
    openness: float = 0.5
    unit_gain: np.ndarray = field(default_factory=lambda: np.ones(len(ACTION_UNITS)))
    unit_offset: np.ndarray = field(default_factory=lambda: np.zeros(len(ACTION_UNITS)))
    asymmetry: float = 0.0  # above 0: the mouth's corner on the viewer's right moves more
    identity: Identity = Identity()
    pose: Pose = Pose()
    scene: Scene = field(default_factory=Scene)


# Prototypes after EMFACS: for each basic expression its closed-mouth and its open-mouth form.
_PROTOTYPES = {
    "surprise": (
        dict(inner_brow_raise=1, outer_brow_raise=1, upper_lid_raise=0.9, lips_part=0.5,
             jaw_drop=0.45),
        dict(inner_brow_raise=1, outer_brow_raise=1, upper_lid_raise=1, lips_part=0.7,
             jaw_drop=1.1),
    ),
    "fear": (
        dict(inner_brow_raise=1, outer_brow_raise=0.4, brow_lower=0.45, upper_lid_raise=0.9,
             lid_tighten=0.2, lip_stretch=0.9, lips_part=0.4),
        dict(inner_brow_raise=1, outer_brow_raise=0.4, brow_lower=0.45, upper_lid_raise=1,
             lid_tighten=0.2, lip_stretch=1, lips_part=0.7, jaw_drop=0.45, lip_corner_depress=0.2),
    ),
    "disgust": (
        dict(nose_wrinkle=1, upper_lip_raise=0.8, brow_lower=0.6, lid_tighten=0.7, cheek_raise=0.4,
             chin_raise=0.6, lip_corner_depress=0.5),
        dict(nose_wrinkle=1, upper_lip_raise=1.1, brow_lower=0.6, lid_tighten=0.8, cheek_raise=0.4,
             lips_part=0.5, jaw_drop=0.25, lip_corner_depress=0.3),
    ),
    "happiness": (
        dict(lip_corner_pull=1, cheek_raise=0.8, lid_tighten=0.2),
        dict(lip_corner_pull=1.1, cheek_raise=1, lid_tighten=0.2, lips_part=0.9, jaw_drop=0.3),
    ),
    "sadness": (
        dict(inner_brow_raise=0.9, brow_lower=0.35, lip_corner_depress=1, chin_raise=0.6,
             lid_droop=0.6),
        dict(inner_brow_raise=1, brow_lower=0.45, lip_corner_depress=1, lid_droop=0.8,
             lips_part=0.3, lip_stretch=0.2, cheek_raise=0.3),
    ),
    "anger": (
        dict(brow_lower=1.1, upper_lid_raise=0.3, lid_tighten=0.6, lip_press=1, chin_raise=0.3,
             lip_corner_depress=0.2),
        dict(brow_lower=1.1, upper_lid_raise=0.5, lid_tighten=0.5, upper_lip_raise=0.4,
             nose_wrinkle=0.3, lips_part=0.8, jaw_drop=0.5, lip_stretch=0.2),
    ),
    "neutral": ({}, {}),
}  # fmt: skip
# (2, 7, 16): form, expression in the order of `nlalib.labels`, action unit.
PROTOTYPES = np.array(
    [[[form.get(unit, 0.0) for unit in ACTION_UNITS] for form in forms] for forms in
     zip(*_PROTOTYPES.values(), strict=True)]
)  # fmt: skip


def action_units(parameters: FaceParameters) -> dict[str, float]:
    """Return the strength of each action unit: 0 at rest, about 1 in a full pure expression."""
    forms = parameters.mixture @ PROTOTYPES  # (2, 16)
    shown = forms[0] + parameters.openness * (forms[1] - forms[0])
    shown = parameters.unit_gain * parameters.intensity * shown + parameters.unit_offset
    return dict(zip(ACTION_UNITS, np.clip(shown, 0.0, 1.3).tolist(), strict=True))


@lru_cache(maxsize=64)
def _turn(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix (3, 2) and the offset (2,) from face coordinates to fractions."""
    cos, sin = pose.scale * np.cos(pose.roll), pose.scale * np.sin(pose.roll)
    turn = np.array(
        [(np.cos(pose.yaw), 0), (0, np.cos(pose.pitch)), (np.sin(pose.yaw), np.sin(pose.pitch))]
    ) @ np.array([(cos, sin), (-sin, cos)])
    return turn, np.array([0.5 + pose.shift[0], 0.52 + pose.shift[1]])


def project(
    points: np.ndarray, pose: Pose, depth: float = 1.0, lift: float | np.ndarray = 0.0
) -> np.ndarray:
    """Map face coordinates to fractions of the image: a paraboloid, turned, without perspective.

    Parameters
    ----------
    points : numpy.ndarray
        (N, 2), face coordinates.
    pose : Pose
    depth : float
        1 for points on the face, 0 for points in the silhouette's plane (hair, shoulders).
    lift : float
        Height above the surface (the tip of the nose).

    Returns
    -------
    numpy.ndarray
        (N, 2), float64, (0, 0) the image's top left corner, (1, 1) its bottom right corner.
    """
    turn, offset = _turn(pose)
    x, y = points[:, 0], points[:, 1]
    z = depth * _DEPTH * np.maximum(1 - 1.25 * x * x - 0.42 * y * y, 0) + lift
    return np.array([x, y, z]).T @ turn + offset


def _project_all(outlines: dict[str, np.ndarray], pose: Pose) -> dict[str, np.ndarray]:
    """Project several outlines in one call: for the few points of each, a call costs the most."""
    points = project(np.concatenate(list(outlines.values())), pose)
    ends = np.cumsum([len(outline) for outline in outlines.values()]).tolist()
    starts = [0, *ends[:-1]]
    return {k: points[a:b] for k, a, b in zip(outlines, starts, ends, strict=True)}


def _mouth(identity: Identity, units: dict[str, float], asymmetry: float) -> dict[str, np.ndarray]:
    """Return the lips' outlines (13, 2) each, from the viewer's left corner to the right one."""
    u, t = units, _ALONG
    pull = u["lip_corner_pull"] * (1 + asymmetry * np.sign(t))
    depress = u["lip_corner_depress"] * (1 + asymmetry * np.sign(t))
    half = identity.mouth_width + 0.10 * pull + 0.09 * u["lip_stretch"] - 0.03 * u["lip_press"]
    half = np.maximum(half - 0.07 * u["jaw_drop"] * (1 - u["lip_stretch"] * 0.6), 0.1)
    corner = -identity.mouth_curve - 0.13 * pull + 0.10 * depress + 0.03 * u["lip_stretch"]
    middle = identity.nose_length + 0.31 + 0.02 * u["lip_corner_pull"] - 0.04 * u["chin_raise"]
    # An opened jaw takes the corners half-way down, so that the mouth becomes an O.
    line = middle + (corner + 0.09 * u["jaw_drop"]) * np.abs(t) ** 1.7
    open_up = 0.02 * u["lips_part"] + 0.02 * u["upper_lip_raise"] * (u["lips_part"] > 0)
    open_down = 0.07 * u["lips_part"] + 0.24 * u["jaw_drop"]
    arch = np.sqrt(np.maximum(1 - t * t, 0))
    thick = identity.lip_fullness * (1 - 0.75 * u["lip_press"]) * (1 - 0.15 * u["lip_corner_pull"])
    cupid = (1 - t * t) * (1 - 0.18 * np.exp(-((t / 0.16) ** 2)))
    # The raised upper lip is lifted on both sides of the middle: a trapezoid, as in a sneer.
    raise_upper = 0.075 * u["upper_lip_raise"] * (1 - t**4)
    upper_inner = line - raise_upper - open_up * arch
    lower_inner = line - 0.5 * raise_upper + open_down * arch - 0.05 * u["chin_raise"] * (1 - t * t)
    lower_inner = np.maximum(lower_inner, upper_inner)
    upper = upper_inner - (0.062 * thick + 0.02 * u["upper_lip_raise"]) * cupid
    lower = lower_inner + (0.088 * thick + 0.02 * u["chin_raise"]) * (1 - t * t) ** 0.8
    x = t * half
    names = ("upper", "upper_inner", "lower_inner", "lower")
    return {
        name: np.array([x, y]).T
        for name, y in zip(names, (upper, upper_inner, lower_inner, lower), strict=True)
    }


def _eye(
    identity: Identity, units: dict[str, float], gaze: tuple, side: int
) -> dict[str, np.ndarray]:
    """Return the outlines of the eye on the viewer's left (`side` -1) or right (1)."""
    u = units
    half = 0.175 * identity.eye_size
    top = 0.088 * identity.eye_size * (1 + 0.75 * u["upper_lid_raise"] - 0.45 * u["lid_droop"])
    tight = 0.4 * u["lid_tighten"] * (1 - 0.6 * min(u["upper_lid_raise"], 1))
    top *= 1 - tight - 0.15 * u["cheek_raise"]
    bottom = 0.058 * identity.eye_size * (1 + 0.2 * u["upper_lid_raise"] - 0.4 * u["lid_tighten"])
    bottom -= 0.045 * u["cheek_raise"]
    top = max(top, 0.006)
    outward = _ALONG * side
    x = side * identity.eye_spacing + half * _ALONG
    middle = _EYE_Y - (identity.eye_tilt - 0.12 * u["lid_droop"]) * half * outward
    upper = middle - top * (1 - np.abs(_ALONG) ** 2.2) * (1 - 0.18 * outward)
    lower = np.maximum(middle + bottom * (1 - _ALONG**2), upper)

    # Iris, pupil and glint are circles, cut off by the lids.
    ball = _IRIS * identity.eye_size + (
        side * identity.eye_spacing + gaze[0] * half, _EYE_Y - 0.012 + gaze[1] * 0.05
    )  # fmt: skip
    ball_x = np.minimum(np.maximum(ball[:, 0], x[0]), x[-1])
    ball_y = np.maximum(ball[:, 1], np.interp(ball_x, x, upper))
    ball_y = np.minimum(ball_y, np.interp(ball_x, x, lower))
    ball = np.array([ball_x, ball_y]).T
    return {
        "white": np.concatenate([np.array([x, upper]).T, np.array([x, lower]).T[::-1]]),
        "iris": ball[:20],
        "pupil": ball[20:40],
        "glint": ball[40:],
    }


def _creases(identity: Identity, units: dict[str, float]) -> np.ndarray:
    """Return wrinkles and folds, one row each, only those that show.

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
    mirrored = side * _MIRROR_STROKE
    rows = np.concatenate([np.array(rows), side, mirrored])
    return rows[rows[:, 9] > 0.02]


def _brows(identity: Identity, units: dict[str, float]) -> list[tuple]:
    """Return one stroke a brow, in the form of `_creases` (without the darkness)."""
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
    return [
        (s * near, inner, s * (identity.eye_spacing + 0.03), middle, s * far, outer,
         0.7 * thick, 0.8 * thick, 0.2 * thick)
        for s in (-1, 1)
    ]  # fmt: skip


def _stroke_outlines(strokes: np.ndarray, pose: Pose) -> np.ndarray:
    """Return outlines (m, 16, 2), in fractions, of strokes (m, >= 9) as `_creases` gives them."""
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


_ROUND = [f(np.linspace(0, 2 * np.pi, 40, endpoint=False)) for f in (np.cos, np.sin)]


def _head(identity: Identity, units: dict[str, float]) -> np.ndarray:
    """Return the face's outline (40, 2), clockwise from the viewer's right."""
    cos, sin = _ROUND
    chin = identity.chin + 0.14 * units["jaw_drop"] - 0.02 * units["chin_raise"]
    # Superellipses: the skull is broad, the jaw as square or pointed as the person's.
    x = identity.face_width * np.sign(cos) * np.abs(cos) ** np.where(sin > 0, identity.jaw, 0.8)
    x += 0.03 * units["lip_corner_pull"] * np.sign(cos) * np.exp(-(((sin - 0.4) / 0.3) ** 2))
    return np.array([x, np.where(sin > 0, chin * sin, 1.08 * sin)]).T


def face_landmarks(parameters: FaceParameters) -> np.ndarray:
    """Return where the drawn face has its landmarks, also where something hides them.

    Returns
    -------
    numpy.ndarray
        (5, 2), float64, in the order of `nlalib.index.LANDMARKS`; fractions of the image's width
        and height, which may lie outside 0..1 for a face that leaves the image. An eye's centre
        is the middle between its corners, so it does not move with the lids or the gaze.
    """
    identity, pose = parameters.identity, parameters.pose
    lips = _mouth(identity, action_units(parameters), parameters.asymmetry)["upper_inner"]
    spacing = identity.eye_spacing
    points = np.array(
        [(-spacing, _EYE_Y), (spacing, _EYE_Y), (0, identity.nose_length - 0.04), lips[0], lips[-1]]
    )
    lift = np.array([0, 0, _NOSE_LIFT, 0, 0])
    return project(points, pose, lift=lift)


_SHADING_GRID = (np.arange(_SHADING_SIZE, dtype=np.float32) + 0.5) / _SHADING_SIZE


def _shading(parameters: FaceParameters, units: dict[str, float]) -> np.ndarray:
    """Return the skin's soft light and shadow as factors, (32, 32, 3) float32, over the image."""
    identity, pose, u = parameters.identity, parameters.pose, units
    light_x, light_y = parameters.scene.light
    nose, width, eye = identity.nose_length, identity.face_width, identity.eye_spacing
    apple = 0.10 * u["cheek_raise"] + 0.06 * u["lip_corner_pull"]
    chin = identity.chin + 0.14 * u["jaw_drop"]
    rows = [  # x, y, lift, extent in x, extent in y, lightness, redness
        (0.0, -0.68, 0, 0.38, 0.20, 0.10 - 0.15 * light_y, 0),  # forehead
        (0.0, nose - 0.07, 0.15, 0.06, 0.06, 0.16, 0.02),  # nose: tip, ridge, below
        (0.0, -0.02, 0.06, 0.045, 0.18, 0.12, 0),
        (0.0, nose + 0.035, 0.08, 0.14, 0.03, -0.25, 0.02),
        (0.0, nose + 0.10, 0, 0.04, 0.05, -0.06, 0),  # philtrum
        (0.0, 0.74 + 0.24 * u["jaw_drop"], 0, 0.16, 0.035, -0.14, 0),  # below the lip
        (0.0, chin - 0.11, 0, 0.13, 0.08, 0.08, 0),
        (0.0, chin + 0.10, 0, 0.45, 0.10, -0.40, 0),  # neck, in the chin's shadow
        (0.0, -0.30, 0, 0.07, 0.07, -0.16 * u["brow_lower"], 0),
    ]
    for s in (-1, 1):
        away = max(-light_x * s, 0)
        rows += [
            (s * eye, -0.20, 0, 0.15, 0.07, -0.20 - 0.12 * u["brow_lower"], 0.02),  # socket
            (s * (eye - 0.18), -0.12, 0, 0.05, 0.10, -0.14, 0.01),
            (s * 0.10, 0.06, 0.03, 0.05, 0.18, -0.10 - 0.4 * away, 0),  # nose's side
            (s * 0.42, 0.20 - apple, 0, 0.17, 0.13, 0.10 + apple / 2, 0.05 + 0.4 * apple),  # cheek
            (s * 0.47, 0.46, 0, 0.12, 0.18, -0.08 - 0.3 * apple, 0),
            (s * width, 0.05, 0, 0.16, 0.70, -0.22 - 0.5 * away, 0),  # the head's side
        ]
    table = np.array(rows, dtype=np.float32)
    centre = project(table[:, :2], pose, lift=table[:, 2])
    offset = _SHADING_GRID - centre.astype(np.float32)[..., None]  # (K, 2, 32)
    offset /= table[:, 3:5, None] * np.float32(pose.scale)
    bell = np.exp(-0.5 * offset * offset).astype(np.float32)
    # Separable bells: one matrix product a channel sums them all.
    strength = table[:, 5:].T[..., None]  # (2, K, 1)
    light, red = bell[:, 1].T @ (strength * bell[:, 0])
    return 1 + np.stack([light + red, light - 0.6 * red, light - 0.6 * red], axis=-1)


class _Canvas:
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


def _scaled(colour: tuple, factor: float) -> tuple:
    return tuple(min(255.0, factor * channel) for channel in colour)


# Hair style: volume, hairline's height, exponent of its curve (large: square), lower end behind.
_HAIR = {
    "bald": (0.0, -1.05, 2.0, 0.0),
    "receding": (0.05, -0.93, 2.5, 0.0),
    "short": (0.10, -0.76, 5.0, 0.0),
    "fringe": (0.14, -0.50, 9.0, 0.4),
    "parted": (0.15, -0.74, 3.5, 0.9),
    "long": (0.16, -0.76, 3.0, 1.5),
    "curly": (0.28, -0.70, 5.0, 0.7),
    "headscarf": (0.20, -0.66, 3.2, 1.5),
    "cap": (0.12, -0.60, 14.0, 0.0),
}
_BACK = np.linspace(0.0, 1.0, 9)  # down the hair behind: widest half-way, rounded at the ends
_BACK_BULGE = np.sqrt(np.sin(np.pi * (0.08 + 0.92 * _BACK)))
# Neck (its upper four points of half-width 1) and shoulders.
_TRUNK = np.array(
    [(-1.15, 1.25), (-1, 0.5), (1, 0.5), (1.15, 1.25), (0.9, 1.6), (-0.9, 1.6),
     (-1.7, 2.4), (-1.45, 1.45), (-0.5, 1.2), (-0.3, 1.27), (0, 1.36), (0.3, 1.27), (0.5, 1.2),
     (1.45, 1.45), (1.7, 2.4)]
)  # fmt: skip
# Both ears and their hollows, for a face of half-width 0.5.
_EARS = np.concatenate(
    [_CIRCLE * (0.085, 0.17) + (s * 0.515, 0.02) for s in (-1, 1)]
    + [_CIRCLE * (0.04, 0.10) + (s * 0.53, 0.01) for s in (-1, 1)]
)


def _paint_behind(canvas: _Canvas, parameters: FaceParameters) -> None:
    """Paint hair behind the head, neck, shoulders and ears."""
    identity, pose = parameters.identity, parameters.pose
    volume, _, _, length = _HAIR[identity.hair_style]
    body = Pose(0.5 * pose.yaw, 0.0, 0.3 * pose.roll, pose.scale, pose.shift)
    wide = identity.face_width + volume
    fabric = identity.clothes if identity.hair_style in ("headscarf", "cap") else identity.hair
    if length:
        half = wide - 0.25 + 0.30 * _BACK_BULGE
        left = np.array([-half, -0.5 + (length + 0.5) * _BACK]).T
        back = np.concatenate([left, (left * (-1, 1))[::-1]])
        back = project(back, Pose(0.0, 0.0, 0.7 * pose.roll, pose.scale, pose.shift), depth=0)
        canvas.fill(back, _scaled(fabric, 0.62))
    neck = 0.36 + 0.1 * (identity.jaw < 0.8)
    trunk = _TRUNK.copy()
    trunk[:4, 0] *= neck
    trunk = project(trunk, body, depth=0)
    canvas.fill_skin(trunk[:6], _scaled(identity.skin, 0.80))
    canvas.fill(trunk[6:], identity.clothes)
    if identity.hair_style == "headscarf":
        canvas.fill(back, _scaled(fabric, 0.9))
        return
    ears = project(_EARS + np.sign(_EARS[:, :1]) * (identity.face_width - 0.5, 0), pose, depth=0)
    for start, tone in ((0, 0.92), (20, 0.92), (40, 0.72), (60, 0.72)):
        canvas.fill_skin(ears[start : start + 20], _scaled(identity.skin, tone))


_OVER = np.linspace(np.pi, 2 * np.pi, 22)  # from the left temple over the skull
_SKULL = np.array([np.sign(np.cos(_OVER)) * np.abs(np.cos(_OVER)) ** 0.72, np.sin(_OVER)]).T
_ACROSS = np.linspace(1.0, -1.0, 17)


def _paint_hair(canvas: _Canvas, parameters: FaceParameters) -> None:
    """Paint the hair (or fabric) in front of the head."""
    identity, pose = parameters.identity, parameters.pose
    style, side = identity.hair_style, identity.hair_side
    if style == "bald":
        return
    volume, hairline, exponent, _ = _HAIR[style]
    colour = identity.clothes if style in ("headscarf", "cap") else identity.hair
    bumps = 0.04 * np.sin(2.4 * np.arange(22))[:, None] if style == "curly" else 0.0
    wide = identity.face_width + 0.7 * volume
    outer = _SKULL * (wide, 1.06 + volume) * (1 + bumps)
    along = _ACROSS
    end = {"headscarf": 0.9, "long": 0.45, "curly": 0.15, "receding": -0.25}.get(style, -0.12)
    if style == "parted":
        hairline = hairline + 0.16 * np.clip(-along * side + 0.3, -1, 1)
    bend = np.abs(along) ** exponent
    line = hairline + (end - hairline) * bend
    edge = 0.98 if style in ("short", "cap", "receding", "fringe", "parted") else 0.90
    inner = np.array([edge * identity.face_width * along, line]).T
    if style in ("long", "headscarf", "curly"):
        tip = end + 0.3  # locks taper off
        low = np.array([(0.06 - wide, tip), (wide - 0.06, tip)])
        outer = np.concatenate([low[:1], outer, low[1:]])
    rim = project(inner, pose)
    canvas.fill(np.concatenate([project(outer, pose), rim]), colour)
    # Strands, a sheen, and the shadow that the hair throws on the forehead.
    for share, factor in ((0.25, 1.12), (0.5, 1.18), (0.8, 0.85)):
        arc = outer[3:-3] * (0.96 - 0.28 * share, 0.0) + (0, 1) * (
            outer[3:-3, 1:] * (1 - share) + share * np.minimum(outer[3:-3, 1:], -0.75)
        )
        if style in ("short", "fringe", "parted", "long", "curly"):
            canvas.line(project(arc, pose, depth=1 - 0.3 * share), _scaled(colour, factor), 0.004)
    if style == "cap":
        brim = np.array([(-0.66, -0.62), (-0.5, -0.78), (0.5, -0.78), (0.66, -0.62), (0, -0.46)])
        canvas.fill(project(brim, pose, lift=0.12), _scaled(colour, 0.7))


def _paint_eye(canvas: _Canvas, eye: dict[str, np.ndarray], identity: Identity) -> None:
    """Paint an eye; its outlines are fractions of the image."""
    canvas.fill(eye["white"], (226, 222, 218))
    canvas.fill(eye["iris"], identity.iris)
    canvas.fill(eye["pupil"], (18, 14, 14))
    canvas.fill(eye["glint"], (250, 250, 250))
    upper, lower = eye["white"][:13], eye["white"][13:]
    canvas.line(lower, _scaled(identity.skin, 0.62), 0.004)
    canvas.line(
        upper,
        _scaled(identity.skin, 0.30 - 0.15 * identity.lashes),
        0.008 + 0.006 * identity.lashes,
    )


def _paint_mouth(
    canvas: _Canvas, lips: dict[str, np.ndarray], identity: Identity, units: dict
) -> None:
    """Paint lips, and where they part teeth and tongue; outlines in fractions of the image."""
    upper, lower, top, bottom = (lips[k] for k in ("upper", "lower", "upper_inner", "lower_inner"))
    canvas.fill(np.concatenate([upper, bottom[::-1]]), _scaled(identity.lips, 0.88))
    canvas.fill(np.concatenate([top, lower[::-1]]), identity.lips)
    gap = bottom - top
    opening = np.concatenate([top - 0.08 * gap - _LIP_LINE, (bottom + _LIP_LINE)[::-1]])
    canvas.fill(opening, _scaled(identity.lips, 0.33))
    height = np.linalg.norm(gap[6])
    if height < 0.012:
        return
    bared = max(units["lip_corner_pull"], units["upper_lip_raise"], 0.8 * units["lip_stretch"])
    # Speaking and surprise hardly lift the upper lip off the teeth.
    teeth = 0.045 * bared + 0.012 * max(units["jaw_drop"] - 0.3, 0)
    share = np.minimum(teeth / height, 1.0) * (1 - _ALONG[:, None] ** 8)
    canvas.fill(np.concatenate([top, (top + share * gap)[::-1]]), (236, 232, 222))
    if units["jaw_drop"] > 0.4:
        tongue = np.concatenate([bottom - 0.32 * gap, bottom[::-1]])[2:-2]
        canvas.fill(tongue, _scaled(identity.lips, 0.72))
    shown = max(units["lip_stretch"], units["upper_lip_raise"])
    if shown > 0.2:
        share = np.minimum(0.014 * shown / height, 0.3) * (1 - _ALONG[:, None] ** 8)
        canvas.fill(np.concatenate([bottom - share * gap, bottom[::-1]]), (222, 216, 204))


def _shade_skin(canvas: _Canvas, parameters: FaceParameters, units: dict[str, float]) -> None:
    """Multiply soft shading and wrinkles onto the skin painted so far."""
    side, creases = canvas.side, _creases(parameters.identity, units)
    folds = _Canvas(np.zeros((side, side), np.uint8))
    outlines = _stroke_outlines(creases, parameters.pose)
    for outline, darkness in zip(outlines, creases[:, 9].tolist(), strict=True):
        folds.fill(outline, min(150.0 * darkness, 160.0))
    shade = cv2.resize(_shading(parameters, units), (side, side), interpolation=cv2.INTER_LINEAR)
    soft = cv2.blur(folds.image, (side // 48, side // 48)).astype(np.float32)
    shade *= (1 - soft / 255)[..., None]
    cv2.copyTo(cv2.multiply(canvas.image, shade, dtype=cv2.CV_8U), canvas.skin, canvas.image)


def _paint_features(canvas: _Canvas, parameters: FaceParameters, units: dict[str, float]) -> None:
    """Paint eyes, nostrils, brows, moustache and mouth."""
    identity, pose = parameters.identity, parameters.pose
    for s in (-1, 1):
        eye = _eye(identity, units, pose.gaze, s)
        _paint_eye(canvas, _project_all(eye, pose), identity)
        nostril = _CIRCLE * (0.032, 0.018) + (s * 0.45 * identity.nose_width, identity.nose_length)
        nostril[:, 1] -= 0.03 * units["nose_wrinkle"]
        canvas.fill(project(nostril, pose, lift=0.08), _scaled(identity.skin, 0.42))
    share = identity.brow_darkness
    brow = [
        share * h + (1 - share) * 0.8 * k for h, k in zip(identity.hair, identity.skin, strict=True)
    ]
    for outline in _stroke_outlines(np.array(_brows(identity, units)), pose):
        canvas.fill(outline, brow)
    lips = _mouth(identity, units, parameters.asymmetry)
    if identity.moustache:
        y, end = lips["upper"][6, 1] - 0.02, identity.mouth_width + 0.02
        half = (0.01, y - 0.05, 0.14, y - 0.035, end, y + 0.05, 0.04, 0.045, 0.015)
        strokes = np.array(half) * np.array([np.ones(9), _MIRROR_STROKE[:9]])
        for outline in _stroke_outlines(strokes, pose):
            canvas.fill(outline, identity.hair)
    _paint_mouth(canvas, _project_all(lips, pose), identity, units)


def _paint_beard(canvas: _Canvas, parameters: FaceParameters, head: np.ndarray) -> None:
    """Blend a beard over jaw and cheeks; `head` in face coordinates."""
    identity, along = parameters.identity, _ALONG
    jaw = head[(head[:, 1] > -0.05)]
    jaw = jaw[np.argsort(-jaw[:, 0] / (1.2 + jaw[:, 1]))] * 1.01
    inner = np.array([0.86 * identity.face_width * along, 0.02 + 0.46 * (1 - np.abs(along) ** 3)]).T
    mask = _Canvas(np.zeros(canvas.image.shape[:2], np.uint8))
    mask.fill(project(np.concatenate([jaw, inner]), parameters.pose), 255)
    soft = cv2.blur(mask.image, (canvas.side // 24 | 1, canvas.side // 24 | 1))
    weight = (soft.astype(np.float32) * (identity.beard / 255))[..., None]
    canvas.image[:] = canvas.image + weight * (np.float32(identity.hair) - canvas.image)


def _paint_glasses(canvas: _Canvas, identity: Identity, pose: Pose) -> None:
    rim = _scaled((110, 100, 90), 1 - identity.glasses)
    for s in (-1, 1):
        lens = _CIRCLE * (0.24, 0.19) + (s * identity.eye_spacing, -0.10)
        canvas.line(project(lens, pose, lift=0.06), rim, 0.008, closed=True)
    bridge = np.array([(-0.13, -0.13), (0, -0.15), (0.13, -0.13)])
    canvas.line(project(bridge, pose, lift=0.1), rim, 0.008)


def _paint_occlusion(canvas: _Canvas, parameters: FaceParameters) -> None:
    """Paint what hides a part of the face."""
    identity, pose, scene = parameters.identity, parameters.pose, parameters.scene
    a, b, c = scene.occlusion_place
    colour = scene.occlusion_colour
    if scene.occlusion == "hand":
        side = 1 if a > 0.5 else -1
        palm = np.array([side * (0.15 + 0.5 * b), 0.95 - 0.3 * c])
        skin = _scaled(identity.skin, 0.93)
        up = np.array([-side * (0.5 - 0.6 * b), -0.75])
        across = np.array([0.15, -0.06 * side])
        for width, tone in ((0.086, _scaled(identity.skin, 0.55)), (0.070, skin)):
            for finger, reach in ((-1.5, 0.85), (-0.5, 1.0), (0.5, 0.95), (1.5, 0.75)):
                root = palm + across * finger
                points = project(np.stack([root, root + up * reach]), pose, lift=0.1)
                canvas.line(points, tone, width * pose.scale * 2)
        wrist = palm + np.array([(0, 0.05), (0.3 * side, 1.2)])
        canvas.line(project(wrist, pose, depth=0), skin, 0.36 * pose.scale)
    elif scene.occlusion == "scarf":
        top = 0.30 + 0.3 * a
        edge = np.array([(-0.9, top - 0.1), (0, top), (0.9, top - 0.1), (1.0, 1.9), (-1.0, 1.9)])
        canvas.fill(project(edge, pose), colour)
        for step in (0.18, 0.42, 0.66):
            left, right = top + step - 0.1 * b, top + step - 0.1 * c
            fold = np.array([(-0.8, left), (0, top + step), (0.8, right)])
            canvas.line(project(fold, pose), _scaled(colour, 0.72), 0.012)
    elif scene.occlusion == "hair":
        side = 1 if a > 0.5 else -1
        low, near = 0.2 + 0.4 * b, 0.40 - 0.2 * c
        lock = np.array([(0.05, -1.0), (0.5, -1.0), (0.78, -0.7), (0.80, low + 0.1), (0.62, low),
                         (near + 0.1, 0.1), (near, -0.25), (0.15, -0.60)])  # fmt: skip
        canvas.fill(project(lock * (side, 1), pose, lift=0.05), _scaled(identity.hair, 0.9))
    elif scene.occlusion == "sunglasses":
        for s in (-1, 1):
            lens = _CIRCLE * (0.23, 0.16 + 0.03 * a) + (s * identity.eye_spacing, -0.11)
            canvas.fill(project(lens, pose, lift=0.08), (22, 22, 26))
        bridge = np.array([(-0.2, -0.15), (0.2, -0.15)])
        canvas.line(project(bridge, pose, lift=0.12), (22, 22, 26), 0.018)
    elif scene.occlusion == "object":
        middle, turn = np.array([0.9 * (2 * a - 1), 0.35 + 0.5 * b]), 0.8 * (c - 0.5)
        corners = np.array([(-0.28, -0.42), (0.28, -0.42), (0.28, 0.42), (-0.28, 0.42)])
        cos, sin = np.cos(turn), np.sin(turn)
        corners = corners @ np.array([(cos, sin), (-sin, cos)])
        canvas.fill(project(corners + middle, pose, depth=0), colour)
        canvas.fill(project(0.8 * corners + middle, pose, depth=0), _scaled(colour, 1.3))


_LIGHT_GRID = np.array([-0.75, -0.25, 0.25, 0.75], dtype=np.float32)


def _photograph(image: np.ndarray, scene: Scene, size: int) -> np.ndarray:
    """Light the painted scene, bring it to its size, blur it and add noise."""
    side = image.shape[0]
    light = 1 + scene.light[0] * _LIGHT_GRID + scene.light[1] * _LIGHT_GRID[:, None]
    light = light[..., None] * (scene.gain * np.array(scene.tint, dtype=np.float32))
    light = cv2.resize(light, (side, side), interpolation=cv2.INTER_LINEAR)
    image = cv2.multiply(image, light, dtype=cv2.CV_8U)
    if side != size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    if scene.saturation < 1:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, scene.saturation, grey, 1 - scene.saturation, 0)
    if scene.blur * size > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), scene.blur * size)
    if scene.noise:
        generator = np.random.default_rng(scene.noise_seed)
        noise = generator.standard_normal((size, size), dtype=np.float32) * scene.noise
        image = cv2.add(image, cv2.merge([noise, noise, noise]), dtype=cv2.CV_8U)
    return image


def draw_face(parameters: FaceParameters, size: int) -> np.ndarray:
    """Draw a face.

    Parameters
    ----------
    parameters : FaceParameters
    size : int
        Side of the image, pixels, >= 8.

    Returns
    -------
    numpy.ndarray
        (size, size, 3), uint8, RGB.

    Raises
    ------
    ValueError
        If the size is smaller.
    """
    if size < 8:
        raise ValueError(f"size is {size}; expected at least 8 pixels")
    pose, scene = parameters.pose, parameters.scene
    units = action_units(parameters)
    side = size * max(1, -(-_SMALLEST_CANVAS // size))
    canvas = _Canvas(cv2.resize(scene.background, (side, side), interpolation=cv2.INTER_CUBIC))
    head = _head(parameters.identity, units)
    _paint_behind(canvas, parameters)
    canvas.fill_skin(project(head, pose), parameters.identity.skin)
    _shade_skin(canvas, parameters, units)
    if parameters.identity.beard:
        _paint_beard(canvas, parameters, head)
    _paint_features(canvas, parameters, units)
    _paint_hair(canvas, parameters)
    if parameters.identity.glasses:
        _paint_glasses(canvas, parameters.identity, pose)
    _paint_occlusion(canvas, parameters)
    return _photograph(canvas.image, scene, size)
