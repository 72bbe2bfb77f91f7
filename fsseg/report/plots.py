"""Figures, with matplotlib: what a run found, and the two figures that explain the tied prototype model.

Every function returns a `matplotlib.figure.Figure`; `figure.savefig("file.pdf")` writes it.
"""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from fsseg.errors import FssegError
from fsseg.model.heads import Tpm
from fsseg.model.ops import ideal_prior, squared_distance
from fsseg.model.priors import log_odds
from fsseg.plugins.options import nearest
from fsseg.recipe.trainings import trainings_of
from fsseg.report.figures import COLOURS, panels
from fsseg.runs.folder import TrainingFolder
from fsseg.runs.results import Results
from fsseg.system.files import read_lines
from fsseg.training.loop import LOG_EVERY
from fsseg.types import Prototypes, margin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = {"query": "query loss", "alignment": "alignment loss", "t_loss": "T loss"}

SMOOTHED = 50
"""Points that a training curve is drawn with, at most: each is a mean over its share of the steps."""


def scores(results: Results, class_name: str | None = None, *, metric: str = "dice") -> "Figure":
    """A box and a dot for every scan, by variant: of a class, or of every scan's mean over classes.

    Raises FssegError where the run has no such class or metric.
    """
    if class_name is not None and class_name not in results.classes:
        raise FssegError(
            f"there is no class {class_name!r} in {results.path}; {nearest(class_name, results.classes)}"
        )
    results.table(metric)  # which says what it has instead
    frame, factor, unit = (
        results.frame,
        100 if results.unit(metric) == "%" else 1,
        results.unit(metric),
    )
    if class_name is not None:
        frame = frame[frame["class_name"] == class_name]
    by_scan = (
        factor * frame.groupby(["variant", "fold", "seed", "case", "support_case"])[metric].mean()
    )
    names = results.variants
    figure, axes = panels(4.6, 0.8 + 0.3 * len(names))
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        values = by_scan.loc[name].dropna().to_numpy()
        colour = COLOURS[place % len(COLOURS)]
        if len(values) > 1:
            axes.boxplot(
                values, positions=[place], orientation="horizontal", widths=0.55, showfliers=False, manage_ticks=False,
                medianprops={"color": colour, "linewidth": 2}, boxprops={"alpha": 0.6},
            )  # fmt: skip
        spread = rng.uniform(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(len(values))
        axes.plot(
            values, place + spread, "o", color=colour, alpha=0.75, markersize=4, markeredgewidth=0
        )
    axes.set_yticks(
        range(len(names)), [f"{name} *" if name in results.oracles else name for name in names]
    )
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(f"{'Dice' if metric == 'dice' else metric}{f', {unit}' if unit else ''}")
    axes.set_title((class_name or "mean over classes").replace("_", " "))
    return figure


def training_curves(results: Results) -> "Figure":
    """The losses by step, smoothed, and the learned score threshold T_S: a colour for each kind of training, a line for
    each fold and seed.

    Raises FssegError where a run keeps no log of its training.
    """
    logs = [(folder, read_lines(folder.log)) for _, folder in _trainings(results)]
    logs = [(folder, records) for folder, records in logs if records]
    if not logs:
        raise FssegError(
            f"{results.path}: there is no log of a training, expected train.jsonl below its folds with a line at least; a training "
            f"of less than {LOG_EVERY} steps leaves none"
        )
    names = [training.names[0] for training in trainings_of(results.recipe)]
    figure, (left, right) = panels(6.8, 3.2, 2)
    lines: dict[str, Any] = {}
    for folder, records in logs:
        kind = folder.index
        look = {"color": COLOURS[kind % len(COLOURS)], "alpha": 0.8, "linewidth": 1.2}
        for style, (key, told) in zip(("-", "--", ":"), LOSSES.items()):
            values = [(record["step"], record[key]) for record in records if record.get(key)]
            if values:
                label = f"training of {names[kind]}, {told}" if len(names) > 1 else told
                lines[label] = left.plot(*_smooth(values), style, **look)[0]
        thresholds = [
            (record["step"], record["score_threshold"])
            for record in records
            if "score_threshold" in record
        ]
        if thresholds:
            right.plot(*_smooth(thresholds), **look)
    for axes, told in ((left, "loss"), (right, "score threshold")):
        axes.set_xlabel("step")
        axes.set_ylabel(told)
    # Below both, where it takes as much room as it needs of the page and none of the curves'.
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=6
    )
    figure.set_figheight(3.2 + 0.12 * math.ceil(len(lines) / 2))
    return figure


def calibrations(results: Results) -> dict[str, "Figure"]:
    """Ideal priors of the calibration episodes against support size and location, with what AvgEst and LinEst made of them.

    A figure for each training and kind of scoring (prototypes and head) that was calibrated, by a name that tells which;
    the line of LinEst is drawn at the mean of the other regressor.
    """
    figures = {}
    rows = {row.name: row for row in results.recipe.variants}
    for name, folder in _trainings(results):
        found = json.loads(folder.calibration.read_text(encoding="utf-8"))
        by_scoring: dict[str, list[dict[str, Any]]] = {}
        for sample in found["samples"]:
            by_scoring.setdefault(sample["scoring"], []).append(sample)
        for scoring, samples in by_scoring.items():
            fitted = [
                (row, COLOURS[place % len(COLOURS)])
                for place, row in enumerate(rows.values())
                if row.name in found["states"] and row.scoring == scoring
            ]
            first, _ = fitted[0]
            title = f"{first.prototypes.label}, {first.head.label}"
            figures[f"{title}, {name}" if name else title] = _calibration(
                samples, fitted, found["states"]
            )
    return figures


def _calibration(
    samples: list[dict[str, Any]], fitted: list[tuple[Any, str]], states: dict[str, Any]
) -> "Figure":
    """Of one kind of scoring; `fitted` has its rows, each with its colour."""
    size = np.array([np.mean(sample["sizes"]) for sample in samples])
    location = np.array([sample["location"] for sample in samples])
    limit = log_odds(1 - 1e-3)
    prior = np.clip([sample["prior"] for sample in samples], -limit, limit)
    figure, (left, right) = panels(6.8, 3.0, 2, sharey=True)
    for axes, values in ((left, 100 * size), (right, location)):
        axes.plot(values, prior, "o", color="#7f7f7f", alpha=0.7, markersize=3, markeredgewidth=0)
    for row, colour in fitted:
        state = states[row.name]
        if row.threshold.name == "avg_est" and "prior" in state:
            for axes in (left, right):
                axes.axhline(log_odds(state["prior"]), color=colour, label=row.name)
        elif row.threshold.name == "lin_est":
            slopes = state["coefficients"]
            place = slopes[0] if len(slopes) == 3 else 0.0
            sizes, places = np.linspace(0, size.max(), 60), np.linspace(0, 1, 60)
            typical = place * ((location - 0.5) ** 2).mean() + slopes[-1]
            left.plot(100 * sizes, typical + slopes[-2] * sizes, color=colour, label=row.name)
            across = place * (places - 0.5) ** 2 + slopes[-2] * size.mean() + slopes[-1]
            right.plot(places, across, color=colour, label=row.name)
    left.set_xlabel("support size, % of the image")
    left.set_ylabel("ideal prior, log-odds")
    right.set_xlabel("location of the query slice in its scan")
    if left.get_legend_handles_labels()[0]:
        left.legend(frameon=False, fontsize=7)
    return figure


def theory() -> "Figure":
    """What a tied prototype is, after Fig. 1 of the TPM paper (Kim et al.), in two dimensions and with the package's own heads.

    (a) the densities of a tied foreground and background, (b) two prototypes with places of their own, where the
    posterior changes along the line between them, (c) a tied prototype, which tells the typical from everything else,
    (d) three tied prototypes of one class, (e) two classes: the posterior of the first.
    """
    figure, axes_of = panels(11.5, 2.6, 5)
    sigmas = (0.55, 1.6)
    _draw_densities(axes_of[0], sigmas)
    side = torch.linspace(-3, 3, 181)
    y, x = torch.meshgrid(side, side, indexing="ij")
    features = torch.stack([x, y])[None]
    head = Tpm(space="euclidean", sigmas=sigmas, dimension=2)
    one = torch.tensor([[[0.0, 0.0]]])
    three = torch.tensor([[[-1.3, -0.9], [1.3, -0.7], [0.0, 1.3]]])
    two_classes = torch.tensor([[[-1.1, 0.0]], [[1.1, 0.0]]])
    apart = torch.tensor([[[-1.1, 0.0]], [[1.1, 0.0]]])
    pictures = [
        ("(b) standard: prototypes apart", _standard(features, apart, sigmas[0]), apart),
        ("(c) tied, one prototype", _posterior(head, features, one), one),
        ("(d) tied, three prototypes", _posterior(head, features, three), three),
        ("(e) tied, two classes: the first", _posterior(head, features, two_classes), two_classes),
    ]
    for axes, (title, posterior, prototypes) in zip(axes_of[1:], pictures):
        shown = axes.imshow(
            posterior.numpy(),
            origin="lower",
            extent=(-3, 3, -3, 3),
            vmin=0,
            vmax=1,
            cmap="viridis",
            aspect="equal",
        )
        axes.contour(
            side.numpy(),
            side.numpy(),
            posterior.numpy(),
            levels=[0.5],
            colors="white",
            linewidths=1,
        )
        for way, places in enumerate(prototypes):
            axes.plot(
                *places.T.numpy(), "ox"[way % 2], color="#d55e00", markersize=6, markeredgewidth=1.5
            )
        axes.set_title(title, fontsize=8.5)
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.colorbar(shown, ax=axes_of[-1], shrink=0.8)
    bar.set_label("posterior of the foreground", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _draw_densities(axes: "Axes", sigmas: tuple[float, float]) -> None:
    line = np.linspace(-4, 4, 200)
    for name, sigma, colour in zip(("foreground", "background"), sigmas, COLOURS):
        density = np.exp(-(line**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
        axes.plot(line, density, color=colour, label=name)
    axes.axvline(0, color="#7f7f7f", linewidth=0.8, linestyle=":")
    axes.set_title("(a) one centre, two spreads", fontsize=8.5)
    axes.set_xlabel("distance from the prototype")
    axes.set_yticks([])
    axes.legend(frameon=False, fontsize=7)


def _posterior(
    head: Tpm,
    features: Float[Tensor, "1 channel h w"],
    prototypes: Float[Tensor, "way proto channel"],
) -> Float[Tensor, "h w"]:
    """The head's probability of the first way."""
    weights = torch.full(prototypes.shape[:2], 1 / prototypes.shape[1])
    with torch.no_grad():
        return head(features, Prototypes(prototypes, weights)).softmax(dim=1)[0, 1]


def _standard(
    features: Float[Tensor, "1 channel h w"], prototypes: Float[Tensor, "2 1 channel"], sigma: float
) -> Float[Tensor, "h w"]:
    """The first of two classes with prototypes of their own and one spread: the nearer, the likelier."""
    return (-squared_distance(features, prototypes)[0, :, 0] / (2 * sigma**2)).softmax(dim=0)[0]


def threshold_curves(
    margins: Float[Tensor, "slice *pixel"] | None = None,
    truth: Bool[Tensor, "slice *pixel"] | None = None,
) -> "Figure":
    """Cross-entropy, Dice and the ratio of predicted to true pixels against the prior, after Fig. 2 of the TPM paper.

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
    ideal = float(ideal_prior(margins.reshape(1, 1, -1).float(), truth.sum()[None])[0])
    figure, axes = panels(5.6, 3.4)
    other = axes.twinx()
    other.spines["top"].set_visible(False)
    axes.plot(priors, curves["dice"], color=COLOURS[2], label="Dice")
    axes.plot(
        priors,
        curves["ratio"].clamp(max=2),
        color=COLOURS[3],
        linestyle="-.",
        label="predicted / true",
    )
    other.plot(
        priors, curves["cross_entropy"], color=COLOURS[0], linestyle="--", label="cross-entropy"
    )
    marks = (
        ("best Dice", float(priors[curves["dice"].argmax()]), COLOURS[2]),
        ("least cross-entropy", float(priors[curves["cross_entropy"].argmin()]), COLOURS[0]),
        ("ideal: predicted = true", ideal, "#7f7f7f"),
    )
    for name, place, colour in marks:
        axes.axvline(place, color=colour, linestyle=":", linewidth=1.5, label=name)
    axes.set_xlabel("log-odds of the foreground prior")
    axes.set_ylabel("Dice; predicted / true")
    axes.set_ylim(0, 2)
    other.set_ylabel("cross-entropy per pixel", fontsize=8)
    other.tick_params(labelsize=8)
    handles, labels = (
        a + b for a, b in zip(axes.get_legend_handles_labels(), other.get_legend_handles_labels())
    )
    axes.legend(handles, labels, frameon=False, fontsize=7, loc="upper left")
    return figure


def prior_curves(
    margins: Float[Tensor, "pixel"], truth: Bool[Tensor, "pixel"], priors: Float[Tensor, "prior"]
) -> dict[str, Float[Tensor, "prior"]]:
    """What becomes of pixels under each prior: mean `cross_entropy`, `dice`, and the `ratio` of predicted to true pixels.

    A pixel's log-odds are `margin + prior`; it is foreground where that is above 0.
    """
    found = {"cross_entropy": [], "dice": [], "ratio": []}
    actual = truth.sum()
    for prior in priors:
        raised, predicted = margins + prior, margins > -prior
        found["cross_entropy"].append(softplus(torch.where(truth, -raised, raised)).mean())
        found["dice"].append(2 * (predicted & truth).sum() / (predicted.sum() + actual))
        found["ratio"].append(predicted.sum() / actual)
    return {name: torch.stack(values) for name, values in found.items()}


def _made_up() -> tuple[Float[Tensor, "1 pixel"], Bool[Tensor, "1 pixel"]]:
    """Margins of 20,000 features in four dimensions, of which one in 25 is of the class."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(20_000) < 800
    spread = torch.where(truth, 0.55, 1.15)[:, None]
    centre = torch.tensor([1.0, 0.0, 0.0, 0.0])
    offset = torch.where(truth, 0.0, 0.9)[:, None] * torch.randn(1, 4, generator=generator)
    features = centre + offset + spread * torch.randn(len(truth), 4, generator=generator)
    head, prototype = (
        Tpm(space="euclidean", sigmas=(0.6, 1.2), dimension=4),
        Prototypes(centre[None, None], torch.ones(1, 1)),
    )
    with torch.no_grad():
        return margin(head(features.T[None, :, None], prototype))[:, 0], truth[None]


def _trainings(results: Results) -> Iterator[tuple[str, TrainingFolder]]:
    """The folders of a run's trainings, with what tells them apart: seed, fold, and the first variant that shares it."""
    names = [training.names[0] for training in trainings_of(results.recipe)]
    seeds = results.about["seeds"]
    folds = list(results.folder.folds())
    several_folds = len({fold.index for _, fold in folds}) > 1
    for seed, fold in folds:
        for training in fold.trainings():
            words = []
            if len(seeds) > 1:
                words.append(f"seed {seed}")
            if several_folds:
                words.append(f"fold {fold.index}")
            if len(names) > 1:
                words.append(f"training of {names[training.index]}")
            yield ", ".join(words), training


def _smooth(points: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    parts = np.array_split(np.array(points, dtype=float), min(SMOOTHED, len(points)))
    means = np.array([part.mean(axis=0) for part in parts])
    return means[:, 0], means[:, 1]
