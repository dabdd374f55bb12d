"""The explorer of NAW: what it shows at a point, and that its sliders move the picture."""

import math

import ipywidgets
import numpy as np
import pytest
from matplotlib.figure import Figure

from nlalib.methods.nla.weights import VARIANTS
from nlalib.report.explorer import (
    axis_ratio,
    draw_point,
    explorer,
    in_browser,
    point_facts,
    possible_point,
    slider_values,
    variant_from_sliders,
)


@pytest.mark.parametrize("name", VARIANTS)
def test_sliders_stand_for_each_variant(name):
    again = variant_from_sliders(slider_values(VARIANTS[name]))
    for field, value in vars(VARIANTS[name]).items():
        assert getattr(again, field) == pytest.approx(value)


@pytest.mark.parametrize(("case", "ratio"), [("true", 2), ("false", 6)])
def test_ratios_of_the_paper(case, ratio):
    paper = VARIANTS["paper"]
    found = axis_ratio(getattr(paper, f"{case}_variance"), getattr(paper, f"{case}_covariance"))
    assert found == pytest.approx(ratio)


def loss_by_hand(z: list[float], epoch: int) -> float:
    """(1 + w) CE of the paper for label 0, with nothing but `math`."""
    total = sum(math.exp(value) for value in z)
    p = [math.exp(value) / total for value in z]
    x, y = p[0], max(p[1:])
    if x >= y:
        s, c, mean = 0.8, -0.48 * (1 - math.exp(-15 * epoch / 60)), (0.5, 0.5)
    else:
        s, c, mean = 0.8, 0.8 * 35 / 37, (0.3, 0.15)
    dx, dy, determinant = x - mean[0], y - mean[1], s * s - c * c
    weight = math.exp(-(s * dx * dx - 2 * c * dx * dy + s * dy * dy) / determinant / 2)
    weight /= 2 * math.pi * math.sqrt(determinant)
    return (1 + weight) * -math.log(x)


@pytest.mark.parametrize("point", [(0.35, 0.5), (0.6, 0.2), (0.9, 0.05)])
def test_facts_of_a_point_follow_the_formula(point):
    facts = point_facts(*point, 5, VARIANTS["paper"])
    z = [math.log(p) for p in (*point, *[(1 - sum(point)) / 5] * 5)]
    assert facts["loss"] == pytest.approx(loss_by_hand(z, 5))
    assert facts["loss"] == pytest.approx((1 + facts["weight"]) * facts["cross_entropy"])
    for place, name in enumerate(("label", "nearest")):
        up, down = list(z), list(z)
        up[place] += 1e-6
        down[place] -= 1e-6
        slope = (loss_by_hand(up, 5) - loss_by_hand(down, 5)) / 2e-6
        assert facts[f"gradient_{name}"] == pytest.approx(slope, abs=1e-6)
    assert facts["plain_gradient_label"] == pytest.approx(point[0] - 1)
    assert facts["plain_gradient_nearest"] == pytest.approx(point[1])


@pytest.mark.parametrize("point", [(0.5, 0.9), (0.0, 0.0), (1.0, 1.0), (0.9, 0.0), (0.4, 0.3)])
def test_points_out_of_reach_are_brought_back(point):
    p_gt, p_nn = possible_point(*point)
    left = (1 - p_gt - p_nn) / 5
    assert 0 < left <= p_nn * (1 + 1e-9)
    assert p_gt > 0
    assert all(math.isfinite(v) for v in point_facts(p_gt, p_nn, 0, VARIANTS["paper"]).values())


def test_a_possible_point_stays():
    assert possible_point(0.35, 0.5) == (0.35, 0.5)


def test_the_surface_is_drawn_with_its_point():
    axis = Figure().add_subplot()
    mesh = draw_point(axis, 0.35, 0.5, 59, VARIANTS["paper"])
    drawn = [tuple(np.ravel(line.get_xydata())) for line in axis.lines]
    assert (0.35, 0.5) in drawn
    assert np.nanmax(mesh.get_array()) == pytest.approx(1.54, abs=0.01)


def parts(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts(child)


@pytest.fixture
def shown():
    """The explorer's widgets: by description, and the picture and the text."""
    found = list(parts(explorer()))
    by_name = {w.description: w for w in found if getattr(w, "description", "")}
    (picture,) = [w for w in found if isinstance(w, ipywidgets.Image)]
    (text,) = [w for w in found if isinstance(w, ipywidgets.HTML)]
    return by_name, picture, text


TRUE_SIGMA = "True case: σ₁₁"


def test_sliders_move_picture_and_text(shown):
    # Beside p_nn = 0.5, p_gt = 0.6 is a point of the True case, the only one with a schedule.
    by_name, picture, text = shown
    assert by_name["False case: axes' ratio"].value == pytest.approx(6, abs=1e-3)
    moves = {"label: p_gt": 0.6, "epoch e": 1, TRUE_SIGMA: 0.5, "normalised": False}
    for name, value in moves.items():
        before = picture.value, text.value
        by_name[name].value = value
        assert picture.value != before[0], name
        assert text.value != before[1], name


def test_a_version_sets_the_sliders_and_a_moved_slider_makes_it_custom(shown):
    by_name, picture, _ = shown
    by_name["version"].value = "v_naw"
    assert by_name[TRUE_SIGMA].value == pytest.approx(0.75)
    assert not by_name["normalised"].value
    assert by_name["version"].value == "v_naw"
    by_name["epoch e"].value = 5
    by_name[TRUE_SIGMA].value += 4e-4  # as a browser rounds to a step
    assert by_name["version"].value == "v_naw"
    by_name[TRUE_SIGMA].value = 0.5
    assert by_name["version"].value == "custom"
    before = picture.value
    by_name["reset"].click()
    assert by_name["version"].value == "paper"
    assert by_name[TRUE_SIGMA].value == pytest.approx(0.8)
    assert by_name["epoch e"].value == 59
    assert picture.value != before


def test_a_point_out_of_reach_is_told(shown):
    by_name, _, text = shown
    assert "moved" not in text.value
    by_name["nearest negative: p_nn"].value = 0.9
    assert "moved to a possible point" in text.value


def test_colours_are_the_same_at_all_epochs():
    axis = Figure().add_subplot()
    meshes = [draw_point(axis, 0.35, 0.5, epoch, VARIANTS["v_naw"]) for epoch in (0, 59)]
    assert {mesh.get_clim() for mesh in meshes} == {(1, 2)}
    assert max(np.nanmax(mesh.get_array()) for mesh in meshes) <= 2


def test_sliders_are_shown_only_where_a_server_started_the_kernel(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert not in_browser()
    monkeypatch.setenv("JPY_SESSION_NAME", "03.ipynb")
    assert in_browser()
