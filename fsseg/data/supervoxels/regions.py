"""Where a scan's supervoxels are: pixel counts per region and slice, so that sampling never scans the volume."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from fsseg.data.volume import Volume
from fsseg.interfaces import Dataset

USUAL_VOXELS, USUAL_MIN_SIZE = 256 * 256 * 36, 5000
"""An abdominal MR scan and the least size of its supervoxels in the published experiments."""

USUAL_PIXELS = 256 * 256
"""A slice in the published experiments, to which rules in pixels refer."""


def default_min_size(volume: Volume, dataset: Dataset) -> int:
    """Voxels of a region at least, on the volume's grid: the dataset's number, or the usual share of a scan's voxels."""
    if dataset.supervoxel_min_size is None:
        return max(1, round(USUAL_MIN_SIZE * volume.image.size / USUAL_VOXELS))
    ratio = 1.0 if volume.working is None else volume.working.area_ratio
    return max(1, round(dataset.supervoxel_min_size * ratio))


def scaled_pixels(pixels: int, height: int, width: int) -> int:
    """A number of pixels of a 256 x 256 slice, scaled to a slice of this size."""
    return max(1, round(pixels * height * width / USUAL_PIXELS))


@dataclass(frozen=True)
class RegionTable:
    """Pixel counts of a scan's regions.

    Attributes:
        ids: The regions that may be sampled, ascending, 0 excluded.
        counts: Pixels of each of them in each slice.
    """

    ids: Int[np.ndarray, "region"]
    counts: Int[np.ndarray, "region slice"]

    def slices_of(self, region: int, min_pixels: int) -> Int[np.ndarray, "slice"]:
        """Slices in which the region (an index into `ids`) has more than `min_pixels` pixels."""
        return np.flatnonzero(self.counts[region] > min_pixels)

    def can_be_sampled(self, min_pixels: int, min_slice_pixels: int) -> bool:
        """Whether any region gives a pair of slices of which the first is large enough."""
        enough = self.counts > min_slice_pixels
        # The first of a pair is any listed slice but the last.
        followed = np.flip(np.cumsum(np.flip(enough, axis=1), axis=1), axis=1) > 1
        return bool((enough & followed & (self.counts >= min_pixels)).any())


def count_regions(supervoxels: Int[np.ndarray, "slice height width"]) -> RegionTable:
    """The table of a supervoxel map."""
    slices, top = len(supervoxels), int(supervoxels.max()) + 1
    flat = supervoxels.reshape(slices, -1).astype(np.int64) + np.arange(slices)[:, None] * top
    counts = np.bincount(flat.ravel(), minlength=slices * top).reshape(slices, top).T
    ids = np.flatnonzero(counts.sum(axis=1))
    ids = ids[ids != 0]
    return RegionTable(ids, counts[ids])
