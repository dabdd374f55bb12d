"""Where a face's parts lie: action units, outlines, projection and landmarks.

A face is a set of outlines on a shallow curved surface. They follow the action units (FACS, Ekman
and Friesen 1978) and are then turned; `nlalib.faces.drawing` paints them. All lengths are
fractions, so the same parameters give the same face at any size.

Face coordinates: x to the viewer's right, y down, z towards the viewer; (0, 0) is the middle of
the face and the chin of a face at rest lies near (0, 1).
"""

from functools import lru_cache

import numpy as np

from nlalib.faces.parameters import ACTION_UNITS, FaceParameters, Identity, Pose

_EYE_Y = -0.13  # of both eyes' centres, in face coordinates
_NOSE_LIFT = 0.16  # of the nose's tip above the face's surface
_DEPTH = 0.62  # of the face's middle before the silhouette's plane
ALONG = np.linspace(-1.0, 1.0, 13)  # (13,), along an eyelid or a lip from corner to corner
# (20, 2): a circle of radius 1.
CIRCLE = np.array([f(np.linspace(0, 2 * np.pi, 20, endpoint=False)) for f in (np.cos, np.sin)]).T
_IRIS = np.concatenate([0.088 * CIRCLE, 0.040 * CIRCLE, 0.018 * CIRCLE + (-0.025, -0.028)])


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
# (2, 7, 16): form, expression in the order of `nlalib.data.labels`, action unit.
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


def project_all(outlines: dict[str, np.ndarray], pose: Pose) -> dict[str, np.ndarray]:
    """Project outlines, (N, 2) each, in one call: for the few points of each, a call costs most."""
    points = project(np.concatenate(list(outlines.values())), pose)
    ends = np.cumsum([len(outline) for outline in outlines.values()]).tolist()
    starts = [0, *ends[:-1]]
    return {k: points[a:b] for k, a, b in zip(outlines, starts, ends, strict=True)}


def mouth_outlines(
    identity: Identity, units: dict[str, float], asymmetry: float
) -> dict[str, np.ndarray]:
    """Return the lips' four outlines, (13, 2) each, from the viewer's left corner to the right."""
    u, t = units, ALONG
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


def eye_outlines(
    identity: Identity, units: dict[str, float], gaze: tuple, side: int
) -> dict[str, np.ndarray]:
    """Return an eye's white (26, 2), iris, pupil and glint (20, 2); `side`: -1 left, 1 right."""
    u = units
    half = 0.175 * identity.eye_size
    top = 0.088 * identity.eye_size * (1 + 0.75 * u["upper_lid_raise"] - 0.45 * u["lid_droop"])
    tight = 0.4 * u["lid_tighten"] * (1 - 0.6 * min(u["upper_lid_raise"], 1))
    top *= 1 - tight - 0.15 * u["cheek_raise"]
    bottom = 0.058 * identity.eye_size * (1 + 0.2 * u["upper_lid_raise"] - 0.4 * u["lid_tighten"])
    bottom -= 0.045 * u["cheek_raise"]
    top = max(top, 0.006)
    outward = ALONG * side
    x = side * identity.eye_spacing + half * ALONG
    middle = _EYE_Y - (identity.eye_tilt - 0.12 * u["lid_droop"]) * half * outward
    upper = middle - top * (1 - np.abs(ALONG) ** 2.2) * (1 - 0.18 * outward)
    lower = np.maximum(middle + bottom * (1 - ALONG**2), upper)

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


# The angles' cosines and sines, (40,) each.
_ROUND = [f(np.linspace(0, 2 * np.pi, 40, endpoint=False)) for f in (np.cos, np.sin)]


def head_outline(identity: Identity, units: dict[str, float]) -> np.ndarray:
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
        (5, 2), float64, in the order of `nlalib.data.index.LANDMARKS`; fractions of the image's
        width and height, which may lie outside 0..1 for a face that leaves the image. An eye's
        centre is the middle between its corners, so it does not move with the lids or the gaze.
    """
    identity, pose = parameters.identity, parameters.pose
    lips = mouth_outlines(identity, action_units(parameters), parameters.asymmetry)["upper_inner"]
    spacing = identity.eye_spacing
    points = np.array(
        [(-spacing, _EYE_Y), (spacing, _EYE_Y), (0, identity.nose_length - 0.04), lips[0], lips[-1]]
    )
    lift = np.array([0, 0, _NOSE_LIFT, 0, 0])
    return project(points, pose, lift=lift)
