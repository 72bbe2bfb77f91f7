"""Figures of what was found about finished runs: comparisons, sweeps, supports, and where the lost Dice is."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fsseg.analysis.tables import number, starred
from fsseg.report.figures import COLOURS, colour_of, draw_box, label_of_axis, panels
from fsseg.system.pictures import drawn

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsseg.analysis.comparison import Comparison
    from fsseg.analysis.supports import Sensitivity
    from fsseg.analysis.sweep import Sweep
    from fsseg.analysis.wrong_voxels import ErrorTable

SHADES = {
    "fp_without": COLOURS[1],
    "fp_with": COLOURS[4],
    "fn_ends": COLOURS[0],
    "fn_inside": COLOURS[5],
}
"""Warm for what is too much, cool for what is missing."""


def comparison(compared: "Comparison") -> "Figure":
    """Draws every scan's mean over classes as a dot, by variant, with the mean over scans as a bar."""
    variants = compared.variants
    figure, axes = panels(1.5 + 1.1 * len(variants), 4.2)
    for number_of_variant, variant in enumerate(variants):
        values = compared.cases.loc[variant]["mean"].dropna().to_numpy()
        beside = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(len(values))
        colour = "tab:gray" if variant == compared.baseline else "tab:blue"
        axes.plot(
            number_of_variant + beside,
            values,
            "o",
            color=colour,
            alpha=0.6,
            ms=4,
        )
        if len(values):
            ends = (number_of_variant - 0.3, number_of_variant + 0.3)
            axes.hlines(values.mean(), *ends, color="black")
    names = [drawn(name) for name in starred(variants, compared.oracles)]
    axes.set_xticks(
        range(len(variants)),
        names,
        rotation=30,
        ha="right",
    )
    axes.set_ylabel(f"{label_of_axis(compared.metric, compared.unit)}, mean over classes")
    return figure


def sweep(swept: "Sweep") -> "Figure":
    """Draws the mean over classes by the first key's values, with a line for each combination of the others."""
    grid = swept.grid()
    figure, axes = panels(6, 4)
    for name in grid.columns:
        label = ", ".join(name) if isinstance(name, tuple) else str(name)
        axes.plot(
            list(grid.index),
            grid[name].to_numpy(),
            "o-",
            label=drawn(label),
        )
    compared = swept.comparison
    axes.set_xlabel(drawn(grid.index.name))
    axes.set_ylabel(f"{label_of_axis(compared.metric, compared.unit)}, mean over classes")
    if len(grid.columns) > 1:
        axes.legend(frameon=False)
    return figure


def supports(sensitivity: "Sensitivity") -> "Figure":
    """Draws a box and dots of the supports' Dice for each class and variant, and the run's own number as a bar."""
    by_support = sensitivity.supports
    variants = list(dict.fromkeys(by_support["variant"]))
    classes = list(dict.fromkeys(by_support["class_name"]))
    as_run = sensitivity.results.table()
    random = np.random.default_rng(0)
    size = (1.2 + 2.6 * len(classes), 1.0 + 0.4 * len(variants))
    figure, axes_of = panels(*size, len(classes), sharey=True)
    for axes, name in zip(np.atleast_1d(axes_of), classes):
        of_class = by_support[by_support["class_name"] == name]
        for height, variant in enumerate(variants):
            dice = of_class.loc[of_class["variant"] == variant, "dice"].dropna().to_numpy()
            draw_box(axes, dice, height, colour_of(height), random, alpha=0.4)
            axes.vlines(
                as_run.loc[variant, name],
                height - 0.4,
                height + 0.4,
                color="black",
            )
        axes.set_title(drawn(name))
        axes.set_xlabel("Dice of a support, %; bar: as run")
        axes.set_yticks(range(len(variants)), [drawn(variant) for variant in variants])
    np.atleast_1d(axes_of)[0].invert_yaxis()
    return figure


def lost_dice(errors: "ErrorTable") -> "Figure":
    """Draws a bar of the Dice points lost for each class and variant, in parts by the kind of wrong voxels."""
    table = errors.table()
    kinds = len(table.index.unique("kind"))
    lost = table["lost"].unstack("kind", sort=False)
    dice = table["dice"].unstack("kind", sort=False).iloc[:, 0]
    classes = lost.index.unique("class")
    starred_names = starred(errors.results.variants, errors.results.oracles)
    names = [drawn(name) for name in starred_names]
    longest = lost.sum(axis=1).max()
    wide = len(classes) > 2  # enough for a legend in one line
    above = 1.25 if wide else 1.75
    size = (max(4.6, 1.4 + 1.6 * len(classes)), above + 0.24 * len(names))
    figure, axes_of = panels(*size, len(classes), sharey=True)
    for axes, name in zip(np.atleast_1d(axes_of), classes):
        _draw_bars(axes, lost.xs(name, level="class"), dice.xs(name, level="class"))
        axes.set_title(drawn(name.replace("_", " ")), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, max(1.3 * longest, 1))
    last = np.atleast_1d(axes_of)[-1]
    last.set_ylim(len(names) - 0.4, -0.6)
    figure.legend(
        *last.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=kinds if wide else 1,
        frameon=False,
        fontsize=8,
        handlelength=1,
    )
    below = "Dice points lost; beside each bar the Dice that is left, in percent"
    figure.supxlabel(below, fontsize=8)
    return figure


def _draw_bars(
    axes: "Axes",
    lost: "pandas.DataFrame",
    dice: "pandas.Series",
) -> None:
    """A bar for each variant, with a part for each kind, and the Dice beside it."""
    from fsseg.analysis.wrong_voxels import KINDS  # loads torch, which no other figure here needs

    heights = range(len(lost))
    ends = np.zeros(len(lost))
    for kind, label in KINDS.items():
        label = label.replace("FP", "false positives").replace("FN", "false negatives")
        parts = lost[kind].fillna(0).to_numpy()
        look: dict[str, Any] = {
            "color": SHADES[kind],
            "edgecolor": "white",
            "linewidth": 0.4,
            "height": 0.72,
        }
        axes.barh(heights, parts, left=ends, label=label, **look)
        ends += parts
    for height, end, value in zip(heights, ends, dice):
        axes.annotate(
            number(value),
            (end, height),
            (3, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=7,
            color="#404040",
        )
