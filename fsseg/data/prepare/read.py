"""Reading one scan file, and everything that can be wrong with it. No torch: worker processes start fast."""

import zlib
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Num

from fsseg.data.prepare.resample import LPS, itk
from fsseg.data.prepare.scan import Scan
from fsseg.errors import DataError

SAME_PLACE = 1e-2
"""Elements of two affines that differ by no more (mm) are those of one grid."""

NIFTI = (".nii", ".nii.gz")
OTHER = (".nrrd", ".mha", ".mhd")


def read_scan(path: Path, channel: int | None = None) -> Scan:
    """Reads NIfTI, or NRRD and MetaImage through SimpleITK; scaled integers come as float32.

    Args:
        path: The file.
        channel: Of a file with several channels (a fourth axis); None refuses such files.

    Raises:
        DataError: It is missing, cut off, of another format, in colours or not three-dimensional.
    """
    if path.name.lower().endswith(OTHER):
        voxels, affine = _read_other(path)
    elif path.name.lower().endswith(NIFTI):
        voxels, affine = _read_nifti(path)
    else:
        raise DataError(f"{path}: is of an unknown format, expected {', '.join(NIFTI + OTHER)}; convert it to NIfTI")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(
            f"{path}: its affine maps voxels to no place in space, expected an invertible one; repair the header"
        )
    return Scan(_one_channel(path, voxels, channel), affine)


def read_image(path: Path, channel: int | None = None) -> Scan:
    """Reads an image; raises DataError as read_scan, and for voxels that are not finite or all the same."""
    scan = read_scan(path, channel)
    if not np.isfinite(scan.voxels).all():
        count = int((~np.isfinite(scan.voxels)).sum())
        raise DataError(f"{path}: {count} voxels are NaN or infinite, expected finite intensities; repair the image")
    if scan.voxels.min() == scan.voxels.max():
        raise DataError(f"{path}: every voxel is {scan.voxels.flat[0]:g}, expected an image; repair or remove the case")
    return scan


def read_labels(path: Path) -> Scan:
    """Reads a label map as uint8 or uint16; raises DataError as read_scan, and for what is no label value."""
    scan = read_scan(path)
    values = np.unique(scan.voxels)
    strange = [value for value in values.tolist() if not (0 <= value <= 65535 and value == int(value))]
    if strange:
        listed = ", ".join(f"{value:g}" for value in strange[:5])
        raise DataError(f"{path}: has label values {listed}, expected whole numbers from 0 to 65535; correct the file")
    return scan.with_voxels(scan.voxels.astype(np.uint8 if values[-1] <= 255 else np.uint16))


def read_pair(image: Path, label: Path, channel: int | None = None) -> tuple[Scan, Scan]:
    """Reads an image and its labels; raises DataError for either, and for labels on another grid."""
    scan, labels = read_image(image, channel), read_labels(label)
    if labels.voxels.shape != scan.voxels.shape:
        raise DataError(
            f"{label}: has {_sizes(labels.voxels)} voxels, expected {_sizes(scan.voxels)} as {image.name}; "
            "resample the labels to the image's grid"
        )
    if not np.allclose(labels.affine, scan.affine, atol=SAME_PLACE):
        turned = [found.geometry()["axes"] for found in (labels, scan)]
        how = f" (axes {turned[0]} and {turned[1]})" if turned[0] != turned[1] else ""
        raise DataError(
            f"{label}: its affine differs from that of {image.name}{how}, expected the same grid; resample the labels "
            "to the image, or copy the image's header if only the header is wrong"
        )
    return scan, labels


def check_values(path: Path, labels: Scan, expected: dict[int, str]) -> None:
    """Raises DataError for label values besides 0 and those named."""
    strange = [value for value in np.unique(labels.voxels).tolist() if value != 0 and value not in expected]
    if strange:
        listed = ", ".join(str(value) for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
        named = ", ".join(f"{value} {name}" for value, name in expected.items())
        raise DataError(f"{path}: has label values {listed}, expected 0 and {named}; correct the file")


def stored_with(path: Path) -> tuple[Path, ...]:
    """The files that a scan file consists of: itself, and the voxels of a .mhd header."""
    if path.suffix.lower() != ".mhd":
        return (path,)
    text = path.read_bytes()[:10_000].decode("latin-1")
    named = [line.partition("=")[2].strip() for line in text.splitlines() if line.startswith("ElementDataFile")]
    return (path, *(path.parent / name for name in named if (path.parent / name).is_file()))


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        file = nibabel.load(path)
        voxels = np.asanyarray(file.dataobj)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; expected a NIfTI image") from None
    except (nibabel.filebasedimages.ImageFileError, EOFError, OSError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({error}); it is damaged or cut off, copy it again") from None
    if voxels.dtype.fields is not None or np.iscomplexobj(voxels):
        raise DataError(
            f"{path}: has colours or complex numbers, expected one number per voxel; convert it to grey values or labels"
        )
    if voxels.dtype.kind == "f" and file.get_data_dtype().kind in "iu":  # scl_slope and scl_inter
        voxels = voxels.astype(np.float32)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False), np.asarray(file.affine, dtype=np.float64)


def _read_other(path: Path) -> tuple[np.ndarray, np.ndarray]:
    sitk = itk()
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path}: cannot be read as an image ({reason}); it is damaged, copy it again") from None
    if image.GetDimension() != 3:
        raise DataError(
            f"{path}: has {image.GetDimension()} dimensions, expected 3; split it into one file per channel"
        )
    if image.GetNumberOfComponentsPerPixel() > 1:
        count = image.GetNumberOfComponentsPerPixel()
        raise DataError(f"{path}: has {count} numbers per voxel (colours), expected one; convert it to grey values")
    affine = np.eye(4)
    affine[:3, :3] = LPS @ np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = LPS @ image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, affine


def _one_channel(path: Path, voxels: np.ndarray, channel: int | None) -> Num[np.ndarray, "x y z"]:
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


def _sizes(array: np.ndarray) -> str:
    return " x ".join(str(size) for size in array.shape)
