"""Training scans that stay on disk, mapped into memory: only those slices are read of which an episode is made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
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
from fsseg.errors import DataError
from fsseg.training.scans import TrainingScan


@dataclass(frozen=True)
class MappedScan(TrainingScan):
    """A training scan whose voxels lie in a file.

    Attributes:
        path: The file.
        checksum: Of its voxels, which are held against it when an episode asks for some of them first.
    """

    path: Path
    checksum: str
    _checked: list[bool] = field(default_factory=list, repr=False, compare=False)

    def require_undamaged(self) -> None:
        """Raises DataError for voxels that are not those that were kept; the file is removed, and made anew next time."""
        if self._checked:
            return
        if _voxel_checksum(self) != self.checksum:
            self.path.unlink(missing_ok=True)
            raise DataError(
                f"{self.path}: damaged (its voxels have another checksum), expected the scan of case {self.case} as it "
                "was kept for training; it is removed, run again and it is made anew"
            )
        self._checked.append(True)


def kept_training_scan(
    case: str,
    key: str,
    make: Callable[[], TrainingScan],
    note: Note = lambda text: None,
) -> TrainingScan:
    """Returns the training scan under this key with its slices mapped from disk, made and written if it is not there yet.

    Args:
        case: The case's id.
        key: Stands for all that the scan depends on.
        make: Makes it.
        note: Hears of a damaged entry, which is made again.
    """
    path = cache_folder() / "training" / f"{key}{SUFFIX}"
    scan = read_kept(path, partial(_map_scan, case), note)
    if scan is not None:
        return scan
    _write_scan(path, make())
    return _map_scan(case, path)


def _write_scan(path: Path, scan: TrainingScan) -> None:
    table = scan.table
    arrays = {
        "images": scan.images.numpy(),
        "supervoxels": scan.supervoxels.numpy(),
        "ids": table.ids,
        "counts": table.counts,
    }
    checksum = _voxel_checksum(scan)
    about = {
        "fill": repr(scan.fill),
        "voxels": checksum,
        "content": content_key(table.ids, table.counts, scan.fill, checksum),
    }
    write_arrays(path, arrays, about)


def _map_scan(case: str, path: Path) -> TrainingScan:
    """Maps a file; the checksum of the voxels is compared later, since they would have to be read for it.

    A map of safetensors keeps no file open, of which a process may have a thousand or so.
    """
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        images = file.get_tensor("images")
        supervoxels = file.get_tensor("supervoxels")
        ids = file.get_tensor("ids").numpy().copy()
        counts = file.get_tensor("counts").numpy().copy()
    fill = float(about["fill"])
    checksum = about["voxels"]
    require_content(about, ids, counts, fill, checksum)
    size_of_table = (len(ids), len(images))
    shape = torch.Size([len(images), *images.shape[-2:]])
    if shape != supervoxels.shape or counts.shape != size_of_table:
        raise ValueError("arrays of different scans")
    table = RegionTable(ids, counts)
    return MappedScan(case, images, supervoxels, table, fill, path, checksum)


def _voxel_checksum(scan: TrainingScan) -> str:
    return content_key(scan.images.numpy(), scan.supervoxels.numpy())
