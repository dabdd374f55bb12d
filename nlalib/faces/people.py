"""Whom a drawn face shows, how the head is held, and the scene around it: random draws."""

import numpy as np

from nlalib.faces.parameters import HAIR_STYLES, OCCLUSIONS, Identity, Pose, Scene

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


def draw_identity(generator: np.random.Generator) -> Identity:
    """Draw a person."""
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


def draw_pose(generator: np.random.Generator) -> Pose:
    """Draw how the head is held, and where it looks."""
    normal = generator.normal
    yaw, pitch, roll = np.clip(normal(0, (0.20, 0.10, 0.10)), -0.45, 0.45).tolist()
    return Pose(
        yaw, pitch, roll,
        scale=generator.uniform(0.37, 0.46),
        shift=tuple(normal(0, 0.02, 2).tolist()),
        gaze=tuple(np.clip(normal(0, (0.22, 0.25)), -0.6, 0.6).tolist()),
    )  # fmt: skip


def draw_scene(generator: np.random.Generator) -> Scene:
    """Draw light, background, and what hides a part of the face."""
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
