"""The built-in metrics: what a recipe may measure besides Dice, on a scan's own grid."""

import math
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool

from fsseg.interfaces import Metric


def facts_of(metric: Metric) -> dict[str, Any]:
    """What a run keeps of a metric for those who read its scores: unit, best value, and in which direction that lies."""
    low, high = metric.range
    better = "higher" if metric.best == high else "lower" if metric.best == low else "nearer"
    return {"unit": metric.unit, "best": metric.best, "better": better}


class Iou:
    """Intersection over union (Jaccard index) of the voxels; NaN where the class is in neither."""

    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    best: ClassVar[float] = 1.0
    symmetric: ClassVar[bool] = True
    unit: ClassVar[str] = "%"

    def __init__(self) -> None:
        pass

    def __call__(
        self,
        predicted: Bool[np.ndarray, "slice height width"],
        actual: Bool[np.ndarray, "slice height width"],
        spacing: tuple[float, float, float],
    ) -> float:
        union = int((predicted | actual).sum())
        return int((predicted & actual).sum()) / union if union else math.nan


class VolumeError:
    """Predicted volume minus true volume, in millilitres; NaN where the class is in neither."""

    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    best: ClassVar[float] = 0.0
    symmetric: ClassVar[bool] = False
    unit: ClassVar[str] = "ml"

    def __init__(self) -> None:
        pass

    def __call__(
        self,
        predicted: Bool[np.ndarray, "slice height width"],
        actual: Bool[np.ndarray, "slice height width"],
        spacing: tuple[float, float, float],
    ) -> float:
        if not (predicted.any() or actual.any()):
            return math.nan
        return (int(predicted.sum()) - int(actual.sum())) * math.prod(spacing) / 1000
