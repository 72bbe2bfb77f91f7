"""The one door from analysis up to the figures, through which `Comparison.plot()` and its like go."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(name: str, subject: Any) -> "Figure":
    """Draws what was found.

    Args:
        name: A function of `fsseg.report.comparison_plots`, such as "comparison".
        subject: What it draws.

    Raises:
        FssegError: matplotlib is not installed.
    """
    # Upwards, and lazily: tables need no matplotlib, but whoever holds a comparison asks it for its figure.
    from fsseg.report import comparison_plots

    return getattr(comparison_plots, name)(subject)
