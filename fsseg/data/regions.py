"""Where a scan's supervoxels are: pixel counts per region and slice, so that sampling never scans the volume."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


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
