"""Paints one face from its parameters: expression, identity, pose and scene.

`nlalib.faces.geometry` gives the outlines. They are painted from back to front; soft shading and
wrinkles are two small maps multiplied onto the skin.
"""

import cv2
import numpy as np

from nlalib.faces.canvas import SMALLEST_CANVAS, Canvas, scaled
from nlalib.faces.geometry import (
    ALONG,
    CIRCLE,
    action_units,
    eye_outlines,
    head_outline,
    mouth_outlines,
    project,
    project_all,
)
from nlalib.faces.head import paint_behind, paint_hair
from nlalib.faces.parameters import FaceParameters, Identity, Pose, Scene
from nlalib.faces.strokes import MIRROR_STROKE, brow_strokes, crease_strokes, stroke_outlines

_LIP_LINE = np.array([0.0, 0.0022])  # half the thickness of the line between closed lips
_SHADING_SIZE = 32  # side of the map of soft shading before it is enlarged
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


def _paint_eye(canvas: Canvas, eye: dict[str, np.ndarray], identity: Identity) -> None:
    """Paint an eye; its outlines are fractions of the image."""
    canvas.fill(eye["white"], (226, 222, 218))
    canvas.fill(eye["iris"], identity.iris)
    canvas.fill(eye["pupil"], (18, 14, 14))
    canvas.fill(eye["glint"], (250, 250, 250))
    upper, lower = eye["white"][:13], eye["white"][13:]
    canvas.line(lower, scaled(identity.skin, 0.62), 0.004)
    canvas.line(
        upper,
        scaled(identity.skin, 0.30 - 0.15 * identity.lashes),
        0.008 + 0.006 * identity.lashes,
    )


def _paint_mouth(
    canvas: Canvas, lips: dict[str, np.ndarray], identity: Identity, units: dict
) -> None:
    """Paint lips, and where they part teeth and tongue; outlines in fractions of the image."""
    upper, lower, top, bottom = (lips[k] for k in ("upper", "lower", "upper_inner", "lower_inner"))
    canvas.fill(np.concatenate([upper, bottom[::-1]]), scaled(identity.lips, 0.88))
    canvas.fill(np.concatenate([top, lower[::-1]]), identity.lips)
    gap = bottom - top
    opening = np.concatenate([top - 0.08 * gap - _LIP_LINE, (bottom + _LIP_LINE)[::-1]])
    canvas.fill(opening, scaled(identity.lips, 0.33))
    height = np.linalg.norm(gap[6])
    if height < 0.012:
        return
    bared = max(units["lip_corner_pull"], units["upper_lip_raise"], 0.8 * units["lip_stretch"])
    # Speaking and surprise hardly lift the upper lip off the teeth.
    teeth = 0.045 * bared + 0.012 * max(units["jaw_drop"] - 0.3, 0)
    share = np.minimum(teeth / height, 1.0) * (1 - ALONG[:, None] ** 8)
    canvas.fill(np.concatenate([top, (top + share * gap)[::-1]]), (236, 232, 222))
    if units["jaw_drop"] > 0.4:
        tongue = np.concatenate([bottom - 0.32 * gap, bottom[::-1]])[2:-2]
        canvas.fill(tongue, scaled(identity.lips, 0.72))
    shown = max(units["lip_stretch"], units["upper_lip_raise"])
    if shown > 0.2:
        share = np.minimum(0.014 * shown / height, 0.3) * (1 - ALONG[:, None] ** 8)
        canvas.fill(np.concatenate([bottom - share * gap, bottom[::-1]]), (222, 216, 204))


def _shade_skin(canvas: Canvas, parameters: FaceParameters, units: dict[str, float]) -> None:
    """Multiply soft shading and wrinkles onto the skin painted so far."""
    side, creases = canvas.side, crease_strokes(parameters.identity, units)
    folds = Canvas(np.zeros((side, side), np.uint8))
    outlines = stroke_outlines(creases, parameters.pose)
    for outline, darkness in zip(outlines, creases[:, 9].tolist(), strict=True):
        folds.fill(outline, min(150.0 * darkness, 160.0))
    shade = cv2.resize(_shading(parameters, units), (side, side), interpolation=cv2.INTER_LINEAR)
    soft = cv2.blur(folds.image, (side // 48, side // 48)).astype(np.float32)
    shade *= (1 - soft / 255)[..., None]
    cv2.copyTo(cv2.multiply(canvas.image, shade, dtype=cv2.CV_8U), canvas.skin, canvas.image)


def _paint_features(canvas: Canvas, parameters: FaceParameters, units: dict[str, float]) -> None:
    """Paint eyes, nostrils, brows, moustache and mouth."""
    identity, pose = parameters.identity, parameters.pose
    for s in (-1, 1):
        eye = eye_outlines(identity, units, pose.gaze, s)
        _paint_eye(canvas, project_all(eye, pose), identity)
        nostril = CIRCLE * (0.032, 0.018) + (s * 0.45 * identity.nose_width, identity.nose_length)
        nostril[:, 1] -= 0.03 * units["nose_wrinkle"]
        canvas.fill(project(nostril, pose, lift=0.08), scaled(identity.skin, 0.42))
    share = identity.brow_darkness
    brow = [
        share * h + (1 - share) * 0.8 * k for h, k in zip(identity.hair, identity.skin, strict=True)
    ]
    for outline in stroke_outlines(brow_strokes(identity, units), pose):
        canvas.fill(outline, brow)
    lips = mouth_outlines(identity, units, parameters.asymmetry)
    if identity.moustache:
        y, end = lips["upper"][6, 1] - 0.02, identity.mouth_width + 0.02
        half = (0.01, y - 0.05, 0.14, y - 0.035, end, y + 0.05, 0.04, 0.045, 0.015)
        strokes = np.array(half) * np.array([np.ones(9), MIRROR_STROKE[:9]])
        for outline in stroke_outlines(strokes, pose):
            canvas.fill(outline, identity.hair)
    _paint_mouth(canvas, project_all(lips, pose), identity, units)


def _paint_beard(canvas: Canvas, parameters: FaceParameters, head: np.ndarray) -> None:
    """Blend a beard over jaw and cheeks; `head` in face coordinates."""
    identity, along = parameters.identity, ALONG
    jaw = head[(head[:, 1] > -0.05)]
    jaw = jaw[np.argsort(-jaw[:, 0] / (1.2 + jaw[:, 1]))] * 1.01
    inner = np.array([0.86 * identity.face_width * along, 0.02 + 0.46 * (1 - np.abs(along) ** 3)]).T
    mask = Canvas(np.zeros(canvas.image.shape[:2], np.uint8))
    mask.fill(project(np.concatenate([jaw, inner]), parameters.pose), 255)
    soft = cv2.blur(mask.image, (canvas.side // 24 | 1, canvas.side // 24 | 1))
    weight = (soft.astype(np.float32) * (identity.beard / 255))[..., None]
    canvas.image[:] = canvas.image + weight * (np.float32(identity.hair) - canvas.image)


def _paint_glasses(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    rim = scaled((110, 100, 90), 1 - identity.glasses)
    for s in (-1, 1):
        lens = CIRCLE * (0.24, 0.19) + (s * identity.eye_spacing, -0.10)
        canvas.line(project(lens, pose, lift=0.06), rim, 0.008, closed=True)
    bridge = np.array([(-0.13, -0.13), (0, -0.15), (0.13, -0.13)])
    canvas.line(project(bridge, pose, lift=0.1), rim, 0.008)


def _paint_occlusion(canvas: Canvas, parameters: FaceParameters) -> None:
    """Paint what hides a part of the face."""
    identity, pose, scene = parameters.identity, parameters.pose, parameters.scene
    a, b, c = scene.occlusion_place
    colour = scene.occlusion_colour
    if scene.occlusion == "hand":
        side = 1 if a > 0.5 else -1
        palm = np.array([side * (0.15 + 0.5 * b), 0.95 - 0.3 * c])
        skin = scaled(identity.skin, 0.93)
        up = np.array([-side * (0.5 - 0.6 * b), -0.75])
        across = np.array([0.15, -0.06 * side])
        for width, tone in ((0.086, scaled(identity.skin, 0.55)), (0.070, skin)):
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
            canvas.line(project(fold, pose), scaled(colour, 0.72), 0.012)
    elif scene.occlusion == "hair":
        side = 1 if a > 0.5 else -1
        low, near = 0.2 + 0.4 * b, 0.40 - 0.2 * c
        lock = np.array([(0.05, -1.0), (0.5, -1.0), (0.78, -0.7), (0.80, low + 0.1), (0.62, low),
                         (near + 0.1, 0.1), (near, -0.25), (0.15, -0.60)])  # fmt: skip
        canvas.fill(project(lock * (side, 1), pose, lift=0.05), scaled(identity.hair, 0.9))
    elif scene.occlusion == "sunglasses":
        for s in (-1, 1):
            lens = CIRCLE * (0.23, 0.16 + 0.03 * a) + (s * identity.eye_spacing, -0.11)
            canvas.fill(project(lens, pose, lift=0.08), (22, 22, 26))
        bridge = np.array([(-0.2, -0.15), (0.2, -0.15)])
        canvas.line(project(bridge, pose, lift=0.12), (22, 22, 26), 0.018)
    elif scene.occlusion == "object":
        middle, turn = np.array([0.9 * (2 * a - 1), 0.35 + 0.5 * b]), 0.8 * (c - 0.5)
        corners = np.array([(-0.28, -0.42), (0.28, -0.42), (0.28, 0.42), (-0.28, 0.42)])
        cos, sin = np.cos(turn), np.sin(turn)
        corners = corners @ np.array([(cos, sin), (-sin, cos)])
        canvas.fill(project(corners + middle, pose, depth=0), colour)
        canvas.fill(project(0.8 * corners + middle, pose, depth=0), scaled(colour, 1.3))


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
    side = size * max(1, -(-SMALLEST_CANVAS // size))
    canvas = Canvas(cv2.resize(scene.background, (side, side), interpolation=cv2.INTER_CUBIC))
    head = head_outline(parameters.identity, units)
    paint_behind(canvas, parameters)
    canvas.fill_skin(project(head, pose), parameters.identity.skin)
    _shade_skin(canvas, parameters, units)
    if parameters.identity.beard:
        _paint_beard(canvas, parameters, head)
    _paint_features(canvas, parameters, units)
    paint_hair(canvas, parameters)
    if parameters.identity.glasses:
        _paint_glasses(canvas, parameters.identity, pose)
    _paint_occlusion(canvas, parameters)
    return _photograph(canvas.image, scene, size)
