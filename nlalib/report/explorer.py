"""Sliders for NAW: its surface, and weight, loss and gradient at a point of it.

For notebooks in JupyterLab. Nothing here needs a frontend to be computed, only to be moved.
"""

import os
from io import BytesIO

import numpy as np
import torch
from matplotlib.figure import Figure

from nlalib.methods.nla.weights import (
    VARIANTS,
    NAWVariant,
    diagonal_covariance,
    naw_loss,
    weight_at,
)

NUM_CLASSES, EPOCHS = 7, 60  # of the paper: the basic expressions, and its schedule


def axis_ratio(variance: float, covariance: float) -> float:
    """Return the ratio of the axes of [[s, c], [c, s]]: sqrt((s + |c|) / (s - |c|))."""
    return float(np.sqrt((variance + abs(covariance)) / (variance - abs(covariance))))


def variant_from_sliders(values: dict) -> NAWVariant:
    """Return the variant that `slider_values` would give these values for.

    Parameters
    ----------
    values : dict
        `true_sigma`, `true_ratio`, `false_sigma`, `false_ratio` (float), the means `true_p_gt`,
        `true_p_nn`, `false_p_gt`, `false_p_nn` (float), `normalised` (bool). Others are ignored.
    """
    cases = {}
    for case in ("true", "false"):
        variance, covariance = diagonal_covariance(values[f"{case}_sigma"], values[f"{case}_ratio"])
        cases |= {f"{case}_variance": variance, f"{case}_covariance": covariance}
        cases[f"{case}_mean"] = (values[f"{case}_p_gt"], values[f"{case}_p_nn"])
    return NAWVariant(normalised=values["normalised"], **cases)


def slider_values(variant: NAWVariant) -> dict:
    """Return the values of the sliders that stand for a variant (see `variant_from_sliders`)."""
    return {
        "true_sigma": variant.true_variance,
        "true_ratio": axis_ratio(variant.true_variance, variant.true_covariance),
        "false_sigma": variant.false_variance,
        "false_ratio": axis_ratio(variant.false_variance, variant.false_covariance),
        "true_p_gt": variant.true_mean[0],
        "true_p_nn": variant.true_mean[1],
        "false_p_gt": variant.false_mean[0],
        "false_p_nn": variant.false_mean[1],
        "normalised": variant.normalised,
    }


def possible_point(p_gt: float, p_nn: float) -> tuple[float, float]:
    """Return the nearest p_nn for this p_gt that seven probabilities allow, all of them above 0."""
    p_gt = min(max(p_gt, 0.001), 0.998)
    rest = 1 - p_gt
    return p_gt, min(max(p_nn, rest / (NUM_CLASSES - 1)), rest * 0.9999)


def point_facts(p_gt: float, p_nn: float, epoch: int, variant: NAWVariant) -> dict[str, float]:
    """Return weight, loss and gradient of a sample at a point.

    The other classes share what is left evenly. Gradients are those of (1 + w) CE with respect to
    the label's logit and that of the nearest negative; `plain_...` are those of CE.

    Parameters
    ----------
    p_gt, p_nn : float
        As `possible_point` gives them.
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


def draw_point(axis, p_gt: float, p_nn: float, epoch: int, variant: NAWVariant):
    """Draw 1 + w over the triangle with the two means and the point; return the coloured mesh."""
    values = np.linspace(0, 1, 201)
    x, y = np.meshgrid(values, values)
    points = torch.from_numpy(x), torch.from_numpy(y)
    lifted = 1 + weight_at(*points, epoch=epoch, epochs=EPOCHS, variant=variant).numpy()
    shown = np.where(x + y <= 1 + 1e-9, lifted, np.nan)
    mesh = axis.pcolormesh(x, y, shown, vmin=1, vmax=HIGHEST, cmap="viridis", rasterized=True)
    axis.plot([0, 0.5], [0, 0.5], color="white", linewidth=1)
    axis.plot(*variant.true_mean, "o", color="white", markeredgecolor="black")
    axis.plot(*variant.false_mean, "X", color="white", markeredgecolor="black")
    axis.plot(p_gt, p_nn, "*", color="#D55E00", markeredgecolor="white", markersize=15)
    axis.set(xlabel="$p_{gt}$", ylabel="$p_{nn}$", title=f"1 + w at e = {epoch}", aspect="equal")
    return mesh


SLIDERS = {  # name: (lowest, highest, step, words)
    "p_gt": (0, 1, 0.01, "label: p_gt"),
    "p_nn": (0, 1, 0.01, "nearest negative: p_nn"),
    "true_sigma": (0.05, 2, 0.001, "True case: σ₁₁"),
    "true_ratio": (1, 10, 0.001, "True case: axes' ratio"),
    "true_p_gt": (0, 1, 0.01, "True case: mean p_gt"),
    "true_p_nn": (0, 1, 0.01, "True case: mean p_nn"),
    "false_sigma": (0.05, 2, 0.001, "False case: σ₁₁"),
    "false_ratio": (1, 10, 0.001, "False case: axes' ratio"),
    "false_p_gt": (0, 1, 0.01, "False case: mean p_gt"),
    "false_p_nn": (0, 1, 0.01, "False case: mean p_nn"),
}
START = {"epoch": 59, "p_gt": 0.35, "p_nn": 0.5}
CUSTOM = "custom"


def picture_of(values: dict) -> tuple[bytes, str]:
    """Return the picture (PNG) and the table (HTML) of one setting of the sliders."""
    variant = variant_from_sliders(values)
    point = possible_point(values["p_gt"], values["p_nn"])
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axis = figure.add_subplot()
    figure.colorbar(draw_point(axis, *point, values["epoch"], variant), ax=axis)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=80)
    facts = {"p_gt": point[0], "p_nn": point[1]}
    facts |= point_facts(*point, values["epoch"], variant)
    rows = "".join(
        f"<tr><td>{name.replace('_', ' ')}</td><td style='text-align:right'>{value:+.4f}</td></tr>"
        for name, value in facts.items()
    )
    moved = "" if point == (values["p_gt"], values["p_nn"]) else "<br>moved to a possible point"
    return buffer.getvalue(), f"<table>{rows}</table>{moved}"


def explorer():
    """Return the sliders with their picture, an `ipywidgets.Widget` to be displayed.

    Choosing a version sets the sliders to its values; once one of them is moved alone, the version
    is "custom".
    """
    import ipywidgets as widgets  # only where somebody moves the sliders

    wide = {"style": {"description_width": "180px"}, "layout": {"width": "400px"}}
    sliders = {"epoch": widgets.IntSlider(0, 0, EPOCHS - 1, description="epoch e", **wide)}
    for name, (low, high, step, words) in SLIDERS.items():
        sliders[name] = widgets.FloatSlider(
            min=low, max=high, step=step, description=words, readout_format=".2f", **wide
        )
    sliders["normalised"] = widgets.Checkbox(description="normalised", indent=False)
    version = widgets.Dropdown(options=[*VARIANTS, CUSTOM], description="version")
    play = widgets.Play(min=0, max=EPOCHS - 1, interval=150)
    widgets.jslink((play, "value"), (sliders["epoch"], "value"))
    reset = widgets.Button(description="reset")
    picture, text = widgets.Image(format="png"), widgets.HTML()
    taking = []  # not empty while a version sets many sliders at once

    def show(_change=None) -> None:
        if not taking:
            values = {name: widget.value for name, widget in sliders.items()}
            picture.value, text.value = picture_of(values)

    def take(values: dict) -> None:
        taking.append(True)
        for name, value in values.items():
            sliders[name].value = value
        taking.clear()
        show()

    def take_version(change) -> None:
        if change["new"] != CUSTOM:
            take(slider_values(VARIANTS[change["new"]]))

    def become_custom(_change) -> None:
        if taking or version.value == CUSTOM:
            return
        # A browser rounds values to a slider's steps and sends them back: no move of a reader's.
        own = slider_values(VARIANTS[version.value])
        if any(abs(sliders[name].value - value) > 2e-3 for name, value in own.items()):
            version.value = CUSTOM

    def start_again(_button=None) -> None:
        version.value = next(iter(VARIANTS))
        take(START | slider_values(VARIANTS[version.value]))

    for name, widget in sliders.items():
        widget.observe(show, "value")
        if name not in START:
            widget.observe(become_custom, "value")
    version.observe(take_version, "value")
    reset.on_click(start_again)
    start_again()
    half = 1 + len(sliders) // 2
    columns = [
        widgets.VBox(list(sliders.values())[part]) for part in (slice(half), slice(half, None))
    ]
    return widgets.VBox(
        [widgets.HBox([version, play, reset]), widgets.HBox(columns), widgets.HBox([picture, text])]
    )
