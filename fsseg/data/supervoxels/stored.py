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
        """Returns the dataset's region ids, on the volume's grid; raises DataError for a dataset without, or other sizes."""
        if not isinstance(dataset, StoredSupervoxels):
            name = type(dataset).__name__
            raise DataError(
                f'supervoxels stored: {name} has none of its own; use supervoxels = "felzenszwalb"'
            )
        regions = dataset.load_supervoxels(volume.case)
        if volume.working is not None:
            regions = volume.working.labels(regions)
        if regions.shape != volume.shape:
            raise DataError(
                f"supervoxels of case {volume.case}: shape {_size(regions.shape)} (slices, height, width), expected "
                f'{_size(volume.shape)} as the image; compute them with supervoxels = "felzenszwalb"'
            )
        return regions


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
