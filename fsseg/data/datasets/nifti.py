"""Reading a scan: image and labels from NIfTI files, and everything that can be wrong with them."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Num

from fsseg.data.datasets.description import Description
from fsseg.data.grids import find_grid
from fsseg.data.volume import Volume
from fsseg.errors import DataError

SAME_PLACE = 1e-2
"""Elements of two affines that differ by no more (mm) are those of one grid."""


@dataclass(frozen=True)
class ScanFile:
    """A three-dimensional scan as stored.

    Attributes:
        path: Its file.
        voxels: In the file's own order of axes.
        affine: Voxel indices to mm.
        voxel_sizes: Along the file's axes, mm.
    """

    path: Path
    voxels: np.ndarray
    affine: np.ndarray
    voxel_sizes: tuple[float, float, float]


UNREADABLE = (
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    EOFError,
    OSError,
    zlib.error,
    ValueError,
)
"""What reading a damaged file raises."""


def read_nifti(path: Path, channel: int | None = None) -> ScanFile:
    """Reads a file; scaled integers come as float32.

    Args:
        path: The file.
        channel: Of a file with several channels (a fourth axis); None refuses such files.

    Raises:
        DataError: It is missing, cut off, not NIfTI, in colours, not three-dimensional or nowhere in space.
    """
    try:
        file: Any = nibabel.load(path)
        voxels = np.asanyarray(file.dataobj)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; expected a NIfTI image") from None
    except UNREADABLE as error:
        raise DataError(
            f"{path}: cannot be read as NIfTI ({error}); it is damaged or cut off, copy it again"
        ) from None
    if voxels.dtype.fields is not None or np.iscomplexobj(voxels):
        raise DataError(
            f"{path}: has colours (RGB) or complex numbers, expected one number per voxel; convert it to grey values or labels"
        )
    stored_as_integers = file.get_data_dtype().kind in "iu"
    if stored_as_integers and voxels.dtype.kind == "f":  # scl_slope and scl_inter
        voxels = voxels.astype(np.float32)
    native = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    alone = one_channel(path, native, channel)  # a header of fewer dimensions has fewer sizes, too
    affine = np.asarray(file.affine, dtype=np.float64)
    check_affine(path, affine)
    x, y, z = (float(size) for size in file.header.get_zooms()[:3])
    return ScanFile(path, alone, affine, (x, y, z))


def one_channel(path: Path, voxels: np.ndarray, channel: int | None) -> Num[np.ndarray, "x y z"]:
    """Returns three-dimensional voxels; raises DataError where a fourth axis leaves a choice that `channel` does not make."""
    channels = voxels.shape[3] if voxels.ndim == 4 else 0
    if channels == 1:
        channel = 0
    if channels and channel is not None:
        if channel >= channels:
            raise DataError(
                f"{path}: has {channels} channels, expected one with number {channel}; check --channel"
            )
        voxels = voxels[..., channel]
    if voxels.ndim != 3:
        raise DataError(
            f"{path}: has {voxels.ndim} dimensions ({_sizes(voxels)}), expected 3; split it into one file per channel or time"
        )
    return voxels


def check_affine(path: Path, affine: Float[np.ndarray, "4 4"]) -> None:
    """Raises DataError for an affine that has no inverse."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(
            f"{path}: its affine maps voxels to no place in space, expected an invertible one; repair the header"
        )


def image_problems(image: ScanFile) -> Iterator[str]:
    """Yields a sentence for what makes an image unusable."""
    voxels = image.voxels
    count = int((~np.isfinite(voxels)).sum())
    if count:
        yield f"{image.path}: {count} voxels are NaN or infinite, expected finite intensities; repair the image"
    elif voxels.min() == voxels.max():
        yield f"{image.path}: every voxel is {voxels.flat[0]:g}, expected an image; repair or remove the case"


def label_problems(labels: ScanFile, described: Description) -> Iterator[str]:
    """Yields a sentence for what makes a label map unusable."""
    is_integer = np.issubdtype(labels.voxels.dtype, np.integer)
    others_are_background = described.other_labels == "background"
    if others_are_background and is_integer:
        return
    known = {0: "background"}
    for name, values in described.class_values.items():
        known |= dict.fromkeys(values, name)
    strange = [value for value in np.unique(labels.voxels).tolist() if value not in known]
    if others_are_background:
        strange = [value for value in strange if not float(value).is_integer()]
    if strange:
        shown = first_few([f"{value:g}" for value in strange])
        expected = ", ".join(f"{value} {name}" for value, name in known.items() if value)
        yield (
            f"{labels.path}: has labels {shown}, expected 0 and {expected}; name the classes in the dataset's description "
            '(or set other_labels = "background" there), or correct the file'
        )


def pair_problems(image: ScanFile, labels: ScanFile) -> Iterator[str]:
    """Yields a sentence for what keeps a label map from lying on its image."""
    if labels.voxels.shape != image.voxels.shape:
        yield (
            f"{labels.path}: has shape {_sizes(labels.voxels)}, expected {_sizes(image.voxels)} as {image.path.name}; "
            "resample the labels to the image's grid"
        )
        return
    if np.allclose(labels.affine, image.affine, atol=SAME_PLACE):
        return
    codes = _axis_codes(labels.affine)
    expected = _axis_codes(image.affine)
    if codes != expected:
        yield (
            f"{labels.path}: its axes run towards {codes}, expected {expected} as those of {image.path.name}; "
            "turn the labels as the image, or copy the image's header if only the header is wrong"
        )
    else:
        yield (
            f"{labels.path}: its affine differs from that of {image.path.name}, expected the same grid; "
            "resample the labels to the image or copy the image's header"
        )


def scan_problems(image: ScanFile, labels: ScanFile, described: Description) -> list[str]:
    """Returns a sentence for everything that makes a scan unusable."""
    return [
        *image_problems(image),
        *label_problems(labels, described),
        *pair_problems(image, labels),
    ]


def make_volume(case: str, image: ScanFile, labels: ScanFile, described: Description) -> Volume:
    """Returns the scan, slices first, clipped and with the classes' numbers for labels."""
    grid = find_grid(
        image.affine, image.voxel_sizes, axis=described.axis, orientation=described.orientation
    )
    across, row, column = (image.voxel_sizes[axis] for axis in grid.axes)
    numbered = _number_classes(labels.voxels, described)
    return Volume(
        case,
        image=described.intensity.clip(grid.from_file(image.voxels)),
        labels=grid.from_file(numbered),
        spacing=(across, row, column),
        grid=grid,
    )


def load_volume(case: str, image_path: Path, label_path: Path, described: Description) -> Volume:
    """Returns the scan of a case; raises DataError listing everything that is wrong with its files."""
    image = read_nifti(image_path)
    labels = read_nifti(label_path)
    problems = scan_problems(image, labels, described)
    if problems:
        raise DataError("\n".join(problems))
    return make_volume(case, image, labels, described)


def first_few(texts: Sequence[str], most: int = 5) -> str:
    """Returns the first of some texts in a list, and dots where there are more."""
    listed = list(texts[:most])
    if len(texts) > most:
        listed.append("...")
    return ", ".join(listed)


def _number_classes(labels: np.ndarray, described: Description) -> np.ndarray:
    numbers = described.numbers
    numbered = np.zeros(labels.shape, dtype=np.uint8)
    for name, values in described.class_values.items():
        numbered[np.isin(labels, values)] = numbers[name]
    return numbered


def _axis_codes(affine: np.ndarray) -> str:
    return "".join(code or "?" for code in nibabel.aff2axcodes(affine))


def _sizes(array: np.ndarray) -> str:
    return " x ".join(str(size) for size in array.shape)
