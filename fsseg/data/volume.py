"""Scans before they are tensors: the value that datasets give, and what a dataset and a supervoxel method must offer.

Nothing here loads torch, so that worker processes which only read and cut scans stay small.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int32, Integer

from fsseg.data.grids import FileGrid, WorkingGrid
from fsseg.recipe.protocols import FoldScheme


@dataclass(frozen=True)
class Volume:
    """One scan, slices first.

    Attributes:
        case: The case's id, unique in its dataset.
        image: Intensities as stored (a backbone's intensity rule is applied later).
        labels: Class values, 0 is background, those of a dataset in uint8; None for a scan without ground truth.
        spacing: Voxel size in mm along (slice, height, width).
        grid: How these voxels lie in the scan's file.
        working: How the slices were resized from the scan's own; None on its own grid.
    """

    case: str
    image: Float[np.ndarray, "slice height width"]
    labels: Integer[np.ndarray, "slice height width"] | None
    spacing: tuple[float, float, float]
    grid: FileGrid
    working: WorkingGrid | None = None


@runtime_checkable
class Dataset(Protocol):
    """A set of scans with their labels."""

    name: str
    """What tables call it."""
    classes: dict[int, str]
    """Name of each label value, without the background 0."""
    supervoxel_min_size: int | None
    """Voxels of the scans' own grid that a supervoxel should have at least, where the recipe does not say; None for a
    number that follows from the size of the scan."""
    statistics: Literal["volume", "training"]
    """Where intensity rules take their statistics from: each volume by itself, or the fold's training scans."""
    folds: FoldScheme
    """How its cases are divided, where the recipe does not say."""

    @property
    def cases(self) -> list[str]:
        """Ids in the order that folds count in."""
        ...

    def load(self, case: str) -> Volume:
        """The scan of this case, the same each time; raises DataError for a file that cannot be used.

        Several threads may ask at a time.
        """
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A dataset that can tell whether a case has changed without reading its voxels; a run then starts without them."""

    def fingerprint(self, case: str) -> str:
        """Stands for the case's voxels and how they are read: sizes and times of its files, and options, for example."""
        ...


@runtime_checkable
class StoredSupervoxels(Protocol):
    """A dataset that comes with supervoxels of its own."""

    def load_supervoxels(self, case: str) -> Int32[np.ndarray, "slice height width"]:
        """The published supervoxels of this case, 0 outside the body."""
        ...


@runtime_checkable
class Supervoxels(Protocol):
    """Cuts a scan into the regions that serve as pseudo-classes in training."""

    def __call__(self, volume: Volume, dataset: Dataset) -> Int32[np.ndarray, "slice height width"]:
        """A region id per voxel; 0 is never sampled."""
        ...
