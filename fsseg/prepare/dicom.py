"""A DICOM series and the PNG masks that lie on its slices, through SimpleITK; the checks are ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Num

from fsseg.errors import DataError
from fsseg.prepare.resample import LPS, itk
from fsseg.prepare.scan import Scan

UNEVEN = 0.1
"""Steps between slices that differ by no more than this share are equal."""


@dataclass(frozen=True)
class Slice:
    """A file of a series: its header, and where the slice is along the series' normal."""

    path: Path
    series: str
    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray
    pixel: tuple[float, float]
    size: tuple[int, int]

    @property
    def height(self) -> float:
        """Millimetres along the slice's normal."""
        return float(np.cross(self.across, self.down) @ self.corner)


def read_series(files: Sequence[Path]) -> tuple[Scan, list[Path]]:
    """A series, and its files in the order of its slices: by their position, not by their names.

    Rows and columns are as DICOM stores them. Raises DataError for files that are not DICOM, for several series in
    one folder, for slices of several sizes or directions, for a missing slice and for two at one place.
    """
    slices = sorted((_read_header(path) for path in files), key=lambda found: found.height)
    folder = files[0].parent
    _check_series(folder, slices)
    _check_steps(folder, slices)
    first, last = slices[0], slices[-1]
    step = (last.corner - first.corner) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, :3] = LPS @ np.stack(
        [first.across * first.pixel[0], first.down * first.pixel[1], step], axis=1
    )
    affine[:3, 3] = LPS @ first.corner
    voxels = np.stack([_read_slice(found.path) for found in slices], axis=2)
    return Scan(voxels, affine), [found.path for found in slices]


def read_mask(path: Path, size: tuple[int, int], beside: str) -> Integer[np.ndarray, "x y"]:
    """A PNG of one grey channel; raises DataError for another size or for colours.

    Args:
        path: The PNG.
        size: Columns and rows expected.
        beside: The file that has this size.
    """
    sitk = itk()
    try:
        image = sitk.ReadImage(str(path), imageIO="PNGImageIO")
    except RuntimeError:
        raise DataError(
            f"{path}: cannot be read as PNG; it is damaged or of another format, copy it again"
        ) from None
    if image.GetNumberOfComponentsPerPixel() != 1:
        count = image.GetNumberOfComponentsPerPixel()
        raise DataError(
            f"{path}: has {count} colour channels, expected one of grey values; save it as a grey PNG"
        )
    if image.GetSize() != size:
        raise DataError(
            f"{path}: has {_sizes(image.GetSize())} columns and rows, expected {_sizes(size)} as {beside}; "
            "it belongs to another scan"
        )
    return sitk.GetArrayFromImage(image).T


def _read_header(path: Path) -> Slice:
    reader = itk().ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise DataError(
            f"{path}: cannot be read as DICOM; it is damaged or of another format, copy it again"
        ) from None
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1 or (len(size) > 2 and size[2] != 1):
        raise DataError(
            f"{path}: has colours or several frames, expected one grey slice per file; split the file"
        )
    direction = _numbers(reader, "0020|0037", "ImageOrientationPatient", 6)
    return Slice(
        path=path,
        series=_tag(reader, "0020|000e"),
        corner=_numbers(reader, "0020|0032", "ImagePositionPatient", 3),
        across=direction[:3],
        down=direction[3:],
        pixel=(float(reader.GetSpacing()[0]), float(reader.GetSpacing()[1])),
        size=(int(size[0]), int(size[1])),
    )


def _tag(reader: Any, tag: str) -> str:
    return reader.GetMetaData(tag).strip(" \0") if reader.HasMetaDataKey(tag) else ""


def _numbers(reader: Any, tag: str, name: str, count: int) -> np.ndarray:
    try:
        numbers = np.array([float(text) for text in _tag(reader, tag).split("\\")])
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DataError(
            f"{reader.GetFileName()}: lacks {name}, expected {count} numbers that say where the slice is; "
            "export the series with its geometry"
        )
    return numbers


def _read_slice(path: Path) -> Num[np.ndarray, "x y"]:
    sitk = itk()
    try:
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO")).T
    except RuntimeError:
        raise DataError(
            f"{path}: its pixels cannot be read; it is damaged or cut off, copy it again"
        ) from None
    return voxels[..., 0] if voxels.ndim == 3 else voxels


def _check_series(folder: Path, slices: list[Slice]) -> None:
    if len(slices) < 2:
        raise DataError(
            f"{folder}: has one slice, expected a volume of several; check that the copy is complete"
        )
    names = sorted({found.series for found in slices})
    if len(names) > 1:
        examples = " and ".join(
            next(x.path.name for x in slices if x.series == name) for name in names[:2]
        )
        raise DataError(
            f"{folder}: mixes {len(names)} series ({examples} are of different ones), expected one SeriesInstanceUID; "
            "keep the files of one series"
        )
    for found in slices[1:]:
        first = slices[0]
        turned = not np.allclose(
            [*found.across, *found.down], [*first.across, *first.down], atol=1e-3
        )
        if (
            turned
            or found.size != first.size
            or not np.allclose(found.pixel, first.pixel, rtol=1e-3)
        ):
            raise DataError(
                f"{found.path}: its size, pixel spacing or direction differs from that of {first.path.name}, expected "
                "the same in all slices; remove what is not of the scan"
            )


def _check_steps(folder: Path, slices: list[Slice]) -> None:
    steps = np.diff([found.height for found in slices])
    usual = float(np.median(steps))
    for step, below, above in zip(steps.tolist(), slices[:-1], slices[1:]):
        between = f"between {below.path.name} and {above.path.name}"
        if step < 0.01:
            raise DataError(
                f"{folder}: {below.path.name} and {above.path.name} are at the same place; remove one"
            )
        if step > 1.5 * usual:
            raise DataError(
                f"{folder}: {round(step / usual) - 1} slice(s) are missing {between} (a step of {step:.2f} mm), "
                f"expected every {usual:.2f} mm; copy the missing DICOM files"
            )
        if abs(step - usual) > UNEVEN * usual:
            raise DataError(
                f"{folder}: the step {between} is {step:.2f} mm, expected {usual:.2f} mm as elsewhere; "
                "a volume needs equal steps, check the series"
            )


def _sizes(size: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in size)
