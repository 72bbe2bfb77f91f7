"""Empty figures for those who draw, and the colours of rows."""

from typing import TYPE_CHECKING, Any

from fsseg.errors import FssegError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
"""Okabe and Ito's, safe for the colour-blind, less the yellow that a white page swallows."""


def panels(
    width: float, height: float, columns: int = 1, *, sharey: bool = False
) -> tuple["Figure", Any]:
    """A figure of this size in inches, and its axes, or an array of several; raises FssegError without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise FssegError("figures need matplotlib; install fsseg[plots]") from None
    with rc_context(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9}
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(1, columns, sharey=sharey)
