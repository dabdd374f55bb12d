"""Alignment against plain linear algebra and painted dots; the detector on a free photograph."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from nlalib.data.index import LANDMARK_COLUMNS
from nlalib.data.sets.rendered import render_face, rendered_index
from nlalib.prepare.alignment import (
    ARCFACE_TEMPLATE,
    TEMPLATE,
    affine_transform,
    align_face,
    landmark_error,
    similarity_transform,
    three_landmarks,
    warp_image,
)
from nlalib.prepare.face_detector import detect_faces, find_face, points_of_face

# A face somewhat longer than the template, in an image of 300 x 400 pixels.
FACE = np.array([[150.0, 120.0], [214.0, 130.0], [176.0, 160.0], [146.0, 200.0], [190.0, 206.0]])


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


def moved(points, degrees, scale, shift):
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ rotation.T + shift


def painted(points, height=300, width=400):
    """Paint a bright dot of 3 pixels at each point, centred on it to a fraction of a pixel."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3**2)) for px, py in points)
    return np.repeat((255 * np.clip(light, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def centre_of_light(crop, near, reach):
    """Return the centre of mass of the light within `reach` pixels of a point."""
    x, y = np.meshgrid(np.arange(crop.shape[1]) + 0.5, np.arange(crop.shape[0]) + 0.5)
    weight = crop[..., 0] * (np.hypot(x - near[0], y - near[1]) < reach)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def test_three_landmarks_are_the_eyes_and_the_middle_of_the_mouth():
    points = np.array([[10, 20], [30, 22], [21, 30], [12, 40], [26, 44]])
    assert three_landmarks(points).tolist() == [[10, 20], [30, 22], [19, 42]]
    assert np.array_equal(
        three_landmarks(np.stack([points, points + 5]))[1], [[15, 25], [35, 27], [24, 47]]
    )


@pytest.mark.parametrize("template", [TEMPLATE, ARCFACE_TEMPLATE])
def test_templates_are_upright_faces_inside_the_crop(template):
    left_eye, right_eye, mouth = template
    assert ((template > 0.1) & (template < 0.9)).all()
    assert left_eye[0] < mouth[0] < right_eye[0]
    assert mouth[1] > max(left_eye[1], right_eye[1])


def test_template_is_its_own_mirror():
    mirrored = (TEMPLATE * [-1, 1] + [1, 0])[[1, 0, 2]]
    np.testing.assert_allclose(mirrored, TEMPLATE, atol=1e-15)


@settings(max_examples=50, deadline=None)
@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.05, 20),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_a_moved_template_is_moved_back(degrees, scale, x, y):
    template = TEMPLATE * 224
    points = moved(template, degrees, scale, [x, y])
    for estimate in (similarity_transform, affine_transform):
        np.testing.assert_allclose(estimate(points, template)(points), template, atol=1e-6)
    found = similarity_transform(points, template)
    assert found.scale == pytest.approx(1 / scale, rel=1e-6)
    turned = (np.rad2deg(found.rotation) + degrees + 180) % 360 - 180
    assert turned == pytest.approx(0, abs=1e-6)


def test_similarity_is_the_least_squares_solution():
    points, template = three_landmarks(FACE), TEMPLATE * 224
    # x' = a x - b y + c, y' = b x + a y + d: linear in (a, b, c, d).
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points]
    solution = np.linalg.lstsq(np.reshape(rows, (6, 4)), template.ravel())[0]
    a, b, c, d = solution
    found = similarity_transform(points, template).params
    np.testing.assert_allclose(found, [[a, -b, c], [b, a, d], [0, 0, 1]], atol=1e-9)
    assert np.abs(similarity_transform(points, template)(points) - template).max() > 1


def test_affine_meets_the_template_exactly_and_is_the_solved_system():
    points, template = three_landmarks(FACE), TEMPLATE * 224
    found = affine_transform(points, template)
    np.testing.assert_allclose(found(points), template, atol=1e-9)
    solved = np.linalg.solve(np.column_stack([points, np.ones(3)]), template).T
    np.testing.assert_allclose(found.params[:2], solved, atol=1e-9)


@pytest.mark.parametrize("size", [48, 224])
@pytest.mark.parametrize("degrees", [0, 35, -60])
def test_painted_dots_land_on_the_template(size, degrees):
    # Moved as a whole, so that the similarity can meet the template and pixels can be compared.
    points = moved(TEMPLATE * 100, degrees, 1.3, 0)
    points += np.array([200, 150]) - points.mean(axis=0)
    five = np.array([points[0], points[1], points.mean(axis=0), points[2] - 5, points[2] + 5])
    for method in ("similarity", "affine"):
        crop, landmarks = align_face(painted(points), five, size=size, method=method)
        assert crop.shape == (size, size, 3)
        assert crop.dtype == np.uint8
        np.testing.assert_allclose(three_landmarks(landmarks), TEMPLATE * size, atol=1e-6)
        for place in TEMPLATE * size:
            light = centre_of_light(crop, place, reach=0.12 * size)
            assert np.linalg.norm(light - place) < 0.1


def test_landmarks_of_the_crop_lie_where_its_pixels_do():
    # No exact fit here: the returned points must follow the pixels all the same.
    points = FACE[[0, 1, 3, 4]]
    for method in ("similarity", "affine"):
        crop, landmarks = align_face(painted(points), FACE, method=method)
        for place in landmarks[[0, 1, 3, 4]]:
            assert np.linalg.norm(centre_of_light(crop, place, reach=22) - place) < 0.3


def test_warping_by_the_identity_changes_nothing(astronaut):
    identity = similarity_transform(TEMPLATE * 512, TEMPLATE * 512)
    difference = warp_image(astronaut, identity, 512).astype(int) - astronaut
    assert np.abs(difference).max() <= 1


def test_shrinking_is_free_of_aliases():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    shrink = similarity_transform(TEMPLATE * 400, TEMPLATE * 90)
    crop = warp_image(stripes, shrink, 90)[10:-10, 10:-10].astype(float)
    assert crop.mean() == pytest.approx(127.5, abs=3)
    assert crop.std() < 5


def test_what_lies_outside_the_image_is_black():
    white = np.full((50, 50, 3), 255, np.uint8)
    crop, _ = align_face(white, FACE - [150, 120])
    assert crop.min() == 0
    assert crop.max() == 255


def test_border_may_repeat_the_image_instead():
    white = np.full((50, 50, 3), 255, np.uint8)
    shrink = similarity_transform(TEMPLATE * 100, TEMPLATE * 50)
    assert warp_image(white, shrink, 50).min() == 0
    assert warp_image(white, shrink, 50, border=cv2.BORDER_REPLICATE).min() == 255


@pytest.mark.parametrize("method", ["similarity", "affine"])
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.ones((5, 2)), "one point"),
        (np.column_stack([np.arange(5.0), 2 * np.arange(5.0)]), "on one line"),
        (FACE[[1, 0, 2, 4, 3]], "mirrored"),
        (np.where(np.arange(10).reshape(5, 2) == 3, np.nan, FACE), "not finite"),
        (np.where(np.arange(10).reshape(5, 2) == 0, np.inf, FACE), "not finite"),
        (FACE[:3], r"expected \(\.\.\., 5, 2\)"),
    ],
)
def test_points_that_define_no_face_are_refused(method, points, message):
    with pytest.raises(ValueError, match=message):
        align_face(np.zeros((300, 400, 3), np.uint8), points, method=method)


def test_unknown_method_and_other_images_are_refused():
    with pytest.raises(ValueError, match="known are similarity, affine"):
        align_face(np.zeros((300, 400, 3), np.uint8), FACE, method="projective")
    for image in (np.zeros((300, 400), np.uint8), np.zeros((300, 400, 3))):
        with pytest.raises(ValueError, match=r"expected uint8 \(height, width, 3\)"):
            align_face(image, FACE)
        with pytest.raises(ValueError, match=r"expected uint8 \(height, width, 3\)"):
            detect_faces(image)


def test_landmark_error_by_hand():
    known = np.array([[[0, 0], [10, 0], [5, 5]], [[0, 0], [0, 20], [5, 5]]])
    found = known + np.array([3, 4])
    pixels, relative = landmark_error(found, known)
    assert pixels.tolist() == [[5] * 3, [5] * 3]
    assert relative.tolist() == [[0.5] * 3, [0.25] * 3]
    with pytest.raises(ValueError, match="share one shape"):
        landmark_error(found[:1], known)
    with pytest.raises(ValueError, match="coincide"):
        landmark_error(known[0], np.zeros((3, 2)))


def check_astronaut(faces, tolerance):
    """Compare with eyes and mouth read off the photograph by eye, to a few pixels."""
    assert len(faces.scores) == len(faces.boxes) == len(faces.points) == 1
    by_eye = np.array([[204, 101], [247, 103.5], [224, 140.5]])
    assert np.abs(three_landmarks(faces.points[0]) - by_eye).max() < tolerance
    left, top, right, bottom = faces.boxes[0]
    assert ((faces.points[0] > [left, top]) & (faces.points[0] < [right, bottom])).all()


def test_detector_finds_the_one_face_of_the_photograph(astronaut):
    check_astronaut(detect_faces(astronaut), tolerance=4)


def test_face_is_found_with_its_box_and_score_kept(astronaut):
    first, face = detect_faces(astronaut), find_face(astronaut)
    check_astronaut(face, tolerance=4)
    assert np.array_equal(face.boxes, first.boxes[:1])
    assert np.array_equal(face.scores, first.scores[:1])
    assert not np.array_equal(face.points, first.points[:1])


def test_without_a_vote_the_anchor_speaks_that_was_detected(astronaut):
    first = detect_faces(astronaut)
    alone = points_of_face(astronaut, first.boxes[0], vote=False)
    np.testing.assert_allclose(alone, first.points[0], atol=1e-9)
    voted = points_of_face(astronaut, first.boxes[0])
    check_astronaut(first._replace(points=voted[None]), tolerance=4)
    assert not np.allclose(voted, alone)
    assert points_of_face(astronaut, np.array([400.0, 400.0, 480.0, 480.0])) is None


def test_views_are_averaged_with_and_without_the_vote(astronaut):
    voted, alone = find_face(astronaut), find_face(astronaut, vote=False)
    check_astronaut(alone, tolerance=4)
    assert not np.allclose(voted.points, alone.points)


def test_mirrored_image_has_mirrored_landmarks(astronaut):
    """The views hold each mirror already, so only the first look's box differs."""
    mirrored = find_face(np.ascontiguousarray(astronaut[:, ::-1])).points[0]
    back = (mirrored * [-1, 1] + [512, 0])[[1, 0, 2, 4, 3]]
    between_eyes = 44
    assert np.abs(back - find_face(astronaut).points[0]).max() < 0.03 * between_eyes


def test_four_views_are_nearer_to_the_known_landmarks_of_drawn_faces():
    faces = rendered_index(train=20, test=0, seed=11)
    known = faces[LANDMARK_COLUMNS].to_numpy().reshape(-1, 5, 2) * 224
    images = [render_face(path, 224) for path in faces["path"]]
    errors = [
        np.median(landmark_error(np.array([find(image).points[0] for image in images]), known)[1])
        for find in (detect_faces, find_face)
    ]
    assert errors[1] < 0.95 * errors[0]
    assert errors[1] < 0.06


def test_the_face_of_a_tight_crop_is_seen_up_to_its_border(astronaut):
    corner = np.array([178, 60])
    crop = np.ascontiguousarray(astronaut[60:165, 178:275])
    faces = find_face(crop)
    check_astronaut(
        faces._replace(boxes=faces.boxes + np.tile(corner, 2), points=faces.points + corner),
        tolerance=5,
    )


def test_detector_agrees_with_its_package_up_to_whole_pixels(astronaut):
    retinaface = pytest.importorskip("retinaface")
    (theirs,) = retinaface.detect_faces(astronaut)
    ours = detect_faces(astronaut)
    assert [(point.x, point.y) for point in theirs.landmarks] == [
        tuple(point) for point in ours.points[0].astype(int)
    ]
    assert ours.scores[0] == pytest.approx(theirs.score, abs=1e-5)


def test_detector_orders_faces_by_size(astronaut):
    face = astronaut[30:190, 150:310]
    scene = np.full((200, 420, 3), 128, np.uint8)
    scene[100:180, 20:100] = cv2.resize(face, (80, 80), interpolation=cv2.INTER_AREA)
    scene[20:180, 220:380] = face
    faces = detect_faces(scene)
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    assert len(faces.scores) == 2
    assert (sides[0] > sides[1]).all()
    assert faces.points[0, 0, 0] > 220 > faces.points[1, 1, 0]


def test_detector_finds_nothing_in_a_blank_image():
    for find in (detect_faces, find_face):
        faces = find(np.full((120, 160, 3), 128, np.uint8))
        assert faces.boxes.shape == (0, 4)
        assert faces.scores.shape == (0,)
        assert faces.points.shape == (0, 5, 2)


def test_small_faces_are_found_because_they_are_enlarged(astronaut):
    # 24 pixels: a face of 15 pixels, narrower than the network's smallest anchor.
    scale = 24 / 150
    small = cv2.resize(astronaut[30:180, 150:300], (24, 24), interpolation=cv2.INTER_AREA)
    assert len(detect_faces(small, minimum_side=1).scores) == 0
    faces = detect_faces(small)
    whole = faces._replace(
        boxes=faces.boxes / scale + [150, 30, 150, 30], points=faces.points / scale + [150, 30]
    )
    check_astronaut(whole, tolerance=6)


def test_48_pixel_crop_is_found(astronaut):
    small = cv2.resize(astronaut[30:180, 150:300], (48, 48), interpolation=cv2.INTER_AREA)
    faces = detect_faces(small)
    whole = faces._replace(
        boxes=faces.boxes * 150 / 48 + [150, 30, 150, 30],
        points=faces.points * 150 / 48 + [150, 30],
    )
    check_astronaut(whole, tolerance=4)


def test_importing_the_detector_loads_no_network():
    code = (
        "import sys, nlalib.prepare.face_detector; "
        "print('onnxruntime' in sys.modules, 'retinaface' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]


def test_template_puts_eyes_and_mouth_where_the_text_says():
    assert TEMPLATE.tolist() == [[0.35, 0.40], [0.65, 0.40], [0.50, 0.745]]


def test_warping_interpolates_between_pixels():
    """A ramp stays a ramp when it is enlarged: nearest pixels would make steps of it."""
    ramp = np.repeat(np.arange(0, 200, 10, dtype=np.uint8)[None, :, None], 20, axis=0)
    enlarge = similarity_transform(TEMPLATE * 20, TEMPLATE * 80)
    crop = warp_image(np.repeat(ramp, 3, axis=2), enlarge, 80)[40, 8:-8, 0].astype(float)
    assert set(np.diff(crop)) <= {2.0, 3.0}  # 10 grey levels over four pixels


def test_blur_before_shrinking_is_half_of_what_a_pixel_grows():
    """A point that is shrunk to a quarter: sigma = (4 - 1) / 2 pixels of the large image."""
    point = np.zeros((400, 400, 3), np.uint8)
    point[198:202, 198:202] = 255
    shrink = similarity_transform(TEMPLATE * 400, TEMPLATE * 100)
    crop = warp_image(point, shrink, 100)[:, :, 0].astype(float)
    places = np.arange(400)
    kernel = np.exp(-((places[:, None] - np.arange(198, 202)) ** 2) / (2 * 1.5**2)).sum(axis=1)
    kernel /= np.sqrt(2 * np.pi) * 1.5
    blurred = 255 * np.outer(kernel, kernel)
    wanted = blurred.reshape(100, 4, 100, 4)[:, 1:3, :, 1:3].mean(axis=(1, 3))
    assert np.abs(crop - wanted).max() < 3
