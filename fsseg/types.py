"""The values that pass between the stages, one type per boundary.

Axes are words and always come in this order: way, shot, query, slice, class, channel, height, width. Images have one
channel until a backbone sees them. Annotations are jaxtyping shapes; the tests execute them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Volume:
    """One scan, slices first.

    Attributes:
        case: The case's id, unique in its dataset.
        image: Intensities as stored (a backbone's intensity rule is applied later).
        labels: Class values, 0 is background; None for a scan without ground truth.
        spacing: Voxel size in mm along (slice, height, width).
        affine: Maps the file's voxel indices (width, height, slice) to mm in the scanner's space, as in NIfTI.
    """

    case: str
    image: Float[np.ndarray, "slice height width"]
    labels: UInt8[np.ndarray, "slice height width"] | None
    spacing: tuple[float, float, float]
    affine: Float[np.ndarray, "4 4"]
