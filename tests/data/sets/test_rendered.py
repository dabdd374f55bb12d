import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from nlalib.data.index import LANDMARK_COLUMNS, TRUE_COLUMNS, VOTE_COLUMNS, check_index
from nlalib.data.labels import BASIC_EXPRESSIONS, RAFDB_TEST_COUNTS, RAFDB_TRAIN_COUNTS
from nlalib.data.sets.rendered import (
    CONFUSION,
    NEIGHBOURS,
    RENDERER_VERSION,
    face_parameters,
    perceived,
    render_face,
    rendered_index,
)
from nlalib.faces.drawing import draw_face
from nlalib.faces.geometry import action_units, face_landmarks
from nlalib.faces.parameters import (
    ACTION_UNITS,
    HAIR_STYLES,
    OCCLUSIONS,
    FaceParameters,
    Identity,
    Pose,
    Scene,
)
from places import GOLDEN_FOLDER

PATHS = [f"rendered:3:{number}:{name}" for number, name in enumerate(BASIC_EXPRESSIONS)]
NEUTRAL = BASIC_EXPRESSIONS.index("neutral")


@pytest.fixture(scope="module")
def index():
    return rendered_index(train=300, test=100, seed=1)


@pytest.fixture(scope="module")
def noisy_index():
    return rendered_index(train=300, test=100, seed=1, flip_rate=0.2)


def plain_face(expression: int = NEUTRAL, **changes) -> FaceParameters:
    """Return a face without noise, blur or occlusion, so that its pixels can be measured."""
    return replace(FaceParameters(mixture=np.eye(7)[expression], openness=0.0), **changes)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


# The picture


def test_picture_does_not_depend_on_the_process():
    code = (
        "import hashlib, sys; from nlalib.data.sets.rendered import render_face; "
        "faces = [render_face(path, 48).tobytes() for path in sys.argv[1:]]; "
        "print(hashlib.sha256(b''.join(faces)).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, *PATHS], capture_output=True, text=True, check=True
    )
    backwards = [render_face(path, 48).tobytes() for path in reversed(PATHS)]
    here = hashlib.sha256(b"".join(reversed(backwards))).hexdigest()
    assert other.stdout.strip() == here


def test_picture_has_the_size_asked_for():
    for size in (8, 31, 48, 100, 224):
        image = render_face(PATHS[0], size)
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8


def test_content_is_the_same_at_each_size():
    for path in PATHS:
        face = face_parameters(path)
        face = replace(face, scene=replace(face.scene, noise=0.0, blur=0.0))
        small, large = draw_face(face, 48), draw_face(face, 240)
        shrunk = cv2.resize(large, (48, 48), interpolation=cv2.INTER_AREA)
        # Another face, or the same shifted by two pixels, is several times as far away.
        assert distance(small, shrunk) < 0.5 * distance(small, np.roll(shrunk, 2, axis=1))
        assert distance(small, shrunk) < 5


def test_number_keeps_the_person_and_seed_changes_it():
    first, second = face_parameters("rendered:3:4:fear"), face_parameters("rendered:3:4:anger")
    assert first.identity == second.identity
    assert first.pose == second.pose
    assert first.scene.noise_seed == second.scene.noise_seed
    assert first.mixture.argmax() == BASIC_EXPRESSIONS.index("fear")
    assert face_parameters("rendered:4:4:fear").identity != first.identity
    assert face_parameters("rendered:3:5:fear").identity != first.identity


@pytest.mark.parametrize("unit", ACTION_UNITS)
def test_each_action_unit_is_drawn(unit):
    offset = np.array([1.0 if name == unit else 0.0 for name in ACTION_UNITS])
    still, moved = draw_face(plain_face(), 96), draw_face(plain_face(unit_offset=offset), 96)
    assert (np.abs(still.astype(int) - moved).max(axis=2) > 20).sum() >= 10


@pytest.mark.parametrize(
    ("unit", "point", "direction"),
    [("lip_corner_pull", 4, -1), ("lip_corner_depress", 4, 1), ("jaw_drop", 4, 1)],
)
def test_mouth_corners_follow_the_action_units(unit, point, direction):
    offset = np.array([1.0 if name == unit else 0.0 for name in ACTION_UNITS])
    moved = face_landmarks(plain_face(unit_offset=offset)) - face_landmarks(plain_face())
    assert direction * moved[point, 1] > 0.01
    np.testing.assert_allclose(moved[:3], 0, atol=1e-12)


def test_units_scale_with_the_intensity_and_mix():
    full, half = (action_units(plain_face(3, intensity=value)) for value in (0.8, 0.4))
    for unit in ACTION_UNITS:
        assert half[unit] == pytest.approx(0.5 * full[unit])
    assert set(action_units(plain_face()).values()) == {0.0}
    blend = action_units(plain_face(mixture=np.eye(7)[3] * 0.5 + np.eye(7)[6] * 0.5))
    assert blend["lip_corner_pull"] == pytest.approx(0.5)


def test_each_hair_style_and_occlusion_is_drawn():
    pictures = [draw_face(plain_face(identity=Identity(hair_style=h)), 48) for h in HAIR_STYLES]
    pictures += [draw_face(plain_face(scene=Scene(occlusion=o)), 48) for o in OCCLUSIONS[1:]]
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert distance(first, second) > 0.5


def test_mirrored_parameters_give_the_mirrored_picture():
    background = np.random.default_rng(0).integers(60, 200, (4, 4, 3)).astype(np.uint8)
    face = plain_face(
        3,
        asymmetry=0.3,
        identity=Identity(hair_style="parted", hair_side=1.0),
        pose=Pose(0.3, 0.1, 0.15, shift=(0.03, 0.01), gaze=(0.3, 0.2)),
        scene=Scene(light=(0.3, 0.1), background=background),
    )
    mirrored = replace(
        face,
        asymmetry=-0.3,
        identity=replace(face.identity, hair_side=-1.0),
        pose=Pose(-0.3, 0.1, -0.15, shift=(-0.03, 0.01), gaze=(-0.3, 0.2)),
        scene=replace(face.scene, light=(-0.3, 0.1), background=background[:, ::-1]),
    )
    expected = draw_face(face, 96)[:, ::-1]
    assert distance(draw_face(mirrored, 96), expected) < 2  # the glints do not mirror
    assert distance(draw_face(face, 96), expected) > 10
    flipped = face_landmarks(face)[[1, 0, 2, 4, 3]] * (-1, 1) + (1, 0)
    np.testing.assert_allclose(face_landmarks(mirrored), flipped, atol=1e-12)


# The landmarks


@pytest.mark.parametrize("seed", range(6))
def test_landmarks_lie_on_the_painted_features(seed):
    generator = np.random.default_rng(seed)
    yaw, pitch, roll = generator.uniform(-0.25, 0.25, 3)
    pose = Pose(yaw, pitch, roll, shift=tuple(generator.uniform(-0.04, 0.04, 2)))
    # Colours that nothing else has: the features are found by them alone.
    identity = Identity(iris=(0, 255, 0), lips=(0, 0, 255), hair_style="bald", clothes=(90, 90, 90))
    size = 224
    image = draw_face(plain_face(identity=identity, pose=pose), size).astype(int)
    points = face_landmarks(plain_face(identity=identity, pose=pose)) * size
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    rows, columns = np.nonzero((green > red + 60) & (green > blue + 60))
    found = np.stack([columns, rows], axis=1) + 0.5
    left = np.linalg.norm(found - points[0], axis=1) < np.linalg.norm(found - points[1], axis=1)
    assert np.linalg.norm(found[left].mean(axis=0) - points[0]) < 4
    assert np.linalg.norm(found[~left].mean(axis=0) - points[1]) < 4
    rows, columns = np.nonzero((blue > red + 40) & (blue > green + 40))
    lips = np.stack([columns, rows], axis=1) + 0.5
    axis = (points[4] - points[3]) / np.linalg.norm(points[4] - points[3])
    ends = lips[np.argmin(lips @ axis)], lips[np.argmax(lips @ axis)]
    for end, corner in zip(ends, points[3:], strict=True):
        assert np.linalg.norm(end - corner) < 6


@pytest.mark.parametrize("roll", [-0.4, 0.2])
def test_roll_turns_the_landmarks_as_a_rigid_motion(roll):
    upright = face_landmarks(plain_face(2, pose=Pose(yaw=0.2, pitch=0.1)))
    turned = face_landmarks(plain_face(2, pose=Pose(yaw=0.2, pitch=0.1, roll=roll)))
    centre = np.array([0.5, 0.52])
    plain = np.array([1, 1j]) @ (upright - centre).T * np.exp(1j * roll)
    np.testing.assert_allclose(np.array([1, 1j]) @ (turned - centre).T, plain, atol=1e-12)


def test_scale_stretches_the_landmarks():
    near, far = (face_landmarks(plain_face(pose=Pose(scale=s))) for s in (0.44, 0.22))
    np.testing.assert_allclose(near - near[0], 2 * (far - far[0]), atol=1e-12)


def test_yaw_moves_the_nose_more_than_the_eyes():
    moved = face_landmarks(plain_face(pose=Pose(yaw=0.3))) - face_landmarks(plain_face())
    assert moved[2, 0] > moved[0, 0] > 0
    assert moved[2, 0] > moved[1, 0] > 0


# The index


def test_index_obeys_the_schema(index):
    check_index(index, 7)
    assert list(index["split"]) == ["train"] * 300 + ["test"] * 100
    assert index["path"].is_unique
    for column in (*VOTE_COLUMNS, "label", "true_label"):
        assert index[column].dtype == "int64", column
    for column in (*LANDMARK_COLUMNS, *TRUE_COLUMNS):
        assert index[column].dtype == "float64", column
    assert index["is_flipped"].dtype == bool


def test_index_is_reproducible_and_follows_the_seed():
    first, again = (rendered_index(train=30, test=10, seed=5, flip_rate=0.3) for _ in range(2))
    assert first.equals(again)
    other = rendered_index(train=30, test=10, seed=6, flip_rate=0.3)
    assert set(first["path"]).isdisjoint(other["path"])
    assert not np.array_equal(first[LANDMARK_COLUMNS], other[LANDMARK_COLUMNS])


def test_class_frequencies_are_those_of_raf_db(index):
    for split, counts in (("train", RAFDB_TRAIN_COUNTS), ("test", RAFDB_TEST_COUNTS)):
        rows = index[index["split"] == split]
        for label, count in enumerate(counts.values()):
            exact = len(rows) * count / sum(counts.values())
            assert abs((rows["true_label"] == label).sum() - exact) < 1


def test_one_split_may_be_empty():
    assert set(rendered_index(train=0, test=9, seed=0)["split"]) == {"test"}
    assert set(rendered_index(train=9, test=0, seed=0)["split"]) == {"train"}


def test_columns_agree_with_the_path(index):
    for row in index.iloc[::61].itertuples():
        face = face_parameters(row.path)
        assert row.path.split(":")[3] == BASIC_EXPRESSIONS[row.true_label]
        np.testing.assert_array_equal([getattr(row, c) for c in TRUE_COLUMNS], face.mixture)
        points = np.array([getattr(row, c) for c in LANDMARK_COLUMNS]).reshape(5, 2)
        np.testing.assert_array_equal(points, face_landmarks(face))


def test_mixtures(index):
    mixture = index[TRUE_COLUMNS].to_numpy()
    np.testing.assert_allclose(mixture.sum(axis=1), 1)
    assert (mixture >= 0).all()
    np.testing.assert_array_equal(mixture.argmax(axis=1), index["true_label"])
    assert 0.18 < (mixture.max(axis=1) < 0.8).mean() < 0.32
    second = np.sort(mixture, axis=1)[:, -2]
    partner = np.argsort(mixture, axis=1)[:, -2]
    assert (NEIGHBOURS[index["true_label"], partner][second > 0] > 0).all()


@pytest.mark.parametrize("annotators", [1, 10, 33])
def test_each_annotator_votes_once(annotators):
    rows = rendered_index(train=30, test=10, seed=2, annotators=annotators)
    assert (rows[VOTE_COLUMNS].sum(axis=1) == annotators).all()
    assert (rows[VOTE_COLUMNS[7:]] == 0).all(axis=None)


def test_label_is_the_majority_and_the_first_of_a_tie(index):
    ties = 0
    for row in index.itertuples():
        votes = [getattr(row, column) for column in VOTE_COLUMNS]
        best = [label for label in range(7) if votes[label] == max(votes)]
        ties += len(best) > 1
        assert row.label == best[0]
    assert ties > 0
    assert not index["is_flipped"].any()


def test_flips_are_exact_in_the_training_split_and_absent_in_the_test_split(index, noisy_index):
    train = index["split"] == "train"
    assert noisy_index.loc[train, "is_flipped"].sum() == 60
    assert not noisy_index.loc[~train, "is_flipped"].any()
    changed = index["label"] != noisy_index["label"]
    np.testing.assert_array_equal(changed, noisy_index["is_flipped"])
    for label in range(7):
        rows = train & (index["label"] == label)
        assert abs(changed[rows].sum() - 0.2 * rows.sum()) <= 1
    same = [column for column in index if column not in ("label", "is_flipped")]
    assert index[same].equals(noisy_index[same])


def test_flipped_labels_spread_over_all_other_classes():
    rows = rendered_index(train=500, test=0, seed=3, flip_rate=0.9, annotators=3)
    flipped = rows[rows["is_flipped"] & (rows["true_label"] == 3)]["label"]
    counts = np.bincount(flipped, minlength=7)[[0, 1, 2, 4, 5, 6]]
    # Six equal shares: within five standard deviations.
    expected = counts.sum() / 6
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_larger_split_keeps_pictures_and_votes_of_its_paths():
    small = rendered_index(train=60, test=20, seed=9).set_index("path")
    large = rendered_index(train=120, test=20, seed=9).set_index("path")
    common = small.index.intersection(large.index)
    assert len(common) > 25  # more than the test split
    columns = [*VOTE_COLUMNS, *TRUE_COLUMNS, *LANDMARK_COLUMNS]
    assert small.loc[common, columns].equals(large.loc[common, columns])
    numbers = [int(path.split(":")[2]) for path in large.index]
    assert all(n % 2 == (s == "test") for n, s in zip(numbers, large["split"], strict=True))
    test = small["split"] == "test"
    assert small[test].equals(large[large["split"] == "test"])


# The annotators


def test_tables_of_probabilities():
    for table in (CONFUSION, NEIGHBOURS):
        assert table.shape == (7, 7)
        assert (table >= 0).all()
        np.testing.assert_allclose(table.sum(axis=1), 1)
    assert (np.diag(NEIGHBOURS) == 0).all()
    assert (CONFUSION.argmax(axis=1) == np.arange(7)).all()


def test_perceived_against_a_plain_loop():
    generator = np.random.default_rng(0)
    mixture = generator.dirichlet(np.ones(7), 5)
    intensity, occluded = np.array([0.4, 0.7, 1.0, 1.05, 0.5]), np.array([0, 1, 0, 1, 0], bool)
    for n, row in enumerate(perceived(mixture, intensity, occluded)):
        fading = 0.4 * max(0.0, 1 - intensity[n])
        for called in range(7):
            value = 0.0
            for shown in range(7):
                seen = (1 - fading) * mixture[n, shown] + (fading if shown == NEUTRAL else 0.0)
                value += seen * CONFUSION[shown, called]
            if occluded[n]:
                value = 0.85 * value + 0.15 / 7
            assert row[called] == pytest.approx(value)


def test_many_annotators_vote_as_perceived():
    rows = rendered_index(train=40, test=0, seed=4, annotators=5000)
    faces = [face_parameters(path) for path in rows["path"]]
    expected = perceived(
        rows[TRUE_COLUMNS].to_numpy(),
        np.array([face.intensity for face in faces]),
        np.array([face.scene.occlusion != "none" for face in faces]),
    )
    got = rows[VOTE_COLUMNS[:7]].to_numpy() / 5000
    assert np.abs(got - expected).max() < 5 * 0.5 / np.sqrt(5000)


def test_annotators_agree_less_on_blends(index):
    share = index[VOTE_COLUMNS].max(axis=1) / 10
    is_blend = index[TRUE_COLUMNS].max(axis=1) < 0.8
    assert share[is_blend].mean() < share[~is_blend].mean() - 0.1


# Errors, and whether there is anything to learn


@pytest.mark.parametrize(
    "path",
    [
        "",
        "train/0.png",
        "rendered:1:2",
        "rendered:-1:2:fear",
        "rendered:1:2:joy",
        "rendered:1:2:fear ",
    ],
)
def test_malformed_path(path):
    with pytest.raises(ValueError, match="expected 'rendered:<seed>:<number>:<expression>'"):
        render_face(path, 48)


def test_too_small_size():
    with pytest.raises(ValueError, match="at least 8"):
        render_face(PATHS[0], 7)


@pytest.mark.parametrize(
    "change",
    [{"train": -1}, {"train": 0, "test": 0}, {"seed": -1}, {"annotators": 0}, {"flip_rate": 1.0}],
)
def test_index_parameters_out_of_range(change):
    with pytest.raises(ValueError, match="expected"):
        rendered_index(**{"train": 5, "test": 5, "seed": 0, **change})


def test_expressions_can_be_learnt_from_pure_frontal_faces():
    images, labels = [], []
    for number in range(210):
        face = face_parameters(f"rendered:8:{number}:{BASIC_EXPRESSIONS[number % 7]}")
        scene = replace(face.scene, occlusion="none", blur=0.0, light=(0.0, 0.0))
        face = replace(face, pose=Pose(), scene=scene, mixture=np.eye(7)[number % 7], intensity=1.0)
        grey = cv2.cvtColor(draw_face(face, 24), cv2.COLOR_RGB2GRAY).ravel().astype(float)
        images.append((grey - grey.mean()) / grey.std())
        labels.append(number % 7)
    images, labels = np.array(images), np.array(labels)
    model = RidgeClassifier(alpha=100).fit(images[:140], labels[:140])
    assert model.score(images[140:], labels[140:]) > 0.5  # chance is 1/7


def test_a_change_of_the_pictures_changes_the_version():
    """Stored pictures are known by the renderer's version, so each has pictures of its own.

    Compared are means over squares of 12 x 12 pixels, which other processors give as well.
    """
    golden = json.loads((GOLDEN_FOLDER / "rendered_faces.json").read_text())
    assert set(golden["versions"]) == {RENDERER_VERSION}
    pictures = np.stack([render_face(path, 48) for path in golden["paths"]])
    means = pictures.reshape(-1, 4, 12, 4, 12, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(means, golden["versions"][RENDERER_VERSION], atol=0.2)
