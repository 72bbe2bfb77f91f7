"""Where a scan's supervoxels are: pixel counts per region and slice, so that sampling never scans the volume."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Integer

from fsseg.data.volume import Volume
from fsseg.interfaces import Dataset

USUAL_VOXELS = 256 * 256 * 36
"""Voxels of an abdominal MR scan in the published experiments."""

USUAL_MIN_SIZE = 5000
"""Voxels of its supervoxels at least."""

USUAL_PIXELS = 256 * 256
"""A slice in the published experiments, to which rules in pixels refer."""


def default_min_size(volume: Volume, dataset: Dataset) -> int:
    """Returns how many voxels a region has at least, on the volume's grid.

    That is the dataset's number, or the usual share of a scan's voxels where it has none.
    """
    if dataset.supervoxel_min_size is None:
        voxels = USUAL_MIN_SIZE * math.prod(volume.shape) / USUAL_VOXELS
    elif volume.working is None:
        voxels = dataset.supervoxel_min_size
    else:
        voxels = dataset.supervoxel_min_size * volume.working.area_ratio
    return max(1, round(voxels))


def scaled_pixels(pixels: int, height: int, width: int) -> int:
    """Returns a number of pixels of a 256 x 256 slice, scaled to a slice of this size."""
    scaled = pixels * height * width / USUAL_PIXELS
    return max(1, round(scaled))


@dataclass(frozen=True)
class RegionTable:
    """Pixel counts of a scan's regions, so that sampling need not look at voxels.

    Attributes:
        ids: The regions that may be sampled, ascending, 0 excluded.
        counts: Pixels of each of them in each slice.

    Example:
        >>> regions = np.array([[[0, 5, 5]], [[5, 5, 7]]], dtype=np.int32)  # two slices of a row of three pixels
        >>> table = count_regions(regions)
        >>> table.ids.tolist(), table.counts.tolist()
        ([5, 7], [[2, 2], [0, 1]])
        >>> table.slices_of(0, min_pixels=1).tolist()
        [0, 1]
    """

    ids: Int[np.ndarray, "region"]
    counts: Int[np.ndarray, "region slice"]

    def slices_of(self, region: int, min_pixels: int) -> Int[np.ndarray, "slice"]:
        """Returns the slices in which the region (an index into `ids`) has more than `min_pixels` pixels."""
        return np.flatnonzero(self.counts[region] > min_pixels)

    def can_be_sampled(self, min_pixels: int, min_slice_pixels: int) -> bool:
        """Returns whether any region gives a pair of slices.

        Args:
            min_pixels: The first of a pair has so many of the region's pixels at least.
            min_slice_pixels: Both have more than so many.
        """
        enough = self.counts > min_slice_pixels
        from_the_end = np.cumsum(enough[:, ::-1], axis=1)
        from_here_on = from_the_end[:, ::-1]
        followed = from_here_on > 1  # the first of a pair is any listed slice but the last
        large = self.counts >= min_pixels
        return bool((enough & followed & large).any())


DENSE = 4
"""Region ids are counted one by one up to so many for each pixel of a slice."""

LARGEST_ID = np.iinfo(np.int32).max


def problem_of_regions(regions: Any, shape: tuple[int, ...]) -> str | None:
    """Returns what is wrong with what a method gave for a scan of this shape, as a sentence without its beginning."""
    if not isinstance(regions, np.ndarray) or regions.dtype.kind not in "iu":
        got = getattr(regions, "dtype", type(regions).__name__)
        return f"{got}, expected an array of whole numbers"
    if regions.shape != shape:
        sizes = [" x ".join(str(length) for length in each) for each in (regions.shape, shape)]
        return f"regions of {sizes[0]} voxels, expected {sizes[1]} as the image"
    if regions.min() < 0:
        return (
            f"the region id {regions.min()}, expected ids from 1 up, and 0 for what is in no region"
        )
    return None


def small_numbers(
    regions: Integer[np.ndarray, "slice height width"],
) -> Int32[np.ndarray, "slice height width"]:
    """Returns region ids that 32 bits hold: those that they do not hold are counted from 1, in their order."""
    if regions.max() <= LARGEST_ID:
        return regions.astype(np.int32, copy=False)
    ids = np.unique(regions[regions > 0])
    ranks = np.searchsorted(ids, regions) + 1
    return np.where(regions > 0, ranks, 0).astype(np.int32)


def count_regions(supervoxels: Int[np.ndarray, "slice height width"]) -> RegionTable:
    """Returns the table of a supervoxel map, whose ids may be far apart."""
    if supervoxels.max() < DENSE * supervoxels[0].size:
        return _count(supervoxels)
    # A table by id would have a row for every number in between.
    ids, ranks = np.unique(supervoxels, return_inverse=True)
    by_rank = _count(1 + ranks.reshape(supervoxels.shape))
    is_region = ids != 0
    return RegionTable(ids[is_region].astype(np.int64), by_rank.counts[is_region])


def _count(supervoxels: Int[np.ndarray, "slice height width"]) -> RegionTable:
    """The table of a supervoxel map whose ids are not far above the number of its regions."""
    slices = len(supervoxels)
    end = int(supervoxels.max()) + 1
    # Numbers that no other slice has, so that all slices are counted at once.
    numbers = supervoxels.reshape(slices, -1).astype(np.int64)
    offsets = np.arange(slices) * end
    numbers += offsets[:, None]
    counts = np.bincount(numbers.ravel(), minlength=slices * end)
    by_region = counts.reshape(slices, end).T
    pixels = by_region.sum(axis=1)
    ids = np.flatnonzero(pixels)
    ids = ids[ids != 0]
    return RegionTable(ids, by_region[ids])
