"""Paints what lies behind a face, hair, neck and ears, and the hair in front of it."""

import numpy as np

from nlalib.faces.canvas import Canvas, scaled
from nlalib.faces.geometry import CIRCLE, project
from nlalib.faces.parameters import FaceParameters, Pose

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
    [CIRCLE * (0.085, 0.17) + (s * 0.515, 0.02) for s in (-1, 1)]
    + [CIRCLE * (0.04, 0.10) + (s * 0.53, 0.01) for s in (-1, 1)]
)


def paint_behind(canvas: Canvas, parameters: FaceParameters) -> None:
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
        canvas.fill(back, scaled(fabric, 0.62))
    neck = 0.36 + 0.1 * (identity.jaw < 0.8)
    trunk = _TRUNK.copy()
    trunk[:4, 0] *= neck
    trunk = project(trunk, body, depth=0)
    canvas.fill_skin(trunk[:6], scaled(identity.skin, 0.80))
    canvas.fill(trunk[6:], identity.clothes)
    if identity.hair_style == "headscarf":
        canvas.fill(back, scaled(fabric, 0.9))
        return
    ears = project(_EARS + np.sign(_EARS[:, :1]) * (identity.face_width - 0.5, 0), pose, depth=0)
    for start, tone in ((0, 0.92), (20, 0.92), (40, 0.72), (60, 0.72)):
        canvas.fill_skin(ears[start : start + 20], scaled(identity.skin, tone))


_OVER = np.linspace(np.pi, 2 * np.pi, 22)  # from the left temple over the skull
_SKULL = np.array([np.sign(np.cos(_OVER)) * np.abs(np.cos(_OVER)) ** 0.72, np.sin(_OVER)]).T
_ACROSS = np.linspace(1.0, -1.0, 17)


def paint_hair(canvas: Canvas, parameters: FaceParameters) -> None:
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
            canvas.line(project(arc, pose, depth=1 - 0.3 * share), scaled(colour, factor), 0.004)
    if style == "cap":
        brim = np.array([(-0.66, -0.62), (-0.5, -0.78), (0.5, -0.78), (0.66, -0.62), (0, -0.46)])
        canvas.fill(project(brim, pose, lift=0.12), scaled(colour, 0.7))
