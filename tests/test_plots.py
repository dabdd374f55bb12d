"""What a figure leaves behind, and what its marks say."""

import struct

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from nlalib import plots
from nlalib.methods import METHODS


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def test_saved_figure_has_its_numbers_its_words_and_160_dots_an_inch(tmp_path, monkeypatch):
    monkeypatch.setenv("NLA_FIGURES", str(tmp_path))
    figure, axis = plt.subplots(figsize=(5, 2))
    axis.plot([1, 2])
    table = pd.DataFrame({"y": [1.5, 2.5]})
    shown = plots.save_figure(figure, "00_line", table, alt="A line.")
    png = (tmp_path / "00_line.png").read_bytes()
    assert struct.unpack(">II", png[16:24]) == (800, 320)
    assert b"A line." in png
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "00_line.csv"), table)
    data, metadata = shown._repr_png_()
    assert metadata == {"width": 400, "alt": "A line."}
    assert data
    assert not plt.get_fignums()


def test_every_grid_method_has_a_colour_and_settings_change_none():
    assert set(plots.METHOD_COLOURS) - {"linear head"} <= set(METHODS)
    assert plots.method_colour("scn (relabel_from=0.5)") == plots.METHOD_COLOURS["scn"]
    assert plots.method_colour("decoder, no uniformity") == plots.METHOD_COLOURS["decoder"]
    assert plots.METHOD_COLOURS["ce"] != plots.METHOD_COLOURS["nla"]
    with pytest.raises(KeyError):
        plots.method_colour("unknown")


def forest(**columns) -> pd.DataFrame:
    rows = {"name": ["a", "b"], "difference": [1.0, -2.0], "low": [0.5, -30.0], "high": [1.5, 26.0]}
    return pd.DataFrame({**rows, "certainty": ["holds", "not told apart"], **columns})


def test_forest_stands_in_the_order_of_the_names():
    axis = plt.figure().add_subplot()
    plots.draw_forest(axis, forest(), ["b", "a"], {"a": "red", "b": "blue"})
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b", "a"]
    assert axis.yaxis_inverted()
    thick = [line for line in axis.lines if line.get_linewidth() == 6]
    drawn = {tuple(line.get_xdata()): line.get_ydata()[0] for line in thick}
    assert drawn == {(0.5, 1.5): 1, (-30.0, 26.0): 0}


def test_forest_draws_intervals_over_images_where_there_are_some():
    axis = plt.figure().add_subplot()
    rows = forest(images_low=[0.8, np.nan], images_high=[1.2, np.nan])
    plots.draw_forest(axis, rows, ["a", "b"], {"a": "red", "b": "blue"})
    thin = [tuple(line.get_xdata()) for line in axis.lines if line.get_linewidth() == 1.2]
    assert (0.8, 1.2) in thin


@pytest.mark.parametrize(("centre", "strokes"), [(np.mean, [3, 5]), (np.median, [1, 5])])
def test_dots_stand_under_their_name_with_a_stroke_at_their_centre(centre, strokes):
    axis = plt.figure().add_subplot()
    plots.draw_dots(axis, {"a": np.array([1.0, 1.0, 7.0]), "b": np.array([4.0, 6.0])}, centre)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert axis.yaxis_inverted()
    dots = [line.get_xydata().tolist() for line in axis.lines if line.get_marker() == "o"]
    assert dots == [[[1, 0], [1, 0], [7, 0]], [[4, 1], [6, 1]]]
    marks = [line.get_xydata().tolist() for line in axis.lines if line.get_marker() == "|"]
    assert marks == [[[place, height]] for height, place in enumerate(strokes)]


def test_a_cut_axis_marks_what_goes_on_beyond_it():
    axis = plt.figure().add_subplot()
    plots.draw_forest(axis, forest(), ["a", "b"], {"a": "red", "b": "blue"})
    plots.cut_at(axis, -25, 25)
    marks = {(line.get_marker(), float(np.ravel(line.get_xdata())[0])) for line in axis.lines}
    assert {("<", -25.0), (">", 25.0)} <= marks
    assert axis.get_xlim() == (-25, 25)
    at = [np.ravel(line.get_ydata())[0] for line in axis.lines if line.get_marker() in "<>"]
    assert at == [1, 1]


def test_nothing_is_marked_where_nothing_is_cut():
    axis = plt.figure().add_subplot()
    plots.draw_forest(axis, forest(), ["a", "b"], {"a": "red", "b": "blue"})
    plots.cut_at(axis, -40, 40)
    assert not [line for line in axis.lines if line.get_marker() in ("<", ">")]


def test_points_lie_where_the_image_is_read_from_its_corner():
    figure = plt.figure(figsize=(2, 1), layout="none")
    axis = figure.add_axes((0, 0, 1, 1))
    image = np.full((10, 20, 3), 255, np.uint8)
    image[2, 15] = 0  # its centre is at x = 15.5, y = 2.5
    plots.show_with_points(axis, image, np.array([[[15.5, 2.5]]]), dot=0)
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., 0]
    height, width = drawn.shape
    dark = np.argwhere(drawn < 128).mean(axis=0) / [height, width] * [10, 20]
    np.testing.assert_allclose(dark, [2.5, 15.5], atol=0.1)
    (dots,) = axis.collections
    np.testing.assert_array_equal(dots.get_offsets(), [[15.5, 2.5]])
