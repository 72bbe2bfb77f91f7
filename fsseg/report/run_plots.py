"""Figures of one run: the scores of its scans, its training, and what calibration made of it."""

import math
from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from fsseg.analysis.tables import starred
from fsseg.errors import FssegError
from fsseg.model.priors import log_odds
from fsseg.model.variants import load_threshold
from fsseg.plugins.options import nearest
from fsseg.recipe.losses import LOG_COLUMNS
from fsseg.recipe.trainings import trainings_of
from fsseg.report.figures import GREY, colour_of, draw_box, label_of_axis, panels
from fsseg.runs.folder import TrainingFolder
from fsseg.runs.records import read_calibration, read_log
from fsseg.runs.results import Results
from fsseg.system.names import told
from fsseg.system.pictures import drawn
from fsseg.training.log import LOG_EVERY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsseg.recipe.tables import VariantTable

LOSSES = {"query": "query loss", "alignment": "alignment loss", "t_loss": "T loss"}
"""What the usual losses are called; others by their name."""

VALIDATION = {
    "validation_ideal": "validation under ideal priors",
    "validation_estimated": "validation under estimated priors",
}
"""The columns of a training's log that are Dice on scans set aside."""

LINE_STYLES = ("-", "--", ":", "-.", (0, (1, 4)), (0, (6, 2, 1, 2, 1, 2)))
"""How the line of each loss is drawn."""

SMOOTHED = 50
"""Points that a training curve is drawn with, at most: each is a mean over its share of the steps."""


def scores(
    results: Results,
    class_name: str | None = None,
    *,
    metric: str = "dice",
) -> "Figure":
    """Draws a box and a dot for every scan, by variant.

    Args:
        results: A finished run.
        class_name: The class; every scan's mean over classes when omitted.
        metric: "dice", or a metric that the run measured.

    Raises:
        FssegError: The run has no such class or metric.
    """
    if class_name is not None and class_name not in results.classes:
        raise FssegError(
            f"there is no class {class_name!r} in {results.path}; "
            f"{nearest(class_name, results.classes)}"
        )
    results.table(metric)  # which says what it has instead
    frame = results.frame
    if class_name is not None:
        frame = frame[frame["class_name"] == class_name]
    unit = results.unit(metric)
    factor = 100 if unit == "%" else 1
    scans = frame.groupby(["variant", "fold", "seed", "case", "support_case"])
    by_scan = factor * scans[metric].mean()
    variants = results.variants
    figure, axes = panels(4.6, 0.8 + 0.3 * len(variants))
    random = np.random.default_rng(0)
    for height, name in enumerate(variants):
        values = by_scan.loc[name].dropna().to_numpy()
        draw_box(axes, values, height, colour_of(height), random)
    names = [drawn(name) for name in starred(variants, results.oracles)]
    axes.set_yticks(range(len(variants)), names)
    axes.set_ylim(len(variants) - 0.4, -0.6)
    axes.set_xlabel(label_of_axis("Dice" if metric == "dice" else metric, unit))
    axes.set_title(drawn((class_name or "mean over classes").replace("_", " ")))
    return figure


def training_curves(results: Results) -> "Figure":
    """Draws the losses by step, smoothed, the learned score threshold T_S, and the Dice on scans set aside if there are any.

    There is a colour for each kind of training, and a line for each fold and seed.

    Raises:
        FssegError: The run keeps no log of its training.
    """
    logs = _logs(results)
    if not logs:
        raise FssegError(
            f"{results.path}: there is no log of a training, expected train.jsonl below its folds with a "
            f"line at least; a training of less than {LOG_EVERY} steps leaves none"
        )
    names = [training.names[0] for training in trainings_of(results.recipe)]
    validated = any(
        name in record for _, records in logs for record in records for name in VALIDATION
    )
    figure, (left, right, *dice) = panels(6.8, 3.2, 3 if validated else 2)
    lines: dict[str, Any] = {}
    for number, records in logs:
        of_training = f"training of {names[number]}, " if len(names) > 1 else ""
        look: dict[str, Any] = {"color": colour_of(number), "alpha": 0.8, "linewidth": 1.2}
        for style, key in zip(cycle(LINE_STYLES), _losses(records)):
            points = [(record["step"], record[key]) for record in records if record.get(key)]
            if points:
                label = LOSSES.get(key, f"loss {key}")
                lines[of_training + label] = left.plot(
                    *_smooth(points),
                    style,
                    **look,
                )[0]
        learned = [record for record in records if "score_threshold" in record]
        if learned:
            thresholds = [(record["step"], record["score_threshold"]) for record in learned]
            right.plot(*_smooth(thresholds), **look)
        for axes in dice:
            for label, line in _draw_validation(axes, records, look).items():
                lines[of_training + label] = line
    labelled = [(left, "loss"), (right, "score threshold"), *((axes, "Dice, %") for axes in dice)]
    for axes, label in labelled:
        axes.set_xlabel("step")
        axes.set_ylabel(label)
    # Below both, where it takes as much room as it needs of the page and none of the curves'.
    legend: dict[str, Any] = {
        "loc": "outside lower center",
        "ncols": 2,
        "frameon": False,
        "fontsize": 6,
    }
    figure.legend(list(lines.values()), [drawn(label) for label in lines], **legend)
    figure.set_figheight(3.2 + 0.12 * math.ceil(len(lines) / 2))
    return figure


def _draw_validation(
    axes: "Axes", records: list[dict[str, Any]], look: dict[str, Any]
) -> dict[str, Any]:
    """Draws the Dice of a training on scans set aside; returns the lines by their labels."""
    lines = {}
    for style, (key, label) in zip(LINE_STYLES, VALIDATION.items()):
        points = [(record["step"], 100 * record[key]) for record in records if key in record]
        if points:
            steps, values = np.array(points).T
            [lines[label]] = axes.plot(steps, values, style, marker=".", **look)
    return lines


def _losses(records: list[dict[str, float]]) -> list[str]:
    """The columns of a log that are losses, in their order."""
    columns = dict.fromkeys(name for record in records for name in record)
    return [name for name in columns if name not in LOG_COLUMNS]


def calibrations(results: Results) -> dict[str, "Figure"]:
    """Draws the ideal priors of the calibration episodes against support size and location.

    Lines show what AvgEst and LinEst made of them; that of LinEst is drawn at the mean of the other regressor.

    Returns:
        A figure for each training and kind of scoring (prototypes and head) that was calibrated, by a name that tells
        which.
    """
    figures = {}
    for name, folder in _trainings(results):
        calibration = read_calibration(folder.calibration)
        states = calibration["states"]
        by_scoring: dict[str, list[dict[str, Any]]] = {}
        for sample in calibration["samples"]:
            by_scoring.setdefault(sample["scoring"], []).append(sample)
        for scoring, samples in by_scoring.items():
            fitted = [
                (variant, colour_of(number))
                for number, variant in enumerate(results.recipe.variants)
                if variant.name in states and variant.scoring == scoring
            ]
            if not fitted:
                raise FssegError(
                    f"{folder.calibration}: has samples of {told(scoring)}, expected those of a row's prototypes and "
                    "head; run the recipe again"
                )
            for variant, _ in fitted:
                load_threshold(
                    variant.name, variant.threshold.build("threshold"), states[variant.name]
                )
            first, _ = fitted[0]
            title = ", ".join(table.label for table in first.scorers.values())
            figure, (left, right) = panels(6.8, 3.0, 2, sharey=True)
            fits = _Fits(left, right, samples)
            for variant, colour in fitted:
                fits.draw(variant, states[variant.name], colour)
            fits.label()
            figures[f"{title}, {name}" if name else title] = figure
    return figures


class _Fits:
    """The two axes of a calibration, with the ideal priors of its episodes and lines through them."""

    def __init__(
        self,
        left: "Axes",
        right: "Axes",
        samples: list[dict[str, Any]],
    ) -> None:
        self.left = left
        self.right = right
        self.sizes = np.array([np.mean(sample["sizes"]) for sample in samples])
        self.locations = np.array([sample["location"] for sample in samples])
        limit = log_odds(1 - 1e-3)
        priors = np.clip([sample["prior"] for sample in samples], -limit, limit)
        look: dict[str, Any] = {"color": GREY, "alpha": 0.7, "markersize": 3, "markeredgewidth": 0}
        left.plot(100 * self.sizes, priors, "o", **look)
        right.plot(self.locations, priors, "o", **look)

    def draw(
        self,
        variant: "VariantTable",
        state: dict[str, Any],
        colour: str,
    ) -> None:
        """Draws what a variant's threshold learned, if it is one that has a line."""
        if variant.threshold.name == "avg_est" and "prior" in state:
            for axes in (self.left, self.right):
                axes.axhline(
                    log_odds(state["prior"]),
                    color=colour,
                    label=drawn(variant.name),
                )
        elif variant.threshold.name == "lin_est":
            *location_slope, size_slope, constant = state["coefficients"]
            of_location = location_slope[0] if location_slope else 0.0
            sizes = np.linspace(0, self.sizes.max(), 60)
            locations = np.linspace(0, 1, 60)
            typical = of_location * ((self.locations - 0.5) ** 2).mean() + constant
            by_size = typical + size_slope * sizes
            self.left.plot(
                100 * sizes,
                by_size,
                color=colour,
                label=drawn(variant.name),
            )
            at_mean_size = size_slope * self.sizes.mean() + constant
            by_location = of_location * (locations - 0.5) ** 2 + at_mean_size
            self.right.plot(
                locations,
                by_location,
                color=colour,
                label=drawn(variant.name),
            )

    def label(self) -> None:
        """Names the axes and the lines."""
        self.left.set_xlabel("support size, % of the image")
        self.left.set_ylabel("ideal prior, log-odds")
        self.right.set_xlabel("location of the query slice in its scan")
        if self.left.get_legend_handles_labels()[0]:
            self.left.legend(frameon=False, fontsize=7)


def _logs(results: Results) -> list[tuple[int, list[dict[str, Any]]]]:
    """The logs of a run's trainings that have lines, with the number of the kind of training."""
    logs = []
    for _, folder in _trainings(results):
        records = read_log(folder.log)
        if records:
            logs.append((folder.index, records))
    return logs


def _trainings(results: Results) -> Iterator[tuple[str, TrainingFolder]]:
    """The folders of a run's trainings, with what tells them apart: seed, fold, and the first variant of its kind."""
    names = [training.names[0] for training in trainings_of(results.recipe)]
    folds = list(results.folder.folds())
    several_seeds = len(results.about["seeds"]) > 1
    several_folds = len({fold.index for _, fold in folds}) > 1
    for seed, fold in folds:
        for training in fold.trainings():
            words = []
            if several_seeds:
                words.append(f"seed {seed}")
            if several_folds:
                words.append(f"fold {fold.index}")
            if len(names) > 1:
                words.append(f"training of {names[training.index]}")
            yield ", ".join(words), training


def _smooth(points: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The points as steps and values, each a mean over its share of them."""
    parts = np.array_split(np.array(points, dtype=float), min(SMOOTHED, len(points)))
    means = np.array([part.mean(axis=0) for part in parts])
    return means[:, 0], means[:, 1]
