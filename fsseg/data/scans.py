"""Scans as the later stages use them: intensities ruled, tensors made, supervoxels counted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, UInt8
from torch import Tensor

from fsseg.data.cache import cached, content_key
from fsseg.data.intensity import RULES
from fsseg.data.regions import RegionTable, count_regions
from fsseg.errors import DataError
from fsseg.interfaces import Dataset, Supervoxels
from fsseg.types import Volume


@dataclass(frozen=True)
class EvaluationScan:
    """A scan with its ground truth.

    Attributes:
        case: The case's id.
        images: Slices after the backbone's intensity rule.
        location: Position of each slice, 0 is the first and 1 the last.
        labels: Class values.
        affine: The file's affine, for what is written on its grid.
    """

    case: str
    images: Float[Tensor, "slice height width"]
    location: Float[Tensor, "slice"]
    labels: UInt8[Tensor, "slice height width"]
    affine: Float[np.ndarray, "4 4"]


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


def apply_rule(volume: Volume, rule: str) -> Float[Tensor, "slice height width"]:
    """The volume's intensities after a rule of `fsseg.data.intensity`; raises DataError for an unknown one."""
    if rule not in RULES:
        raise DataError(f"intensity rule {rule!r}: the backbone asks for it, expected one of {', '.join(RULES)}")
    return torch.from_numpy(RULES[rule](volume.image))


def evaluation_scan(volume: Volume, rule: str) -> EvaluationScan:
    """The scan for evaluation; raises DataError for a volume without labels."""
    if volume.labels is None:
        raise DataError(f"case {volume.case}: it has no labels, expected them for evaluation; add its label file")
    location = torch.linspace(0, 1, len(volume.image)) if len(volume.image) > 1 else torch.zeros(1)
    return EvaluationScan(
        volume.case, apply_rule(volume, rule), location, torch.from_numpy(volume.labels), volume.affine
    )


def training_scan(volume: Volume, regions: Int32[np.ndarray, "slice height width"], rule: str) -> TrainingScan:
    """The scan for training."""
    images = apply_rule(volume, rule)
    return TrainingScan(volume.case, images, torch.from_numpy(regions), count_regions(regions), float(images.mean()))


def cached_supervoxels(
    volume: Volume, method: Supervoxels, dataset: Dataset, identity: str
) -> Int32[np.ndarray, "slice height width"]:
    """The supervoxels of a scan, computed once.

    `identity` stands for the method, its options and its source; the rest of the key is the scan itself.
    """
    key = content_key(identity, dataset.supervoxel_min_size, volume.spacing, volume.image)
    compute: Callable[[], np.ndarray] = lambda: method(volume, dataset)  # noqa: E731
    return cached("supervoxels", key, compute)
