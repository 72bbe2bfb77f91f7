"""Every figure by name, as a `matplotlib.figure.Figure` that `figure.savefig("file.pdf")` writes.

Of the tied prototype model: `theory`, `threshold_curves`. Of a finished run: `scores`, `training_curves`, `calibrations`. Of
what was found about runs: `comparison`, `sweep`, `supports`, `lost_dice`.
"""

from fsseg.report.comparison_plots import comparison, lost_dice, supports, sweep
from fsseg.report.run_plots import calibrations, scores, training_curves
from fsseg.report.theory_plots import prior_curves, theory, threshold_curves

__all__ = [
    "calibrations",
    "comparison",
    "lost_dice",
    "prior_curves",
    "scores",
    "supports",
    "sweep",
    "theory",
    "threshold_curves",
    "training_curves",
]
