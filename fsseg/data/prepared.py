"""What runs keep of a scan between them: facts that need none of its voxels, and training scans that stay on disk.

A run may have thousands of scans. What it asks of each at the start (has it labels, which slices show what, has it
changed) is kept as a few numbers under the dataset's fingerprint of the case; slices and supervoxels are mapped into
memory, so that only those are read of which an episode is made. A damaged entry is made again.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from fsseg.data.cache import cache_folder, content_key
from fsseg.data.regions import RegionTable, default_min_size
from fsseg.data.scans import TrainingScan, no_labels
from fsseg.errors import DataError
from fsseg.records import replacing
from fsseg.volumes import Dataset, Fingerprinted, Volume


@dataclass(frozen=True)
class Facts:
    """What is known of a scan without its voxels.

    Attributes:
        image: Stands for the image on the working grid and its spacing.
        scan: Stands for image, labels, spacing and affine matrix on the scan's own grid.
        size: Its slices, and their height and width on the working grid.
        min_size: Voxels that its supervoxels should have, where the recipe is silent.
        shown: The labels of each slice, without background; None for a scan without labels.
    """

    image: str
    scan: str
    size: list[int]
    min_size: int
    shown: list[list[int]] | None

    @staticmethod
    def of(own: Volume, volume: Volume, dataset: Dataset) -> "Facts":
        """The facts of a scan on its own and on the working grid."""
        labels = own.labels
        return Facts(
            image_key(volume),
            content_key(own.image, own.labels, own.spacing, own.grid.affine),
            list(volume.image.shape),
            default_min_size(volume, dataset),
            None if labels is None else [np.setdiff1d(np.unique(one), [0]).tolist() for one in labels],
        )


def image_key(volume: Volume) -> str:
    """Stands for a scan's image and spacing."""
    return content_key(volume.image, volume.spacing)


def kept_facts(dataset: Dataset, case: str, identity: str, make: Callable[[], Facts]) -> Facts:
    """The facts of a case, made once for as long as its fingerprint stays the same.

    Args:
        dataset: The dataset; one without fingerprints has its facts made each time.
        case: The case.
        identity: Stands for how scans are read and resized.
        make: Makes the facts from the voxels.
    """
    if not isinstance(dataset, Fingerprinted):
        return make()
    path = cache_folder() / "facts" / f"{content_key(identity, dataset.fingerprint(case))}.json"
    try:
        return Facts(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        facts = make()
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(asdict(facts)), encoding="utf-8")
        return facts


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
                np.save(file, array)
        with replacing(folder / "about.json") as unfinished:  # last: it says that the rest is there
            unfinished.write_text(json.dumps({"fill": scan.fill}), encoding="utf-8")
        return _mapped_scan(case, folder)


def _mapped_scan(case: str, folder: Path) -> TrainingScan:
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    images, supervoxels = (map_array(folder / f"{name}.npy") for name in ("images", "supervoxels"))
    table = np.load(folder / "table.npy", allow_pickle=False)
    if images.shape != supervoxels.shape or table.shape[1] != 1 + len(images):
        raise ValueError(f"{folder}: arrays of different scans")
    return TrainingScan(case, images, supervoxels, RegionTable(table[:, 0], table[:, 1:]), float(about["fill"]))


def map_array(path: Path) -> Tensor:
    """The array of a .npy file as a tensor that is read from disk where it is looked at; not to be written to.

    Unlike numpy's, torch's map does not keep the file open, of which a process may have a thousand or so. Raises
    ValueError for a file that is not whole.
    """
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path}: not written by this version")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start, size = file.tell(), path.stat().st_size
    if size - start != dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{path}: has {size} bytes")
    plain = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)[start:].view(plain).view(shape)


def require_labels(case: str, facts: Facts) -> None:
    """Raises DataError for a scan that cannot be evaluated."""
    if facts.shown is None:
        raise no_labels(case)


def slices_showing(case: str, facts: Facts, classes: dict[int, str]) -> Bool[np.ndarray, "slice"]:
    """Which slices show any of the classes; raises DataError for a scan without labels."""
    if facts.shown is None:
        raise DataError(
            f"case {case}: it has no labels, but episodes.setting is 2, expected them to leave out the slices that "
            f"show {' or '.join(classes.values())}; add its label file, or set episodes.setting to 1"
        )
    return np.array([not classes.keys().isdisjoint(values) for values in facts.shown])
