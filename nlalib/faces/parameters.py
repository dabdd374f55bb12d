"""What a drawn face is made of: a person, the pose of the head, the scene, and the expression."""

from dataclasses import dataclass, field

import numpy as np

ACTION_UNITS = (
    "inner_brow_raise", "outer_brow_raise", "brow_lower", "upper_lid_raise", "cheek_raise",
    "lid_tighten", "lid_droop", "nose_wrinkle", "upper_lip_raise", "lip_corner_pull",
    "lip_corner_depress", "chin_raise", "lip_stretch", "lip_press", "lips_part", "jaw_drop",
)  # fmt: skip
HAIR_STYLES = ("bald", "receding", "short", "fringe", "parted", "long", "curly", "headscarf", "cap")
OCCLUSIONS = ("none", "hand", "scarf", "hair", "sunglasses", "object")


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
