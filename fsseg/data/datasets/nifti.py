"""Reading a scan: image and labels from NIfTI files, and everything that can be wrong with them."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
        file = nibabel.load(path)
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
    if voxels.dtype.kind == "f" and file.get_data_dtype().kind in "iu":  # scl_slope and scl_inter
        voxels = voxels.astype(np.float32)
    voxels = one_channel(path, voxels.astype(voxels.dtype.newbyteorder("="), copy=False), channel)
    affine = np.asarray(file.affine, dtype=np.float64)
    check_affine(path, affine)
    return ScanFile(
        path, voxels, affine, tuple(float(size) for size in file.header.get_zooms()[:3])
    )


def one_channel(path: Path, voxels: np.ndarray, channel: int | None) -> Num[np.ndarray, "x y z"]:
    """Three-dimensional voxels; raises DataError where a fourth axis leaves a choice that `channel` does not make."""
    if voxels.ndim == 4 and (voxels.shape[3] == 1 or channel is not None):
        wanted = channel if voxels.shape[3] > 1 else 0
        if wanted >= voxels.shape[3]:
            raise DataError(
                f"{path}: has {voxels.shape[3]} channels, expected one with number {wanted}; check --channel"
            )
        voxels = voxels[..., wanted]
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
    """What makes an image unusable."""
    voxels = image.voxels
    if not np.isfinite(voxels).all():
        count = int((~np.isfinite(voxels)).sum())
        yield f"{image.path}: {count} voxels are NaN or infinite, expected finite intensities; repair the image"
    elif voxels.min() == voxels.max():
        yield f"{image.path}: every voxel is {voxels.flat[0]:g}, expected an image; repair or remove the case"


def label_problems(labels: ScanFile, described: Description) -> Iterator[str]:
    """What makes a label map unusable."""
    if described.other_labels == "background" and np.issubdtype(labels.voxels.dtype, np.integer):
        return
    known = {value: name for name, values in described.class_values.items() for value in values}
    found = np.unique(labels.voxels)
    strange = [value for value in found.tolist() if value != 0 and value not in known]
    if described.other_labels == "background":
        strange = [value for value in strange if value != round(value)]
    if strange:
        named = ", ".join(f"{value} {name}" for value, name in known.items())
        values = ", ".join(f"{value:g}" for value in strange[:5]) + (
            ", ..." if len(strange) > 5 else ""
        )
        yield (
            f"{labels.path}: has labels {values}, expected 0 and {named}; name the classes in the dataset's description "
            '(or set other_labels = "background" there), or correct the file'
        )


def pair_problems(image: ScanFile, labels: ScanFile) -> Iterator[str]:
    """What keeps a label map from lying on its image."""
    if labels.voxels.shape != image.voxels.shape:
        yield (
            f"{labels.path}: has shape {_sizes(labels.voxels)}, expected {_sizes(image.voxels)} as {image.path.name}; "
            "resample the labels to the image's grid"
        )
    elif not np.allclose(labels.affine, image.affine, atol=SAME_PLACE):
        axes = [_axis_codes(file.affine) for file in (labels, image)]
        if axes[0] != axes[1]:
            yield (
                f"{labels.path}: its axes run towards {axes[0]}, expected {axes[1]} as those of {image.path.name}; "
                "turn the labels as the image, or copy the image's header if only the header is wrong"
            )
        else:
            yield (
                f"{labels.path}: its affine differs from that of {image.path.name}, expected the same grid; "
                "resample the labels to the image or copy the image's header"
            )


def make_volume(case: str, image: ScanFile, labels: ScanFile, described: Description) -> Volume:
    """The scan, slices first, clipped and with the classes' numbers for labels."""
    grid = find_grid(
        image.affine, image.voxel_sizes, axis=described.axis, orientation=described.orientation
    )
    spacing = tuple(image.voxel_sizes[axis] for axis in grid.axes)
    voxels = described.intensity.clip(grid.from_file(image.voxels))
    return Volume(
        case, voxels, grid.from_file(_number_classes(labels.voxels, described)), spacing, grid
    )


def load_volume(case: str, image_path: Path, label_path: Path, described: Description) -> Volume:
    """The scan of a case; raises DataError listing everything that is wrong with its files."""
    image, labels = read_nifti(image_path), read_nifti(label_path)
    problems = [
        *image_problems(image),
        *label_problems(labels, described),
        *pair_problems(image, labels),
    ]
    if problems:
        raise DataError("\n".join(problems))
    return make_volume(case, image, labels, described)


def _number_classes(labels: np.ndarray, described: Description) -> np.ndarray:
    numbers, numbered = described.numbers, np.zeros(labels.shape, dtype=np.uint8)
    for name, values in described.class_values.items():
        numbered[np.isin(labels, values)] = numbers[name]
    return numbered


def _axis_codes(affine: np.ndarray) -> str:
    return "".join(code or "?" for code in nibabel.aff2axcodes(affine))


def _sizes(array: np.ndarray) -> str:
    return " x ".join(str(size) for size in array.shape)
