"""Distances between the surfaces of prediction and truth, in mm, as the package surface-distance measures them."""

import math
from typing import Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from fsseg.errors import FssegError

Spacing = tuple[float, float, float]


class Hd95:
    """The 95th percentile of the distances between the surfaces, the larger of both directions (HD95).

    NaN where the class is missing in prediction or truth: such scans are left out of its mean, so read it beside Dice.
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
        return float(
            _library().compute_robust_hausdorff(_between(predicted, actual, spacing), self.percent)
        )


class Assd:
    """The mean distance between the surfaces over both directions, weighted by area (average symmetric distance).

    NaN where the class is missing in prediction or truth, as for `hd95`.
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
        found = _between(predicted, actual, spacing)
        away = np.concatenate([found["distances_gt_to_pred"], found["distances_pred_to_gt"]])
        area = np.concatenate([found["surfel_areas_gt"], found["surfel_areas_pred"]])
        return float((away * area).sum() / area.sum())


class Nsd:
    """The share of both surfaces that lies within a tolerance of the other (normalised surface distance).

    0 where the class is missing in prediction or truth alone, NaN where it is in neither.
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
        found = _between(predicted, actual, spacing)
        return float(_library().compute_surface_dice_at_tolerance(found, self.tolerance))


def _between(predicted: np.ndarray, actual: np.ndarray, spacing: Spacing) -> dict[str, np.ndarray]:
    return _library().compute_surface_distances(actual, predicted, spacing)


def _library() -> Any:
    try:
        import surface_distance
    except ImportError:
        raise FssegError(
            "metrics: distances between surfaces need the package surface-distance, which is not installed; "
            "install fsseg[distances]"
        ) from None
    return surface_distance
