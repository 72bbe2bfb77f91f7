"""The two figures that explain the tied prototype model, drawn with the package's own heads."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from fsseg.model.heads import Tpm
from fsseg.model.ops import ideal_prior, squared_distance
from fsseg.report.figures import COLOURS, GREY, panels
from fsseg.types import Prototypes, margin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPREADS = (0.55, 1.6)
"""The standard deviations of foreground and background in the figure of theory."""

REACH = 3.0
"""How far its panels go in both dimensions."""

CELLS = 181
"""Cells of a panel along each side."""


def theory() -> "Figure":
    """Draws what a tied prototype is, after Fig. 1 of the TPM paper (Kim et al.), in two dimensions.

    (a) the densities of a tied foreground and background, (b) two prototypes with places of their own, where the
    posterior changes along the line between them, (c) a tied prototype, which tells the typical from everything else,
    (d) three tied prototypes of one class, (e) two classes: the posterior of the first.
    """
    figure, axes_of = panels(11.5, 2.6, 5)
    _draw_densities(axes_of[0])
    side = torch.linspace(-REACH, REACH, CELLS)
    y, x = torch.meshgrid(side, side, indexing="ij")
    features = torch.stack([x, y])[None]
    head = Tpm(space="euclidean", sigmas=SPREADS, dimension=2)
    one = torch.tensor([[[0.0, 0.0]]])
    three = torch.tensor([[[-1.3, -0.9], [1.3, -0.7], [0.0, 1.3]]])
    two_classes = torch.tensor([[[-1.1, 0.0]], [[1.1, 0.0]]])
    standard = _standard(features, two_classes, SPREADS[0])
    _, panel_b, panel_c, panel_d, panel_e = axes_of
    _draw_posterior(panel_b, "(b) standard: prototypes apart", standard, two_classes)
    tied = _posterior(head, features, one)
    _draw_posterior(panel_c, "(c) tied, one prototype", tied, one)
    tied = _posterior(head, features, three)
    _draw_posterior(panel_d, "(d) tied, three prototypes", tied, three)
    tied = _posterior(head, features, two_classes)
    shown = _draw_posterior(panel_e, "(e) tied, two classes: the first", tied, two_classes)
    bar = figure.colorbar(shown, ax=panel_e, shrink=0.8)
    bar.set_label("posterior of the foreground", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _draw_densities(axes: "Axes") -> None:
    line = np.linspace(-4, 4, 200)
    for name, sigma, colour in zip(("foreground", "background"), SPREADS, COLOURS):
        density = np.exp(-(line**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
        axes.plot(line, density, color=colour, label=name)
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_title("(a) one centre, two spreads", fontsize=8.5)
    axes.set_xlabel("distance from the prototype")
    axes.set_yticks([])
    axes.legend(frameon=False, fontsize=7)


def _draw_posterior(
    axes: "Axes",
    title: str,
    posterior: Float[Tensor, "h w"],
    prototypes: Float[Tensor, "way proto 2"],
) -> Any:
    """Draws a posterior with its border and the prototypes; returns the picture, which a colour bar needs."""
    values = posterior.numpy()
    extent = (-REACH, REACH, -REACH, REACH)
    colours: Any = {"vmin": 0, "vmax": 1, "cmap": "viridis"}
    picture = axes.imshow(
        values,
        origin="lower",
        extent=extent,
        aspect="equal",
        **colours,
    )
    side = np.linspace(-REACH, REACH, CELLS)
    axes.contour(
        side,
        side,
        values,
        levels=[0.5],
        colors="white",
        linewidths=1,
    )
    for way, points in enumerate(prototypes):
        marker = "ox"[way % 2]
        axes.plot(
            *points.T.numpy(),
            marker,
            color=COLOURS[1],
            markersize=6,
            markeredgewidth=1.5,
        )
    axes.set_title(title, fontsize=8.5)
    axes.set_xticks([])
    axes.set_yticks([])
    return picture


def _posterior(
    head: Tpm,
    features: Float[Tensor, "1 channel h w"],
    prototypes: Float[Tensor, "way proto channel"],
) -> Float[Tensor, "h w"]:
    """The head's probability of the first way."""
    weights = torch.full(prototypes.shape[:2], 1 / prototypes.shape[1])
    with torch.no_grad():
        logits = head(features, Prototypes(prototypes, weights))
    return logits.softmax(dim=1)[0, 1]


def _standard(
    features: Float[Tensor, "1 channel h w"],
    prototypes: Float[Tensor, "2 1 channel"],
    sigma: float,
) -> Float[Tensor, "h w"]:
    """The first of two classes with prototypes of their own and one spread: the nearer, the likelier."""
    distances = squared_distance(features, prototypes)[0, :, 0]
    return (-distances / (2 * sigma**2)).softmax(dim=0)[0]


def threshold_curves(
    margins: Float[Tensor, "slice *pixel"] | None = None,
    truth: Bool[Tensor, "slice *pixel"] | None = None,
) -> "Figure":
    """Draws cross-entropy, Dice and predicted / true pixels against the prior, after Fig. 2 of the TPM paper.

    The prior with the least cross-entropy is not the one with the best Dice; the one that predicts as many pixels as there
    are comes close to it.

    Args:
        margins: Largest foreground logit minus the background's, at an even prior; made up when omitted: features of a rare
            class around a prototype, and of its surroundings, scored by the TPM head.
        truth: Where the class is.
    """
    if margins is None or truth is None:
        margins, truth = _made_up()
    priors = torch.arange(-60, 61, dtype=torch.float64) / 10
    curves = prior_curves(margins.flatten().double(), truth.flatten(), priors)
    ideal = ideal_prior(margins.reshape(1, 1, -1).float(), truth.sum()[None])
    figure, axes = panels(5.6, 3.4)
    other = axes.twinx()
    other.spines["top"].set_visible(False)
    axes.plot(
        priors,
        curves["dice"],
        color=COLOURS[2],
        label="Dice",
    )
    ratio = curves["ratio"].clamp(max=2)
    axes.plot(
        priors,
        ratio,
        color=COLOURS[3],
        linestyle="-.",
        label="predicted / true",
    )
    loss = {"color": COLOURS[0], "linestyle": "--", "label": "cross-entropy"}
    other.plot(priors, curves["cross_entropy"], **loss)
    best_dice = priors[curves["dice"].argmax()]
    least_loss = priors[curves["cross_entropy"].argmin()]
    _mark_prior(axes, best_dice, "best Dice", COLOURS[2])
    _mark_prior(axes, least_loss, "least cross-entropy", COLOURS[0])
    _mark_prior(axes, ideal[0], "ideal: predicted = true", GREY)
    axes.set_xlabel("log-odds of the foreground prior")
    axes.set_ylabel("Dice; predicted / true")
    axes.set_ylim(0, 2)
    other.set_ylabel("cross-entropy per pixel", fontsize=8)
    other.tick_params(labelsize=8)
    lines, labels = axes.get_legend_handles_labels()
    more_lines, more_labels = other.get_legend_handles_labels()
    legend: dict[str, Any] = {"frameon": False, "fontsize": 7, "loc": "upper left"}
    axes.legend(lines + more_lines, labels + more_labels, **legend)
    return figure


def _mark_prior(axes: "Axes", prior: Tensor, name: str, colour: str) -> None:
    axes.axvline(
        float(prior),
        color=colour,
        linestyle=":",
        linewidth=1.5,
        label=name,
    )


def prior_curves(
    margins: Float[Tensor, "pixel"],
    truth: Bool[Tensor, "pixel"],
    priors: Float[Tensor, "prior"],
) -> dict[str, Float[Tensor, "prior"]]:
    """What becomes of pixels under each prior, as mean `cross_entropy`, `dice`, and `ratio` of predicted to true pixels.

    A pixel's log-odds are `margin + prior`; it is foreground where that is above 0.
    """
    actual = truth.sum()
    losses, dice, ratios = [], [], []
    for prior in priors:
        log_odds = margins + prior
        losses.append(softplus(torch.where(truth, -log_odds, log_odds)).mean())
        predicted = margins > -prior
        right = (predicted & truth).sum()
        dice.append(2 * right / (predicted.sum() + actual))
        ratios.append(predicted.sum() / actual)
    return {
        "cross_entropy": torch.stack(losses),
        "dice": torch.stack(dice),
        "ratio": torch.stack(ratios),
    }


def _made_up() -> tuple[Float[Tensor, "1 pixel"], Bool[Tensor, "1 pixel"]]:
    """Margins of 20,000 features in four dimensions, of which one in 25 is of the class."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(20_000) < 800
    centre = torch.tensor([1.0, 0.0, 0.0, 0.0])
    away = torch.where(truth, 0.0, 0.9)[:, None]
    spread = torch.where(truth, 0.55, 1.15)[:, None]
    middle = centre + away * torch.randn(1, 4, generator=generator)
    features = middle + spread * torch.randn(
        len(truth),
        4,
        generator=generator,
    )
    head = Tpm(
        space="euclidean",
        sigmas=(0.6, 1.2),
        dimension=4,
    )
    prototype = Prototypes(centre[None, None], torch.ones(1, 1))
    with torch.no_grad():
        logits = head(features.T[None, :, None], prototype)
    return margin(logits)[:, 0], truth[None]
