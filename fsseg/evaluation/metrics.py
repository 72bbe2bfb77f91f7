"""Counts of voxels, from which Dice follows, and the metrics that a recipe may ask for besides it."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.interfaces import Metric, ProbabilityMetric
from fsseg.plugins.options import component

Spacing = tuple[float, float, float]
"""Voxel size in mm along (slice, height, width)."""


class Counts(NamedTuple):
    """Voxels that are the class in prediction and truth, in the prediction, and in the truth."""

    intersection: int
    predicted: int
    actual: int


def count_overlaps(
    pairs: Iterable[tuple[Bool[Tensor, "slice height width"], Bool[Tensor, "slice height width"]]],
) -> list[Counts]:
    """Counts the voxels of whole volumes on their device.

    Args:
        pairs: What was predicted, and what is true.

    Returns:
        The counts of each pair; the host waits once for all of them.
    """
    counts = []
    for predicted, actual in pairs:
        masks = (predicted & actual, predicted, actual)
        counts.append(torch.stack([torch.count_nonzero(mask) for mask in masks]))
    return [Counts(*of_pair) for of_pair in torch.stack(counts).tolist()]


def asks_for_probabilities(metric: Metric | ProbabilityMetric) -> bool:
    """True for a metric that is handed the probability of the class; one without the attribute is not."""
    return getattr(metric, "probabilities", False) is True


def value_of(
    metric: Any,
    predicted: Bool[np.ndarray, "slice height width"],
    actual: Bool[np.ndarray, "slice height width"],
    spacing: Spacing,
    probability: Float[np.ndarray, "slice height width"] | None = None,
) -> float:
    """A metric's value.

    Args:
        metric: The metric.
        predicted: The voxels that are predicted as the class.
        actual: Those that are the class.
        spacing: Voxel size in mm along (slice, height, width).
        probability: The probability of the class; handed to a metric that asks for it alone.
    """
    if asks_for_probabilities(metric):
        return float(metric(predicted, actual, spacing, probability))
    return float(metric(predicted, actual, spacing))


def facts_of(metric: Metric) -> dict[str, Any]:
    """The facts of a metric that a run keeps for those who read its scores.

    Returns:
        Its `unit`, its `best` value, and whether "higher", "lower" or "nearer" to that is `better`.
    """
    lowest, highest = metric.range
    better = "nearer"
    if metric.best == lowest:
        better = "lower"
    if metric.best == highest:
        better = "higher"
    return {"unit": metric.unit, "best": metric.best, "better": better}


@component
class Iou:
    """Intersection over union (Jaccard index) of the voxels: |P ∩ A| / |P ∪ A|.

    NaN where the class is in neither prediction P nor truth A.

    Example:
        >>> predicted, actual = np.zeros((2, 1, 4, 4), dtype=bool)
        >>> predicted[:, :2], actual[:, :4] = True, True
        >>> Iou()(predicted, actual, (1.0, 1.0, 1.0))
        0.5
    """

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
        spacing: Spacing,
    ) -> float:
        union = int((predicted | actual).sum())
        return int((predicted & actual).sum()) / union if union else math.nan


@component
class VolumeError:
    """Predicted volume minus true volume in millilitres; NaN where the class is in neither.

    Example:
        >>> predicted, actual = np.zeros((2, 1, 40, 50), dtype=bool)
        >>> predicted[:] = True
        >>> VolumeError()(predicted, actual, (1.0, 1.0, 1.0))  # 2,000 voxels of 1 mm³
        2.0
    """

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
        spacing: Spacing,
    ) -> float:
        if not (predicted.any() or actual.any()):
            return math.nan
        return (int(predicted.sum()) - int(actual.sum())) * math.prod(spacing) / 1000


@component
class Hd95:
    """The 95th percentile of the distances between the surfaces in mm, the larger of both directions (HD95).

    Measured by the package surface-distance. NaN where the class is missing in prediction or truth: such scans are left
    out of its mean, so read it beside Dice.

    Raises:
        FssegError: The package surface-distance is not installed.

    Example:
        >>> predicted, actual = np.zeros((2, 8, 8, 8), dtype=bool)
        >>> predicted[2:5, 2:5, 2:5], actual[2:5, 2:5, 2:7] = True, True
        >>> Hd95(percent=100)(predicted, actual, (1.0, 1.0, 1.5))  # two voxels of 1.5 mm too short
        3.0
    """

    range: ClassVar[tuple[float, float]] = (0.0, math.inf)
    best: ClassVar[float] = 0.0
    symmetric: ClassVar[bool] = True
    unit: ClassVar[str] = "mm"

    def __init__(
        self,
        *,
        percent: Annotated[
            float, Field(gt=0, le=100, description="the percentile; 100 for the largest")
        ] = 95.0,
    ) -> None:
        self.percent = percent

    def __call__(
        self,
        predicted: Bool[np.ndarray, "slice height width"],
        actual: Bool[np.ndarray, "slice height width"],
        spacing: Spacing,
    ) -> float:
        if not (predicted.any() and actual.any()):
            return math.nan
        distances = _surface_distances(predicted, actual, spacing)
        return float(_library().compute_robust_hausdorff(distances, self.percent))


@component
class Assd:
    """The mean distance between the surfaces in mm over both directions, weighted by area (ASSD).

    Measured by the package surface-distance. NaN where the class is missing in prediction or truth, as for `hd95`.

    Raises:
        FssegError: The package surface-distance is not installed.

    Example:
        >>> predicted, actual = np.zeros((2, 8, 8, 8), dtype=bool)
        >>> predicted[2:5, 2:5, 2:5], actual[2:5, 2:5, 2:5] = True, True
        >>> Assd()(predicted, actual, (1.0, 1.0, 1.5))
        0.0
    """

    range: ClassVar[tuple[float, float]] = (0.0, math.inf)
    best: ClassVar[float] = 0.0
    symmetric: ClassVar[bool] = True
    unit: ClassVar[str] = "mm"

    def __init__(self) -> None:
        pass

    def __call__(
        self,
        predicted: Bool[np.ndarray, "slice height width"],
        actual: Bool[np.ndarray, "slice height width"],
        spacing: Spacing,
    ) -> float:
        if not (predicted.any() and actual.any()):
            return math.nan
        found = _surface_distances(predicted, actual, spacing)
        distances = np.concatenate([found["distances_gt_to_pred"], found["distances_pred_to_gt"]])
        areas = np.concatenate([found["surfel_areas_gt"], found["surfel_areas_pred"]])
        return float((distances * areas).sum() / areas.sum())


@component
class Nsd:
    """The share of both surfaces that lies within a tolerance of the other (normalised surface distance).

    Measured by the package surface-distance. 0 where the class is missing in prediction or truth alone, NaN where it is
    in neither.

    Raises:
        FssegError: The package surface-distance is not installed.

    Example:
        >>> predicted, actual = np.zeros((2, 8, 8, 8), dtype=bool)
        >>> predicted[2:5, 2:5, 2:5], actual[2:5, 2:5, 2:7] = True, True
        >>> Nsd(tolerance=3.0)(predicted, actual, (1.0, 1.0, 1.5))
        1.0
    """

    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    best: ClassVar[float] = 1.0
    symmetric: ClassVar[bool] = True
    unit: ClassVar[str] = "%"

    def __init__(
        self,
        *,
        tolerance: Annotated[
            float, Field(ge=0, description="how far apart surfaces may be, mm")
        ] = 2.0,
    ) -> None:
        self.tolerance = tolerance

    def __call__(
        self,
        predicted: Bool[np.ndarray, "slice height width"],
        actual: Bool[np.ndarray, "slice height width"],
        spacing: Spacing,
    ) -> float:
        if not (predicted.any() and actual.any()):
            return 0.0 if predicted.any() or actual.any() else math.nan
        distances = _surface_distances(predicted, actual, spacing)
        return float(_library().compute_surface_dice_at_tolerance(distances, self.tolerance))


def _surface_distances(
    predicted: np.ndarray, actual: np.ndarray, spacing: Spacing
) -> dict[str, np.ndarray]:
    return _library().compute_surface_distances(actual, predicted, spacing)


def _library() -> Any:
    try:
        import surface_distance
    except ImportError:
        raise FssegError(
            "metrics: distances between surfaces need the package surface-distance, which is not "
            "installed; install fsseg[distances]"
        ) from None
    return surface_distance
