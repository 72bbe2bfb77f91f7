"""The supervoxels of a scan, computed once and kept by content."""

import numpy as np
from jaxtyping import Int32

from fsseg.data.cache import Note, cached, content_key
from fsseg.data.supervoxels.regions import default_min_size, problem_of_regions, small_numbers
from fsseg.data.supervoxels.stored import Stored
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.interfaces import Dataset, Supervoxels
from fsseg.plugins.blame import described


def cached_supervoxels(
    volume: Volume,
    method: Supervoxels,
    dataset: Dataset,
    identity: str,
    min_size: int | None = None,
    note: Note = lambda text: None,
) -> Int32[np.ndarray, "slice height width"]:
    """Returns the supervoxels of a scan, computed once (those that a dataset comes with are read each time).

    Args:
        volume: The scan.
        method: The method.
        dataset: The scan's dataset.
        identity: Stands for the method, its other options and its source; the rest of the key is the scan itself.
        min_size: The method's option of this name, if it has one and it was given.
        note: Hears of a damaged entry, which is computed again.
    """
    if isinstance(method, Stored):
        return cut(volume, method, dataset)
    voxels = min_size or default_min_size(volume, dataset)
    key = content_key(identity, voxels, volume.spacing, volume.image)
    return cached("supervoxels", key, lambda: cut(volume, method, dataset), note)


def cut(
    volume: Volume, method: Supervoxels, dataset: Dataset
) -> Int32[np.ndarray, "slice height width"]:
    """Returns the supervoxels that a method makes of a scan.

    Raises:
        DataError: They are no regions of this scan; the message names the method and its distribution.
    """
    regions = method(volume, dataset)
    problem = problem_of_regions(regions, volume.shape)
    if problem is not None:
        raise DataError(
            f"{described('supervoxels', method)}: for case {volume.case} it gives {problem}; correct it, or set "
            'supervoxels to "felzenszwalb"'
        )
    return small_numbers(regions)
