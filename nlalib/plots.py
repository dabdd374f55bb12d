"""One look for all figures, and one way to keep a figure together with the numbers it draws."""

from collections.abc import Callable, Mapping
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image

from nlalib.data.labels import EXPRESSIONS
from nlalib.paths import figures_folder

# Colour-blind safe (Okabe and Ito), one colour an expression in every figure.
_COLOURS = ("#E69F00", "#9467BD", "#009E73", "#D9C400", "#0072B2", "#D55E00", "#7F7F7F", "#CC79A7")
EXPRESSION_COLOURS = dict(zip(EXPRESSIONS, _COLOURS, strict=True))

# One colour a method in every figure: what a reader has to find again and again is apart in
# lightness too, cross-entropy nearly black and NLA vermilion.
METHOD_COLOURS = {
    "ce": "#333333",
    "nla": "#D55E00",
    "eac": "#009E73",
    "gce": "#CC79A7",
    "logit_adjusted": "#E69F00",
    "scn": "#56B4E9",
    "class_balanced": "#0072B2",
    "ldl": "#0072B2",
    "uncertainty": "#56B4E9",
    "self_distillation": "#9467BD",
    "nla_soft": "#E8853B",
    "nla_candidates": "#B5651D",
    "cc": "#8CA252",
    "proden": "#009E73",
    "pico": "#CC79A7",
    "decoder": "#7B3294",
    "linear head": "#5B9A8B",
}
# A sample's kinds, and the scores that are asked which labels are wrong.
KIND_COLOURS = {"ambiguous": "#E69F00", "clean": "#0072B2", "flipped": "#D55E00"}
SCORE_COLOURS = {
    "weight": METHOD_COLOURS["nla"],
    "loss": METHOD_COLOURS["ce"],
    "margin": "#0072B2",
    "focal weight": "#9467BD",
    "all samples": "#999999",
}

# How far the point of a difference is filled, by the word of `nlalib.report.certainty.certainty`.
CERTAINTY_FILLS = {"holds": 1.0, "hint": 0.45, "not told apart": 0.0}


def method_colour(name: str) -> str:
    """Return the colour of a method, whatever settings follow its name ("scn (...)").

    Raises
    ------
    KeyError
        For a method without a colour of its own: give it one in `METHOD_COLOURS`.
    """
    return METHOD_COLOURS[name.split(" (")[0].split(", ")[0]]


def use_style() -> None:
    """Set the project's matplotlib style; each notebook calls it in its setup cell."""
    sns.set_theme(context="notebook", style="ticks", font_scale=1.05)
    plt.rcParams.update(
        {
            "figure.dpi": 80,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "legend.frameon": False,
        }
    )


def save_figure(
    figure: plt.Figure, name: str, data: pd.DataFrame | None = None, *, alt: str, dpi: int = 160
) -> Image:
    """Write `figure` as `<name>.png` and the numbers it draws as `<name>.csv`; return the picture.

    PNG bytes differ between versions of matplotlib; the table is what tests compare.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        It is closed, so that a notebook shows the returned picture and not both.
    name : str
        `NN_slug`, with NN the notebook's number.
    data : pandas.DataFrame, optional
        What the figure draws, a few hundred rows at most. Without it (pictures of faces,
        surfaces) only the PNG is written.
    alt : str
        What the picture shows, in a sentence, for whoever does not see it.
    dpi : int
        Dots an inch; fewer for pictures of faces, whose own pixels are large.

    Returns
    -------
    IPython.display.Image
        The file written to `nlalib.paths.figures_folder()`, with `alt`; the last line of a cell
        shows it.
    """
    folder = figures_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    picture = show_figure(figure, alt=alt, dpi=dpi)
    path.write_bytes(picture.data)
    if data is not None:
        data.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    return picture


def show_figure(figure: plt.Figure, *, alt: str, dpi: int = 160) -> Image:
    """Return `figure` as `save_figure` does, without writing a file."""
    buffer = BytesIO()
    # Without the software's version in the file, the same figure gives the same bytes.
    metadata = {"Software": None, "Description": alt}
    figure.savefig(buffer, format="png", dpi=dpi, metadata=metadata)
    plt.close(figure)
    width = round(figure.get_figwidth() * plt.rcParams["figure.dpi"])
    return Image(buffer.getvalue(), format="png", width=width, alt=alt)


def draw_forest(
    axis: plt.Axes, rows: pd.DataFrame, names: list[str], colours: Mapping[str, str]
) -> None:
    """Draw differences as lines from the top, one a name.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    rows : pandas.DataFrame
        Columns `name`, `difference`, `low`, `high` (over seeds, the thick line), `certainty` (a
        word of `CERTAINTY_FILLS`) and, where known, `images_low` and `images_high` (over test
        images, the thin dark line); one unit for all. A name without a row leaves its line empty.
    names : list of str
        From the top.
    colours : mapping of str to str
        Of each name.
    """
    places = {name: place for place, name in enumerate(names)}
    for row in rows.itertuples():
        place, colour = places[row.name], colours[row.name]
        axis.plot([row.low, row.high], [place] * 2, color=colour, lw=6, alpha=0.35)
        if hasattr(row, "images_low"):
            axis.plot([row.images_low, row.images_high], [place] * 2, color="0.2", lw=1.2)
        axis.plot(row.difference, place, "o", ms=8, color="white", markeredgecolor=colour)
        fill = CERTAINTY_FILLS[row.certainty]
        axis.plot(row.difference, place, "o", ms=8, color=colour, alpha=fill)
    axis.axvline(0, color="0.6", lw=1, zorder=0)
    _name_lines(axis, names)


def draw_dots(
    axis: plt.Axes,
    values: Mapping[str, np.ndarray],
    centre: Callable[[np.ndarray], float] = np.mean,
) -> None:
    """Draw values as dots on lines from the top, one a name, with a black stroke at their centre.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    values : mapping of str to numpy.ndarray
        Of each name, (n,), in the unit of the axis.
    centre : callable
        From the values of a name to the place of its stroke, `numpy.median` for one.
    """
    for place, of_name in enumerate(values.values()):
        axis.plot(of_name, np.full(len(of_name), place), "o", color="#0072B2", alpha=0.4, ms=7)
        axis.plot(centre(of_name), place, "|", color="black", ms=24, mew=2)
    _name_lines(axis, list(values))


def _name_lines(axis: plt.Axes, names: list[str]) -> None:
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def cut_at(axis: plt.Axes, low: float, high: float) -> None:
    """Cut the x axis at [low, high] and mark with an arrow each line that goes on beyond it."""
    ends = {low: ("<", np.min, np.less), high: (">", np.max, np.greater)}
    for edge, (marker, outermost, is_beyond) in ends.items():
        for line in axis.lines:
            x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
            if len(x) and is_beyond(outermost(x), edge) and len(set(y)) == 1:
                axis.plot(edge, y[0], marker, color=line.get_color(), markersize=7, clip_on=False)
    axis.set_xlim(low, high)


def share_legend(figure: plt.Figure, axes: np.ndarray) -> None:
    """Put one legend under the panels, of all that they name, in place of their own."""
    handles = {}
    for axis in axes.flat:
        found, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
        if axis.get_legend() is not None:
            axis.get_legend().remove()
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(handles), 4))


def show_with_points(
    axis: plt.Axes, image: np.ndarray, points: np.ndarray, dot: float = 12
) -> None:
    """Show an image with points on it, and nothing around it.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    image : numpy.ndarray
        (height, width, 3), uint8, or float from 0 to 1.
    points : numpy.ndarray
        (..., 2), x and y in pixels, counted from the image's top left corner.
    dot : float
        Area of a point's dot, in square points.
    """
    height, width = image.shape[:2]
    axis.imshow(image, extent=(0, width, height, 0))
    axis.scatter(*np.reshape(points, (-1, 2)).T, s=dot, color="cyan")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def show_images(
    images: np.ndarray, titles: list[str] | None = None, columns: int = 8, inches: float = 1.2
) -> plt.Figure:
    """Draw images in a grid.

    Parameters
    ----------
    images : numpy.ndarray
        (N, height, width, 3), uint8.
    titles : list of str, optional
        One for each image.
    columns : int
        Images in a row.
    inches : float
        Side of one image.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(columns * inches, rows * inches * (1.2 if titles else 1)),
        squeeze=False,
    )
    for axis in axes.flat:
        axis.axis("off")
    for number, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(image)
        if titles:
            axis.set_title(titles[number], fontsize="small")
    return figure
