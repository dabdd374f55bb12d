"""Sliders for NAW: its surface, and weight, loss and gradient at a point of it.

The sliders compute in the browser; the functions here give the same numbers and pictures to the
stills and tables of a notebook.
"""

import os
from pathlib import Path

import numpy as np
import torch

from nlalib.methods.nla.weights import NAWVariant, naw_loss, weight_at

NUM_CLASSES, EPOCHS = 7, 60  # of the paper: the basic expressions, and its schedule


def point_values(p_gt: float, p_nn: float, epoch: int, variant: NAWVariant) -> dict[str, float]:
    """Return weight, loss and gradient of a sample at a point.

    The other classes share what is left evenly. Gradients are those of (1 + w) CE with respect to
    the label's logit and that of the nearest negative; `plain_...` are those of CE.

    Parameters
    ----------
    p_gt, p_nn : float
        Both above 0, with p_gt + p_nn < 1 and p_nn at least what each of the others has.
    epoch : int
        Counted from 0, of 60.
    variant : NAWVariant

    Returns
    -------
    dict of float
        `weight`, `cross_entropy` (nats), `loss`, `gradient_label`, `gradient_nearest`,
        `plain_gradient_label`, `plain_gradient_nearest`.
    """
    left = (1 - p_gt - p_nn) / (NUM_CLASSES - 2)
    p = torch.tensor([[p_gt, p_nn] + [left] * (NUM_CLASSES - 2)], dtype=torch.float64)
    logits, label = p.log().requires_grad_(), torch.tensor([0])
    cross_entropy = torch.nn.functional.cross_entropy(logits, label)
    weighted = naw_loss(logits, label, epoch=epoch, epochs=EPOCHS, variant=variant)
    (plain,) = torch.autograd.grad(cross_entropy, logits, retain_graph=True)
    (gradient,) = torch.autograd.grad(cross_entropy + weighted, logits)
    point = (torch.tensor(value, dtype=torch.float64) for value in (p_gt, p_nn))
    return {
        "weight": float(weight_at(*point, epoch=epoch, epochs=EPOCHS, variant=variant)),
        "cross_entropy": float(cross_entropy.detach()),
        "loss": float((cross_entropy + weighted).detach()),
        "gradient_label": float(gradient[0, 0]),
        "gradient_nearest": float(gradient[0, 1]),
        "plain_gradient_label": float(plain[0, 0]),
        "plain_gradient_nearest": float(plain[0, 1]),
    }


def in_browser() -> bool:
    """Return whether a Jupyter server started this kernel, so that somebody can move sliders."""
    return "JPY_SESSION_NAME" in os.environ


HIGHEST = 2.0  # of 1 + w in all versions: one scale of colours, so that epochs compare by eye


def draw_surface(axis, p_gt, p_nn, lifted, variant: NAWVariant, highest: float = HIGHEST):
    """Draw 1 + w over the triangle of two probabilities; return the coloured mesh.

    A circle marks the mean of the True case and a cross that of the False case, with labels for a
    legend; below the white line the label leads.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    p_gt, p_nn, lifted : numpy.ndarray
        (n, n), a grid of both probabilities and 1 + w on it.
    variant : NAWVariant
        Whose means are marked.
    highest : float
        End of the colours' scale, which begins at 1.
    """
    shown = np.where(p_gt + p_nn <= 1 + 1e-9, lifted, np.nan)
    mesh = axis.pcolormesh(p_gt, p_nn, shown, vmin=1, vmax=highest, cmap="viridis", rasterized=True)
    axis.plot([0, 0.5], [0, 0.5], color="white", linewidth=1)
    look = {"ls": "none", "color": "white", "markeredgecolor": "black"}
    axis.plot(*variant.true_mean, marker="o", **look, label="mean of the True case")
    axis.plot(*variant.false_mean, marker="X", **look, label="mean of the False case")
    axis.set(xlabel="$p_{gt}$", ylabel="$p_{nn}$", aspect="equal")
    return mesh


def draw_point(axis, p_gt: float, p_nn: float, epoch: int, variant: NAWVariant):
    """Draw the surface at an epoch with a star at the point; return the coloured mesh."""
    values = np.linspace(0, 1, 201)
    x, y = np.meshgrid(values, values)
    points = torch.from_numpy(x), torch.from_numpy(y)
    lifted = 1 + weight_at(*points, epoch=epoch, epochs=EPOCHS, variant=variant).numpy()
    mesh = draw_surface(axis, x, y, lifted, variant)
    axis.plot(p_gt, p_nn, "*", color="#D55E00", markeredgecolor="white", markersize=15)
    axis.set_title(f"1 + w at e = {epoch}")
    return mesh


def explorer():
    """Return the sliders with their picture, an `anywidget.AnyWidget` to be displayed.

    It computes in the browser (`explorer.js`), with the numbers of `point_values` (a test compares
    them), so that it is the same in JupyterLab and in the book, where no kernel runs.
    """
    import anywidget  # only where somebody moves the sliders

    class Explorer(anywidget.AnyWidget):
        _esm = Path(__file__).with_suffix(".js")

    return Explorer()
