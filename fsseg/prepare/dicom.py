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
    """A file of a series, without its voxels. Positions and directions are ITK's (left, back, top).

    Attributes:
        path: The file.
        series: The series' id.
        corner: Where the centre of its first pixel is, mm.
        across: Direction of its rows.
        down: Direction of its columns.
        pixel: Distance of columns and of rows, mm.
        size: Columns and rows.
    """

    path: Path
    series: str
    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray
    pixel: tuple[float, float]
    size: tuple[int, int]

    @property
    def height(self) -> float:
        """Where the slice is along its normal, mm."""
        normal = np.cross(self.across, self.down)
        return float(normal @ self.corner)


def read_series(files: Sequence[Path]) -> tuple[Scan, list[Path]]:
    """Returns a series, and its files in the order of its slices: by their position, not by their names.

    Rows and columns are as DICOM stores them. Raises DataError for files that are not DICOM, for several series in
    one folder, for slices of several sizes or directions, for a missing slice and for two at one place.
    """
    slices = [_read_header(path) for path in files]
    slices.sort(key=lambda header: header.height)
    folder = files[0].parent
    _check_series(folder, slices)
    _check_steps(folder, slices)
    order = [header.path for header in slices]
    voxels = np.stack([_read_slice(path) for path in order], axis=2)
    return Scan(voxels, _affine(slices)), order


def _affine(slices: list[Slice]) -> np.ndarray:
    first, last = slices[0], slices[-1]
    width, height = first.pixel
    step = (last.corner - first.corner) / (len(slices) - 1)
    steps = np.stack([first.across * width, first.down * height, step], axis=1)
    affine = np.eye(4)
    affine[:3, :3] = LPS @ steps
    affine[:3, 3] = LPS @ first.corner
    return affine


def read_mask(path: Path, size: tuple[int, int], beside: str) -> Integer[np.ndarray, "x y"]:
    """Returns the grey values of a PNG of one channel; raises DataError for another size or for colours.

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
    count = image.GetNumberOfComponentsPerPixel()
    if count != 1:
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
    width, height, *_ = reader.GetSpacing()
    columns, rows, *_ = size
    return Slice(
        path=path,
        series=_tag(reader, "0020|000e"),
        corner=_numbers(reader, "0020|0032", "ImagePositionPatient", 3),
        across=direction[:3],
        down=direction[3:],
        pixel=(float(width), float(height)),
        size=(int(columns), int(rows)),
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
    first = slices[0]
    names = sorted({header.series for header in slices})
    if len(names) > 1:
        examples = [_first_of(slices, name) for name in names[:2]]
        raise DataError(
            f"{folder}: mixes {len(names)} series ({' and '.join(examples)} are of different ones), expected one "
            "SeriesInstanceUID; keep the files of one series"
        )
    for header in slices:
        if not _is_alike(header, first):
            raise DataError(
                f"{header.path}: its size, pixel spacing or direction differs from that of {first.path.name}, expected "
                "the same in all slices; remove what is not of the scan"
            )


def _first_of(slices: list[Slice], series: str) -> str:
    return next(header.path.name for header in slices if header.series == series)


def _is_alike(header: Slice, first: Slice) -> bool:
    return (
        header.size == first.size
        and np.allclose(header.pixel, first.pixel, rtol=1e-3)
        and np.allclose(header.across, first.across, atol=1e-3)
        and np.allclose(header.down, first.down, atol=1e-3)
    )


def _check_steps(folder: Path, slices: list[Slice]) -> None:
    steps = np.diff([header.height for header in slices]).tolist()
    usual = float(np.median(steps))
    for step, below, above in zip(steps, slices[:-1], slices[1:]):
        names = f"{below.path.name} and {above.path.name}"
        if step < 0.01:
            raise DataError(f"{folder}: {names} are at the same place; remove one")
        if step > 1.5 * usual:
            raise DataError(
                f"{folder}: {round(step / usual) - 1} slice(s) are missing between {names} (a step of {step:.2f} mm), "
                f"expected every {usual:.2f} mm; copy the missing DICOM files"
            )
        if abs(step - usual) > UNEVEN * usual:
            raise DataError(
                f"{folder}: the step between {names} is {step:.2f} mm, expected {usual:.2f} mm as elsewhere; "
                "a volume needs equal steps, check the series"
            )


def _sizes(size: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in size)
