"""Training scans that stay on disk: slices and supervoxels are mapped into memory, so that only those are read of which
an episode is made.
"""

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

from fsseg.data.cache import (
    SUFFIX,
    Note,
    cache_folder,
    content_key,
    read_kept,
    require_content,
    write_arrays,
)
from fsseg.data.supervoxels.regions import RegionTable
from fsseg.training.scans import TrainingScan


def kept_training_scan(
    case: str, key: str, make: Callable[[], TrainingScan], note: Note = lambda text: None
) -> TrainingScan:
    """Returns the training scan under this key with its slices mapped from disk, made and written if it is not there yet.

    Args:
        case: The case's id.
        key: Stands for all that the scan depends on.
        make: Makes it.
        note: Hears of a damaged entry, which is made again.
    """
    path = cache_folder() / "training" / f"{key}{SUFFIX}"
    read: Callable[[Path], TrainingScan] = lambda path: _map_scan(case, path)  # noqa: E731
    scan = read_kept(path, read, note)
    if scan is None:
        _write_scan(path, make())
        scan = read(path)
    return scan


def _write_scan(path: Path, scan: TrainingScan) -> None:
    table = {"ids": scan.table.ids, "counts": scan.table.counts}
    voxels = {"images": scan.images.numpy(), "supervoxels": scan.supervoxels.numpy()}
    about = {"fill": repr(scan.fill), "content": content_key(*table.values(), scan.fill)}
    write_arrays(path, voxels | table, about)


def _map_scan(case: str, path: Path) -> TrainingScan:
    """The checksum is not that of the voxels, which would have to be read for it.

    A map of safetensors keeps no file open, of which a process may have a thousand or so.
    """
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        images = file.get_tensor("images")
        supervoxels = file.get_tensor("supervoxels")
        ids = file.get_tensor("ids").numpy().copy()
        counts = file.get_tensor("counts").numpy().copy()
    fill = float(about["fill"])
    require_content(about, ids, counts, fill)
    if images.shape != supervoxels.shape or counts.shape != (len(ids), len(images)):
        raise ValueError("arrays of different scans")
    return TrainingScan(case, images, supervoxels, RegionTable(ids, counts), fill)
