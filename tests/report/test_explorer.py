"""The explorer of NAW: its numbers in Python and in the browser, and that its sliders move it."""

import json
import math

import numpy as np
import pytest
from browser import CHROMIUM, run_in_page
from matplotlib.figure import Figure

from nlalib.methods.nla.weights import VARIANTS, NAWVariant, diagonal_covariance
from nlalib.report.explorer import draw_point, draw_surface, explorer, in_browser, point_values
from places import ROOT

MODULE = (ROOT / "nlalib" / "report" / "explorer.js").read_text()


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
def test_values_of_a_point_follow_the_formula(point):
    values = point_values(*point, 5, VARIANTS["paper"])
    z = [math.log(p) for p in (*point, *[(1 - sum(point)) / 5] * 5)]
    assert values["loss"] == pytest.approx(loss_by_hand(z, 5))
    assert values["loss"] == pytest.approx((1 + values["weight"]) * values["cross_entropy"])
    for place, name in enumerate(("label", "nearest")):
        up, down = list(z), list(z)
        up[place] += 1e-6
        down[place] -= 1e-6
        slope = (loss_by_hand(up, 5) - loss_by_hand(down, 5)) / 2e-6
        assert values[f"gradient_{name}"] == pytest.approx(slope, abs=1e-6)
    assert values["plain_gradient_label"] == pytest.approx(point[0] - 1)
    assert values["plain_gradient_nearest"] == pytest.approx(point[1])


def test_the_surface_is_drawn_with_its_point():
    axis = Figure().add_subplot()
    mesh = draw_point(axis, 0.35, 0.5, 59, VARIANTS["paper"])
    drawn = [tuple(np.ravel(line.get_xydata())) for line in axis.lines]
    assert (0.35, 0.5) in drawn
    assert np.nanmax(mesh.get_array()) == pytest.approx(1.54, abs=0.01)


def test_the_surface_ends_at_the_triangle_and_marks_both_means():
    axis = Figure().add_subplot()
    grid = np.meshgrid([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])
    mesh = draw_surface(axis, *grid, np.full((3, 3), 1.2), VARIANTS["paper"], highest=1.5)
    outside = np.isnan(mesh.get_array().filled(np.nan))
    assert outside.tolist() == [[False] * 3, [False, False, True], [False, True, True]]
    assert mesh.get_clim() == (1, 1.5)
    marks = {line.get_marker(): line.get_xydata().tolist() for line in axis.lines}
    assert (marks["o"], marks["X"]) == ([[0.5, 0.5]], [[0.3, 0.15]])


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


def test_a_notebook_gets_the_module_as_a_widget():
    assert explorer()._esm == MODULE


def version_of(variant: NAWVariant) -> dict:
    """Return a variant as the module writes it: (s + |c|) / (s - |c|) is the ratio's square."""
    cases = {}
    for case in ("true", "false"):
        s, c = getattr(variant, f"{case}_variance"), getattr(variant, f"{case}_covariance")
        mean = dict(zip(("p_gt", "p_nn"), getattr(variant, f"{case}_mean"), strict=True))
        cases[case] = {"sigma": s, "ratio": math.sqrt((s + c) / (s - c)), **mean}
    return {"normalised": variant.normalised, **cases}


def random_setting(generator: np.random.Generator) -> dict:
    """Return a sample's point, an epoch and a variant, anywhere within the sliders' reach."""
    probabilities = generator.dirichlet(np.ones(7))
    p_gt, p_nn = float(probabilities[0]), float(probabilities[1:].max())
    fields = {"normalised": bool(generator.integers(2))}
    for case in ("true", "false"):
        both = diagonal_covariance(generator.uniform(0.05, 2), generator.uniform(1, 10))
        fields |= dict(zip((f"{case}_variance", f"{case}_covariance"), both, strict=True))
        fields[f"{case}_mean"] = tuple(generator.uniform(0, 1, 2).tolist())
    return {"point": (p_gt, p_nn, int(generator.integers(60))), "variant": NAWVariant(**fields)}


generator = np.random.default_rng(17)
SETTINGS = [random_setting(generator) for _ in range(200)]
OUT_OF_REACH = [(0.5, 0.9), (0.0, 0.0), (1.0, 1.0), (0.9, 0.0)]
MOVE = """
const box = document.body.appendChild(document.createElement("div"));
show(box);
const [canvas, table] = [box.querySelector("canvas"), box.querySelector("table")];
const picture = () => canvas.toDataURL() + table.innerText;
const slider = (path) => box.querySelector(`[data-path="${path}"]`);
const select = box.querySelector("select");
const steps = [];
function step(name, act) {
  const before = picture();
  act();
  steps.push([name, before !== picture(), select.value, box.querySelector(".moved").textContent]);
}
function move(path, value) {
  step(path, () => {
    slider(path).value = value;
    slider(path).dispatchEvent(new Event("input"));
  });
}
move("p_gt", 0.6);
move("epoch", 1);
step("v_naw", () => { select.value = "v_naw"; select.dispatchEvent(new Event("change")); });
move("true.sigma", 0.5);
step("reset", () => box.querySelector(".reset").click());
move("p_nn", 0.9);
const moved = { steps, sigma: slider("true.sigma").value, epoch: slider("epoch").value };
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """What the module gives in one page: numbers at the settings, points, versions, moves."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    settings = json.dumps([[*one["point"], version_of(one["variant"])] for one in SETTINGS])
    values = f"const values = {settings}.map((one) => pointValues(...one));"
    points = f"const points = {json.dumps([*OUT_OF_REACH, (0.4, 0.3)])}"
    points += ".map((one) => possiblePoint(...one));"
    # A widget's module is loaded from a blob, and its default export is asked to render.
    widget = (
        f"const source = {json.dumps(MODULE)};"
        "const blob = new Blob([source], { type: 'text/javascript' });"
        "const loaded = await import(URL.createObjectURL(blob));"
        "const element = document.createElement('div');"
        "const end = loaded.default.render({ model: {}, el: element });"
        "end();"
        "const title = element.querySelector('.title').textContent;"
    ).replace("</", "<\\/")
    script = "\n".join(
        [values, points, MOVE, widget, "return { values, points, moved, VERSIONS, title };"]
    )
    return run_in_page(tmp_path_factory.mktemp("explorer"), MODULE, script)


def test_the_browser_computes_what_the_library_does_at_200_settings(browser):
    for one, found in zip(SETTINGS, browser["values"], strict=True):
        expected = point_values(*one["point"], one["variant"])
        assert found == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_the_browser_knows_the_same_versions(browser):
    assert list(browser["VERSIONS"]) == list(VARIANTS)
    for name, found in browser["VERSIONS"].items():
        ours = version_of(VARIANTS[name])
        assert found["normalised"] == ours["normalised"]
        for case in ("true", "false"):
            assert found[case] == pytest.approx(ours[case], rel=1e-9)


def test_a_widgets_loader_can_render_it(browser):
    assert browser["title"] == "1 + w at e = 59"


def test_points_out_of_reach_are_brought_back_and_others_stay(browser):
    for p_gt, p_nn in browser["points"]:
        assert 0 < (1 - p_gt - p_nn) / 5 <= p_nn * (1 + 1e-9)
        assert p_gt > 0
    assert browser["points"][-1] == [0.4, 0.3]


def test_sliders_versions_and_reset_move_the_picture(browser):
    # Beside p_nn = 0.5, p_gt = 0.6 is a point of the True case, the only one with a schedule.
    moved, told = browser["moved"], "moved to a possible point"
    assert moved["steps"] == [
        ["p_gt", True, "paper", told],
        ["epoch", True, "paper", told],
        ["v_naw", True, "v_naw", told],
        ["true.sigma", True, "custom", told],
        ["reset", True, "paper", ""],
        ["p_nn", True, "paper", told],
    ]
    assert (float(moved["sigma"]), float(moved["epoch"])) == (0.8, 59)
