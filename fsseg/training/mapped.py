"""Training scans that stay on disk: slices and supervoxels are mapped into memory, so that only those are read of which
an episode is made. A damaged entry is made again.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fsseg.data.cache import cache_folder, one_header_at_a_time
from fsseg.data.supervoxels.regions import RegionTable
from fsseg.system.files import replacing
from fsseg.training.scans import TrainingScan


def kept_training_scan(case: str, key: str, make: Callable[[], TrainingScan]) -> TrainingScan:
    """The training scan under this key with its arrays mapped from disk; made and written if it is not there yet."""
    folder = cache_folder() / "training" / key
    try:
        return _mapped_scan(case, folder)
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        scan = make()
        table = np.column_stack([scan.table.ids, scan.table.counts])
        for name, array in {
            "images": scan.images.numpy(),
            "supervoxels": scan.supervoxels.numpy(),
            "table": table,
        }.items():
            with replacing(folder / f"{name}.npy") as unfinished, unfinished.open("wb") as file:
                np.save(file, np.ascontiguousarray(array))
        with replacing(folder / "about.json") as unfinished:  # last: it says that the rest is there
            unfinished.write_text(json.dumps({"fill": scan.fill}), encoding="utf-8")
        return _mapped_scan(case, folder)


def _mapped_scan(case: str, folder: Path) -> TrainingScan:
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    images, supervoxels = (map_array(folder / f"{name}.npy") for name in ("images", "supervoxels"))
    with one_header_at_a_time:
        table = np.load(folder / "table.npy", allow_pickle=False)
    if images.shape != supervoxels.shape or table.shape[1] != 1 + len(images):
        raise ValueError(f"{folder}: arrays of different scans")
    return TrainingScan(
        case, images, supervoxels, RegionTable(table[:, 0], table[:, 1:]), float(about["fill"])
    )


def map_array(path: Path) -> Tensor:
    """The array of a .npy file as a tensor that is read from disk where it is looked at; not to be written to.

    Unlike numpy's, torch's map does not keep the file open, of which a process may have a thousand or so. Raises
    ValueError for a file that is not whole, or whose last axis does not run fastest.
    """
    with path.open("rb") as file, one_header_at_a_time:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path}: not written by this version")
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
        start, size = file.tell(), path.stat().st_size
    if in_columns or size - start != dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{path}: has {size} bytes, or its first axis runs fastest")
    plain = torch.from_numpy(np.empty(0, dtype)).dtype
    return (
        torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)[start:]
        .view(plain)
        .view(shape)
    )
