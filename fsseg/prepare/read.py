"""Reading one scan file, and everything that can be wrong with it. No torch: worker processes start fast."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer, Num

from fsseg.data.datasets.labels import value_problems
from fsseg.data.datasets.nifti import ScanFile, first_few, one_channel, read_nifti
from fsseg.data.datasets.scans import image_problems, pair_problems
from fsseg.data.geometry import check_affine
from fsseg.errors import DataError
from fsseg.prepare.resample import LPS, itk
from fsseg.prepare.scan import Scan

NIFTI = (".nii", ".nii.gz")
OTHER = (".nrrd", ".mha", ".mhd")


def read_scan(path: Path, channel: int | None = None) -> ScanFile:
    """Reads NIfTI, or NRRD and MetaImage through SimpleITK; scaled integers come as float32.

    Args:
        path: The file.
        channel: Of a file with several channels (a fourth axis); None refuses such files.

    Raises:
        DataError: It is missing, cut off, of another format, in colours or not three-dimensional.
    """
    name = path.name.lower()
    if name.endswith(OTHER):
        return _read_other(path, channel)
    if name.endswith(NIFTI):
        return read_nifti(path, channel)
    known = ", ".join(NIFTI + OTHER)
    raise DataError(f"{path}: is of an unknown format, expected {known}; convert it to NIfTI")


def read_pair(image: Path, label: Path, channel: int | None = None) -> tuple[Scan, Scan]:
    """Reads an image and its labels (as uint8 or uint16); raises DataError listing all that is wrong with them."""
    scan = read_scan(image, channel)
    labels = read_scan(label)
    problems = [
        *image_problems(scan),
        *value_problems(labels),
        *pair_problems(scan, labels),
    ]
    if problems:
        raise DataError("\n".join(problems))
    values = as_small(labels.voxels)
    return Scan(scan.voxels, scan.affine), Scan(values, labels.affine)


def as_small(labels: Num[np.ndarray, "x y z"]) -> Integer[np.ndarray, "x y z"]:
    """Returns label values as uint8 where they fit and as uint16 elsewhere."""
    most = np.iinfo(np.uint8).max
    fits = labels.max() <= most
    return labels.astype(np.uint8 if fits else np.uint16)


def check_values(path: Path, labels: Scan, expected: dict[int, str]) -> None:
    """Raises DataError for label values besides 0 and those named."""
    values = np.unique(labels.voxels).tolist()
    known = {0, *expected}
    strange = [str(value) for value in values if value not in known]
    if strange:
        listed = first_few(strange)
        named = ", ".join(f"{value} {name}" for value, name in expected.items())
        raise DataError(
            f"{path}: has label values {listed}, expected 0 and {named}; correct the file"
        )


def stored_with(path: Path) -> tuple[Path, ...]:
    """Returns the files that a scan file consists of: itself, and the voxels of a .mhd header."""
    if path.suffix.lower() != ".mhd":
        return (path,)
    text = path.read_bytes()[:10_000].decode("latin-1")
    voxels: list[Path] = []
    for line in text.splitlines():
        if line.startswith("ElementDataFile"):
            _, _, name = line.partition("=")
            voxels.append(path.parent / name.strip())
    return (path, *(file for file in voxels if file.is_file()))


def _read_other(path: Path, channel: int | None) -> ScanFile:
    sitk = itk()
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(
            f"{path}: cannot be read as an image ({reason}); it is damaged, copy it again"
        ) from None
    if image.GetDimension() != 3:
        raise DataError(
            f"{path}: has {image.GetDimension()} dimensions, expected 3; split it into one file per channel"
        )
    count = image.GetNumberOfComponentsPerPixel()
    if count > 1:
        raise DataError(
            f"{path}: has {count} numbers per voxel (colours), expected one; convert it to grey values"
        )
    directions = np.reshape(image.GetDirection(), (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = LPS @ directions * image.GetSpacing()
    affine[:3, 3] = LPS @ image.GetOrigin()
    check_affine(path, affine)
    voxels = one_channel(path, sitk.GetArrayFromImage(image).T, channel)
    return ScanFile(path, voxels, affine, tuple(image.GetSpacing()))
