"""Scans as the later stages use them: on the working grid, intensities ruled, tensors made, supervoxels counted."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from fsseg.data.intensity import Scaling
from fsseg.data.supervoxels.regions import RegionTable, count_regions
from fsseg.data.volume import Volume


@dataclass(frozen=True)
class TrainingScan:
    """A scan with its supervoxels; its labels are not here.

    Attributes:
        case: The case's id.
        images: Slices after the backbone's intensity rule.
        supervoxels: Region ids; 0 is never sampled.
        table: Pixel counts of the regions.
        fill: Mean of the images, which takes the place of what an augmentation moves in from outside. After a z-score
            it is the published 0.
    """

    case: str
    images: Float[Tensor, "slice height width"]
    supervoxels: Int[Tensor, "slice height width"]
    table: RegionTable
    fill: float


def training_scan(
    volume: Volume,
    regions: Int32[np.ndarray, "slice height width"],
    scaling: Scaling,
    hidden: Bool[np.ndarray, "slice"] | None = None,
) -> TrainingScan:
    """The scan for training.

    Args:
        volume: The volume on the working grid.
        regions: Its supervoxels.
        scaling: What its intensity rule measured.
        hidden: Slices that training must not see; no region has a pixel there, so none is drawn from them.
    """
    images = torch.from_numpy(scaling.apply(volume.image))
    if hidden is not None:
        regions = np.where(hidden[:, None, None], np.int32(0), regions)
    return TrainingScan(
        volume.case, images, torch.from_numpy(regions), count_regions(regions), float(images.mean())
    )
