"""Supervoxels that a dataset comes with."""

import numpy as np
from jaxtyping import Int32

from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.interfaces import Dataset, StoredSupervoxels
from fsseg.plugins.options import component


@component
class Stored:
    """The supervoxels that a dataset comes with, for datasets that do (chaos_t2)."""

    def __init__(self) -> None:
        pass

    def __call__(self, volume: Volume, dataset: Dataset) -> Int32[np.ndarray, "slice height width"]:
        if not isinstance(dataset, StoredSupervoxels):
            raise DataError(
                f'supervoxels stored: {type(dataset).__name__} has none of its own; use supervoxels = "felzenszwalb"'
            )
        regions = dataset.load_supervoxels(volume.case)
        if volume.working is not None:
            regions = volume.working.labels(regions)
        if regions.shape != volume.image.shape:
            sizes = [
                " x ".join(str(size) for size in array.shape) for array in (regions, volume.image)
            ]
            raise DataError(
                f"supervoxels of case {volume.case}: shape {sizes[0]} (slices, height, width), expected {sizes[1]} as the "
                'image; compute them with supervoxels = "felzenszwalb"'
            )
        return regions
