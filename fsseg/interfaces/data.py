"""Contracts of what reads and cuts scans: datasets, intensity rules, supervoxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int32

    from fsseg.data.folds import FoldScheme
    from fsseg.data.volume import Volume


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
class Intensity(Protocol):
    """Scales the intensities of scans, after it has measured them.

    Both methods get images of one channel, on the working grid; of a scan with several channels each is measured and
    scaled by itself. What is measured is kept with a run and goes with its export, so that new scans are scaled alike.
    """

    statistics: ClassVar[Literal["dataset", "training"]]
    """"training" for a rule that has to be measured on the training scans of a fold; "dataset" for one that may as well
    be measured on each scan by itself, as the dataset's `statistics` says."""

    def measure(self, images: Sequence[Float[np.ndarray, "slice height width"]]) -> dict[str, Any]:
        """What `scale` needs to know, as JSON; empty for nothing.

        `images` is one scan, or the training scans of a fold, each of which is read when it is looked at.
        """
        ...

    def scale(
        self, image: Float[np.ndarray, "slice height width"], measured: dict[str, Any]
    ) -> Float[np.ndarray, "slice height width"]:
        """The scaled image; `measured` is what `measure` returned, perhaps of other scans."""
        ...


@runtime_checkable
class Supervoxels(Protocol):
    """Cuts a scan into the regions that serve as pseudo-classes in training."""

    def __call__(self, volume: Volume, dataset: Dataset) -> Int32[np.ndarray, "slice height width"]:
        """A region id per voxel; 0 is never sampled."""
        ...
