"""The supervoxels of a scan, computed once and kept by content."""

import numpy as np
from jaxtyping import Int32

from fsseg.data.cache import Note, cached, content_key
from fsseg.data.supervoxels.regions import default_min_size
from fsseg.data.supervoxels.stored import Stored
from fsseg.data.volume import Volume
from fsseg.interfaces import Dataset, Supervoxels


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
        return method(volume, dataset)
    voxels = min_size or default_min_size(volume, dataset)
    key = content_key(identity, voxels, volume.spacing, volume.image)
    return cached("supervoxels", key, lambda: method(volume, dataset), note)
