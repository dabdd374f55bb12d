"""One look for all figures, and one way to keep a figure together with the numbers it draws."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from nlalib.data.labels import EXPRESSIONS
from nlalib.paths import figures_folder

# Colour-blind safe (Okabe and Ito), one colour an expression in every figure.
_COLOURS = ("#E69F00", "#9467BD", "#009E73", "#D9C400", "#0072B2", "#D55E00", "#7F7F7F", "#CC79A7")
EXPRESSION_COLOURS = dict(zip(EXPRESSIONS, _COLOURS, strict=True))


# How far the point of a difference is filled, by the word of `nlalib.report.differences.certainty`.
CERTAINTY_FILLS = {"holds": 1.0, "hint": 0.45, "not told apart": 0.0}


def use_style() -> None:
    """Set the project's matplotlib style; each notebook calls it in its setup cell."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": 80,
            "savefig.dpi": 120,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
        }
    )


def save_figure(figure: plt.Figure, name: str, data: pd.DataFrame | None = None) -> Path:
    """Write `figure` as `<name>.png` and the numbers it draws as `<name>.csv`.

    PNG bytes differ between versions of matplotlib; the table is what tests compare.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    name : str
        `NN_slug`, with NN the notebook's number.
    data : pandas.DataFrame, optional
        What the figure draws, a few hundred rows at most. Without it (pictures of faces,
        surfaces) only the PNG is written.

    Returns
    -------
    pathlib.Path
        The PNG's path, in `nlalib.paths.figures_folder()`.
    """
    folder = figures_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    # Without the software's version in the file, the same figure gives the same bytes.
    figure.savefig(path, metadata={"Software": None})
    if data is not None:
        data.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    return path


def draw_difference(axis: plt.Axes, x: float, y: float, color: str, certainty: str) -> None:
    """Draw the point of a difference at (x, y): filled, half-pale or open by `CERTAINTY_FILLS`."""
    axis.plot(x, y, "o", markersize=7, color="white", markeredgecolor=color)
    axis.plot(x, y, "o", markersize=7, color=color, alpha=CERTAINTY_FILLS[certainty])


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
