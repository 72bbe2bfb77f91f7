"""The expected calibration error: whether probabilities say how often they are right."""

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from fsseg.evaluation.metrics import Spacing
from fsseg.plugins.options import component


@component
class CalibrationError:
    """Expected calibration error: how far the probability of what is decided lies from how often that is right.

    Over the voxels of the segmented slices, in bins B of equal width: the sum of |B| / N * |acc(B) - conf(B)|, where
    conf is the mean of max(p, 1 - p) for the class's probability p, and acc the share of voxels where p > 0.5 agrees with
    the truth. Most voxels are far from any organ and certain, so values are small: compare rows, not datasets.

    NaN where the class is in neither prediction nor truth. Read from probabilities, so it cannot be measured after a run.

    Reference: Guo et al., On calibration of modern neural networks (ICML 2017), with its 15 bins.

    Example:
        Four voxels at 0.8, of which three are right:

        >>> probability = np.full((1, 2, 2), 0.8, dtype=np.float32)
        >>> actual = np.array([[[True, True], [True, False]]])
        >>> round(CalibrationError()(probability > 0.5, actual, (1.0, 1.0, 1.0), probability), 4)
        0.05
    """

    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    best: ClassVar[float] = 0.0
    symmetric: ClassVar[bool] = False
    unit: ClassVar[str] = "%"
    probabilities: ClassVar[bool] = True

    def __init__(
        self,
        *,
        bins: Annotated[int, Field(ge=1, description="bins of equal width")] = 15,
        of: Annotated[
            Literal["decision", "class"],
            Field(
                description="decision: of max(p, 1 - p) and how often p > 0.5 is right, as published; class: of p itself, and how "
                "often the voxel is the class"
            ),
        ] = "decision",
    ) -> None:
        self.bins = bins
        self.of = of

    def __call__(
        self,
        predicted: Bool[np.ndarray, "slice height width"],
        actual: Bool[np.ndarray, "slice height width"],
        spacing: Spacing,
        probability: Float[np.ndarray, "slice height width"],
    ) -> float:
        if not (predicted.any() or actual.any()):
            return math.nan
        segmented = ~np.isnan(probability)
        confidence = probability[segmented].astype(np.float64)
        right = actual[segmented]
        if self.of == "decision":
            decided = confidence > 0.5
            right = decided == right
            confidence = np.where(decided, confidence, 1 - confidence)
        # A bin holds its upper edge, as published; 0 belongs to the first one.
        number = np.ceil(confidence * self.bins).astype(int) - 1
        number = number.clip(0, self.bins - 1)
        gaps = np.bincount(number, right - confidence, self.bins)
        return float(np.abs(gaps).sum() / max(len(confidence), 1))
