"""Facts about scans that need none of their voxels, kept between runs. Without torch, so that worker processes stay small.

A run may have thousands of scans. What it asks of each at the start (has it labels, which slices show what, has it
changed) is kept as a few numbers under the dataset's fingerprint of the case. A damaged entry is made again.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from fsseg.data.cache import Note, cache_folder, content_key, read_kept
from fsseg.data.supervoxels.regions import default_min_size
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.interfaces import Dataset, Fingerprinted
from fsseg.system.files import write_json


@dataclass(frozen=True)
class Facts:
    """A few numbers that are known of a scan without its voxels.

    Attributes:
        image: Stands for the image on the working grid and its spacing.
        scan: Stands for image, labels, spacing and affine matrix on the scan's own grid.
        size: Its slices, and their height and width on the working grid.
        min_size: Voxels that its supervoxels should have, where the recipe is silent.
        shown: The labels of each slice on the scan's own grid, without background; None for a scan without labels.
        working: The same on the working grid, which may lose small ones.
        channels: Its number of channels.
    """

    image: str
    scan: str
    size: list[int]
    min_size: int
    shown: list[list[int]] | None
    working: list[list[int]] | None
    channels: int

    @staticmethod
    def of(own: Volume, volume: Volume, dataset: Dataset) -> "Facts":
        """Returns the facts of a scan, given on its own and on the working grid."""
        return Facts(
            image=image_key(volume),
            scan=scan_key(own),
            size=list(volume.shape),
            channels=len(volume.by_channel),
            min_size=default_min_size(volume, dataset),
            shown=_labels_by_slice(own),
            working=_labels_by_slice(volume),
        )


def image_key(volume: Volume) -> str:
    """Returns what stands for a scan's image and spacing."""
    return content_key(volume.image, volume.spacing)


def scan_key(own: Volume) -> str:
    """Returns what stands for everything about a scan on its own grid that counts in an evaluation."""
    return content_key(own.image, own.labels, own.spacing, own.grid.affine)


def kept_facts(
    dataset: Dataset,
    case: str,
    identity: str,
    make: Callable[[], Facts],
    note: Note = lambda text: None,
) -> Facts:
    """Returns the facts of a case, made once for as long as its fingerprint stays the same.

    Args:
        dataset: The dataset; one without fingerprints has its facts made each time.
        case: The case.
        identity: Stands for how scans are read and resized.
        make: Makes the facts from the voxels.
        note: Hears of a damaged entry, which is made again.
    """
    if not isinstance(dataset, Fingerprinted):
        return make()
    path = _path(dataset, case, identity)
    facts = read_kept(path, _read, note)
    if facts is None:
        facts = make()
        values = asdict(facts)
        write_json(path, {"content": _checksum(values), "facts": values})
    return facts


def require_same(own: Volume, facts: Facts, dataset: Dataset, identity: str) -> None:
    """Raises DataError for a scan that is no longer the one that the facts are of; the next run looks at it again."""
    if scan_key(own) == facts.scan:
        return
    if isinstance(dataset, Fingerprinted):
        _path(dataset, own.case, identity).unlink(missing_ok=True)
    raise DataError(
        f"case {own.case}: it has other voxels than when the run looked at it first, expected scans to stay as they are "
        "while a run uses them; run again"
    )


def require_labels(case: str, facts: Facts) -> None:
    """Raises DataError for a scan that cannot be evaluated."""
    if facts.shown is None:
        raise no_labels(case)


def no_labels(case: str) -> DataError:
    """Returns the error for a case that cannot be evaluated."""
    return DataError(
        f"case {case}: it has no labels, expected them for evaluation; add its label file"
    )


def slices_showing(case: str, facts: Facts, classes: dict[int, str]) -> Bool[np.ndarray, "slice"]:
    """Returns which slices show any of the classes, by their values; raises DataError for a scan without labels."""
    if facts.shown is None:
        names = " or ".join(classes.values())
        raise DataError(
            f"case {case}: it has no labels, but episodes.setting is 2, expected them to leave out the slices that "
            f"show {names}; add its label file, or set episodes.setting to 1"
        )
    return np.array([not classes.keys().isdisjoint(values) for values in facts.shown])


def _path(dataset: Any, case: str, identity: str) -> Path:
    """The file of a case's facts; the dataset is one with fingerprints."""
    key = content_key(identity, dataset.supervoxel_min_size, dataset.fingerprint(case))
    return cache_folder() / "facts" / f"{key}.json"


def _read(path: Path) -> Facts:
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["content"] != _checksum(kept["facts"]):
        raise ValueError("its checksum is another")
    return Facts(**kept["facts"])


def _checksum(values: dict[str, Any]) -> str:
    return content_key(json.dumps(values, sort_keys=True))


def _labels_by_slice(volume: Volume) -> list[list[int]] | None:
    if volume.labels is None:
        return None
    return [np.setdiff1d(np.unique(labels), [0]).tolist() for labels in volume.labels]
