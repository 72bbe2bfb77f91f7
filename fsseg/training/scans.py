"""Scans for training: on the working grid, intensities ruled, supervoxels counted, and no labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from fsseg.data.intensity import Scaling, measure, rule_of
from fsseg.data.supervoxels.kept import cut
from fsseg.data.supervoxels.regions import RegionTable, count_regions
from fsseg.data.volume import Volume, on_working_grid
from fsseg.interfaces import Dataset, Intensity, Supervoxels
from fsseg.plugins.manager import registry
from fsseg.recipe.tables import GridTable

USUAL_SUPERVOXELS = "felzenszwalb"
"""The method where none is given, by its name: what only names it need not be made again when it changes."""


@dataclass(frozen=True)
class TrainingScan:
    """A scan with its supervoxels; its labels are not here.

    Attributes:
        case: The case's id.
        images: Slices after the backbone's intensity rule.
        supervoxels: Region ids; 0 is never sampled.
        table: Pixel counts of the regions.
        fill: Mean of the images, which takes the place of what an augmentation moves in from
            outside. After a z-score it is the published 0.
    """

    case: str
    images: Float[Tensor, "slice *channel height width"]
    supervoxels: Int[Tensor, "slice height width"]
    table: RegionTable
    fill: float

    @property
    def slice_size(self) -> tuple[int, int]:
        """Height and width of its slices."""
        height, width = self.images.shape[-2:]
        return height, width

    @property
    def nbytes(self) -> int:
        """Bytes of images and supervoxels."""
        return self.images.nbytes + self.supervoxels.nbytes

    def require_undamaged(self) -> None:
        """Checks voxels that are kept on disk when they are used first; raises DataError for damaged ones."""

    def to(self, device: torch.device) -> "TrainingScan":
        """The same scan with its images and supervoxels on another device."""
        self.require_undamaged()
        images = self.images.to(device)
        supervoxels = self.supervoxels.to(device)
        return replace(self, images=images, supervoxels=supervoxels)


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
        hidden: Slices that training must not see; no region has a pixel there, so none is drawn
            from them.
    """
    images = torch.from_numpy(scaling.apply(volume.image, volume.case))
    if hidden is not None:
        regions = np.where(hidden[:, None, None], np.int32(0), regions)
    return TrainingScan(
        case=volume.case,
        images=images,
        supervoxels=torch.from_numpy(regions),
        table=count_regions(regions),
        fill=float(images.mean()),
    )


def training_scans(
    dataset: Dataset,
    intensity: str | Intensity,
    *,
    cases: Sequence[str] | None = None,
    supervoxels: Supervoxels | None = None,
    grid: GridTable | None = None,
) -> list[TrainingScan]:
    """Reads scans of a dataset for training, without their labels, as a run does with its training cases.

    Nothing is kept between calls: cutting a large scan takes seconds.

    Args:
        dataset: Where the scans come from.
        intensity: The intensity rule, or its name as the backbone's attribute `intensity` says.
        cases: Which scans to read; all of the dataset when omitted.
        supervoxels: How they are cut into regions; `Felzenszwalb()` when omitted.
        grid: The working grid; that of a recipe which says nothing of it when omitted.

    Raises:
        DataError: A scan cannot be read, or there is no such intensity rule.

    Example:
        >>> from fsseg.datasets import AbdomenPhantom
        >>> scans = training_scans(AbdomenPhantom(count=2, size=64), "zscore")
        >>> [scan.case for scan in scans], scans[0].slice_size
        (['phantom_01', 'phantom_02'], (64, 64))
    """
    method = supervoxels or registry().build("supervoxels", USUAL_SUPERVOXELS, {})
    options = (grid or GridTable()).model_dump()
    volumes = [on_working_grid(dataset.load(case), options) for case in cases or dataset.cases]
    rule = rule_of(intensity) if isinstance(intensity, str) else intensity
    pooled = "training" in (dataset.statistics, rule.statistics)
    together = [volume.image for volume in volumes] if pooled else None
    scans = []
    for volume in volumes:
        scaling = measure(rule, together or [volume.image])
        scans.append(training_scan(volume, cut(volume, method, dataset), scaling))
    return scans
