"""Scans for training: on the working grid, intensities ruled, supervoxels counted, and no labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from fsseg.data.intensity import Scaling, measure, rule_of
from fsseg.data.supervoxels.kept import cut
from fsseg.data.supervoxels.regions import (
    RegionTable,
    count_regions,
    problem_of_regions,
    small_numbers,
)
from fsseg.data.volume import Volume, on_working_grid
from fsseg.errors import DataError
from fsseg.interfaces import Dataset, EpisodeSource, Intensity, Supervoxels
from fsseg.plugins.blame import described
from fsseg.plugins.manager import registry
from fsseg.recipe.tables import GridTable
from fsseg.training.labels import training_classes, with_labels_of

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


def regions_for(
    source: Any,
    volume: Volume,
    cut_supervoxels: Callable[[], Int32[np.ndarray, "slice height width"]],
    classes: Mapping[int, str],
) -> Int32[np.ndarray, "slice height width"]:
    """The regions of which a source makes episodes: the supervoxels, or what it makes of the scan.

    Args:
        source: The source of episodes.
        volume: The scan, with all of its labels.
        cut_supervoxels: Cuts it into supervoxels.
        classes: The classes that the source may see, by label value.

    Raises:
        DataError: The source gives no regions of this scan, or there are no labels where it needs them.
    """
    make = getattr(source, "regions", None)
    if make is None:
        return cut_supervoxels()
    regions = make(with_labels_of(volume, classes), cut_supervoxels)
    problem = problem_of_regions(regions, volume.shape)
    if problem is not None:
        raise DataError(
            f"{described('episodes', source)}: for case {volume.case} it gives {problem}; correct it, or set "
            'episodes.source to "supervoxel_pairs"'
        )
    return small_numbers(regions)


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
    source: EpisodeSource | None = None,
    evaluated: Sequence[str] = (),
) -> list[TrainingScan]:
    """Reads scans of a dataset for training, as a run does with its training cases.

    There are no labels in them, but for those of the classes that a source of episodes trains on.

    Nothing is kept between calls: cutting a large scan takes seconds.

    Args:
        dataset: Where the scans come from.
        intensity: The intensity rule, or its name as the backbone's attribute `intensity` says.
        cases: Which scans to read; all of the dataset when omitted.
        supervoxels: How they are cut into regions; `Felzenszwalb()` when omitted.
        grid: The working grid; that of a recipe which says nothing of it when omitted.
        source: Where episodes will come from, which may make regions of its own; the supervoxels are the regions when
            omitted.
        evaluated: The classes that are evaluated, whose labels the source must not ask for.

    Raises:
        DataError: A scan cannot be read, or there is no such intensity rule.
        FssegError: The source asks for the labels of a class that is evaluated or that there is not.

    Example:
        >>> from fsseg.datasets import AbdomenPhantom
        >>> scans = training_scans(AbdomenPhantom(count=2, size=64), "zscore")
        >>> [scan.case for scan in scans], scans[0].slice_size
        (['phantom_01', 'phantom_02'], (64, 64))
    """
    classes = training_classes(getattr(source, "classes", ()), dataset.classes, evaluated)
    method = supervoxels or registry().build("supervoxels", USUAL_SUPERVOXELS, {})
    options = (grid or GridTable()).model_dump()
    volumes = [on_working_grid(dataset.load(case), options) for case in cases or dataset.cases]
    rule = rule_of(intensity) if isinstance(intensity, str) else intensity
    pooled = "training" in (dataset.statistics, rule.statistics)
    together = [volume.image for volume in volumes] if pooled else None
    scans = []
    for volume in volumes:
        scaling = measure(rule, together or [volume.image])
        regions = regions_for(source, volume, partial(cut, volume, method, dataset), classes)
        scans.append(training_scan(volume, regions, scaling))
    return scans
