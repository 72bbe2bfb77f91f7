"""Empty figures for those who draw, the colours of variants, and what several figures have in common."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fsseg.errors import FssegError
from fsseg.system.pictures import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
"""Okabe and Ito's, safe for the colour-blind, less the yellow that a white page swallows."""

GREY = "#7f7f7f"
"""For what belongs to no variant."""


def panels(
    width: float,
    height: float,
    columns: int = 1,
    *,
    sharey: bool = False,
) -> tuple["Figure", Any]:
    """An empty figure with axes side by side.

    Args:
        width: In inches.
        height: In inches.
        columns: Number of axes.
        sharey: Whether they share their vertical axis.

    Returns:
        The figure, and its axes, or an array of several.

    Raises:
        FssegError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise FssegError("figures need matplotlib; install fsseg[plots]") from None
    with rc_context(
        {
            "font.size": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
        }
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(1, columns, sharey=sharey)


def colour_of(number: int) -> str:
    """The colour of the variant with this number; they come again after the seventh."""
    return COLOURS[number % len(COLOURS)]


def draw_box(
    axes: "Axes",
    values: np.ndarray,
    height: int,
    colour: str,
    random: np.random.Generator,
    *,
    alpha: float = 0.75,
) -> None:
    """Draws a horizontal box of values at a height, and a dot for each value; a single value is a dot alone."""
    beside = np.zeros(len(values))
    if len(values) > 1:
        beside = random.uniform(-0.18, 0.18, len(values))
        axes.boxplot(
            values,
            positions=[height],
            orientation="horizontal",
            widths=0.55,
            showfliers=False,
            manage_ticks=False,
            medianprops={"color": colour, "linewidth": 2},
            boxprops={"alpha": 0.6},
        )
    dots: dict[str, Any] = {"color": colour, "alpha": alpha, "markersize": 4, "markeredgewidth": 0}
    axes.plot(values, height + beside, "o", **dots)


def with_unit(name: str, unit: str) -> str:
    """The name of a metric with its unit, if it has one."""
    return f"{name}, {unit}" if unit else name


def label_of_axis(name: str, unit: str) -> str:
    """The label of an axis along which a metric is drawn."""
    return drawn(with_unit(name, unit))
