"""A DICOM series and the PNG masks that lie on its slices; the checks are ours."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from fsseg.errors import DataError
from fsseg.prepare.dicom_slice import Slice, read_header, read_pixels
from fsseg.prepare.resample import LPS, itk
from fsseg.prepare.scan import Scan

UNEVEN = 0.1
"""Steps between slices that differ by no more than this share are equal."""


class Series(NamedTuple):
    """A series as read.

    Attributes:
        scan: Its voxels and where they are.
        files: Its files in the order of its slices.
        notes: What the user should know, a sentence each.
    """

    scan: Scan
    files: list[Path]
    notes: list[str]


def read_series(files: Sequence[Path]) -> Series:
    """Returns a series, its slices in the order of their positions, not of their names.

    Rows and columns are as DICOM stores them. Raises DataError for files that are not DICOM, for several series in
    one folder, for slices of several sizes or directions, for a missing slice and for two at one place; and for a file
    without its geometry or with other pixels than its header says.
    """
    slices = [read_header(path) for path in files]
    slices.sort(key=lambda header: header.height)
    folder = files[0].parent
    _check_series(folder, slices)
    _check_steps(folder, slices)
    voxels = np.stack([read_pixels(header) for header in slices], axis=2)
    order = [header.path for header in slices]
    return Series(Scan(voxels, _affine(slices)), order, list(_notes(slices)))


def _notes(slices: list[Slice]) -> Iterator[str]:
    """What pydicom warned of, once for each text."""
    files: dict[str, list[Path]] = {}
    for header in slices:
        for text in header.warnings:
            files.setdefault(text, []).append(header.path)
    for text, paths in files.items():
        others = f" (and {len(paths) - 1} more slices)" if len(paths) > 1 else ""
        yield f"{paths[0]}{others}: pydicom warns: {text}"


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
