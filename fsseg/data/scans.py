"""Scans as the later stages use them: on the working grid, intensities ruled, tensors made, supervoxels counted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, UInt8
from torch import Tensor

from fsseg.data.cache import cached, content_key
from fsseg.data.intensity import Scaling
from fsseg.data.regions import RegionTable, count_regions, default_min_size
from fsseg.data.stored import Stored
from fsseg.errors import DataError
from fsseg.grids import WorkingGrid, working_grid
from fsseg.interfaces import Dataset, Supervoxels
from fsseg.types import Volume


@dataclass(frozen=True)
class EvaluationScan:
    """A scan with its ground truth.

    Attributes:
        case: The case's id.
        images: Slices after the backbone's intensity rule, on the working grid.
        location: Position of each slice, 0 is the first and 1 the last.
        labels: Class values on the working grid, for the support and for oracles.
        truth: Class values on the scan's own grid, where predictions are scored.
        working: The way from one grid to the other.
    """

    case: str
    images: Float[Tensor, "slice height width"]
    location: Float[Tensor, "slice"]
    labels: UInt8[Tensor, "slice height width"]
    truth: UInt8[Tensor, "slice own_height own_width"]
    working: WorkingGrid


@dataclass(frozen=True)
class TrainingScan:
    """A scan with its supervoxels; its labels are not here.

    Attributes:
        case: The case's id.
        images: Slices after the backbone's intensity rule.
        supervoxels: Region ids.
        table: Pixel counts of the regions.
        fill: Mean of the images, which takes the place of what an augmentation moves in from outside. After a z-score
            it is the published 0.
    """

    case: str
    images: Float[Tensor, "slice height width"]
    supervoxels: Int[Tensor, "slice height width"]
    table: RegionTable
    fill: float


def on_working_grid(volume: Volume, options: dict[str, Any]) -> Volume:
    """The volume with its slices on the working grid (`fsseg.grids.working_grid`); itself where nothing changes."""
    (height, width), (thickness, *pixel) = volume.image.shape[1:], volume.spacing
    working = working_grid((height, width), tuple(pixel), **options)
    if working.is_own:
        return volume
    labels = None if volume.labels is None else working.labels(volume.labels)
    spacing = (thickness, *(mm * own / new for mm, own, new in zip(pixel, working.own, working.resized)))
    return replace(volume, image=working.image(volume.image), labels=labels, spacing=spacing, working=working)


def evaluation_scan(own: Volume, volume: Volume, scaling: Scaling) -> EvaluationScan:
    """The scan for evaluation.

    Args:
        own: The volume on its own grid.
        volume: The same on the working grid.
        scaling: What its intensity rule measured.

    Raises:
        DataError: The volume has no labels.
    """
    if own.labels is None or volume.labels is None:
        raise DataError(f"case {own.case}: it has no labels, expected them for evaluation; add its label file")
    location = torch.linspace(0, 1, len(volume.image)) if len(volume.image) > 1 else torch.zeros(1)
    size = own.image.shape[1:]
    return EvaluationScan(
        own.case,
        torch.from_numpy(scaling.apply(volume.image)),
        location,
        torch.from_numpy(volume.labels),
        torch.from_numpy(own.labels),
        volume.working or WorkingGrid(size, size, size),
    )


def training_scan(volume: Volume, regions: Int32[np.ndarray, "slice height width"], scaling: Scaling) -> TrainingScan:
    """The scan for training."""
    images = torch.from_numpy(scaling.apply(volume.image))
    return TrainingScan(volume.case, images, torch.from_numpy(regions), count_regions(regions), float(images.mean()))


def cached_supervoxels(
    volume: Volume, method: Supervoxels, dataset: Dataset, identity: str, min_size: int | None = None
) -> Int32[np.ndarray, "slice height width"]:
    """The supervoxels of a scan, computed once (those that a dataset comes with are read each time).

    Args:
        volume: The scan.
        method: The method.
        dataset: The scan's dataset.
        identity: Stands for the method, its other options and its source; the rest of the key is the scan itself.
        min_size: The method's option of this name, if it has one and it was given.
    """
    if isinstance(method, Stored):
        return method(volume, dataset)
    key = content_key(identity, min_size or default_min_size(volume, dataset), volume.spacing, volume.image)
    compute: Callable[[], np.ndarray] = lambda: method(volume, dataset)  # noqa: E731
    return cached("supervoxels", key, compute)
