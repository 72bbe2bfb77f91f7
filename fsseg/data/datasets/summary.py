"""A scan that can be read, in numbers and with a slice to look at: what the doctor keeps of it."""

import hashlib
from dataclasses import dataclass

import numpy as np

from fsseg.data.datasets.description import Description
from fsseg.data.datasets.nifti import ScanFile
from fsseg.data.geometry import axis_codes
from fsseg.data.volume import Volume


@dataclass(frozen=True)
class Snapshot:
    """The middle one of a scan's labelled slices, for the contact sheet.

    Attributes:
        image: Its intensities; those of each channel where there are several.
        labels: Its class numbers.
        pixel: Height and width of a pixel, mm.
    """

    image: np.ndarray
    labels: np.ndarray
    pixel: tuple[float, float]


@dataclass(frozen=True)
class CheckedCase:
    """A scan that can be read, in numbers.

    Attributes:
        case: Its id.
        shape: Slices, height and width.
        spacing: Along the same, mm.
        axes: Where the file's axes run, as in "LPS".
        content: A hash of the image's voxels.
        voxels: Voxels of each class.
        slices: Slices that show each class.
        snapshot: A slice to look at.
    """

    case: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    axes: str
    content: str
    voxels: dict[str, int]
    slices: dict[str, int]
    snapshot: Snapshot

    def volume(self, class_name: str) -> float:
        """Returns the volume of a class, ml."""
        cubic_millimetres = float(np.prod(self.spacing))
        return self.voxels[class_name] * cubic_millimetres / 1000


def summarise(volume: Volume, image: ScanFile, described: Description) -> CheckedCase:
    """Returns what is kept of a scan."""
    content = np.ascontiguousarray(volume.image).data
    voxels: dict[str, int] = {}
    slices: dict[str, int] = {}
    for name, number in described.numbers.items():
        mask = np.asarray(volume.marked == number)
        by_slice = mask.sum(axis=(1, 2))
        voxels[name] = int(by_slice.sum())
        slices[name] = int((by_slice > 0).sum())
    count, rows, columns = (int(length) for length in volume.shape)
    return CheckedCase(
        case=volume.case,
        shape=(count, rows, columns),
        spacing=volume.spacing,
        axes=axis_codes(image.affine),
        content=hashlib.sha256(content).hexdigest(),
        voxels=voxels,
        slices=slices,
        snapshot=_snapshot(volume),
    )


def _snapshot(volume: Volume) -> Snapshot:
    is_labelled = np.asarray(volume.marked.any(axis=(1, 2)))
    if not is_labelled.any():
        is_labelled[:] = True
    candidates = np.flatnonzero(is_labelled)
    middle = candidates[len(candidates) // 2]
    _, height, width = volume.spacing
    return Snapshot(
        image=volume.image[middle].copy(),
        labels=volume.marked[middle].copy(),
        pixel=(height, width),
    )
