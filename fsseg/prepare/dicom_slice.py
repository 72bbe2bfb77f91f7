"""One DICOM file: what its header says, compared with its pixel data before they are believed.

pydicom reads the header and counts bytes, SimpleITK (GDCM) decodes the pixels: it does not compare the two, and fills what
is missing with whatever lies in memory.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from fsseg.errors import DataError
from fsseg.prepare.dicom_pixels import check_compressed, check_length, dicom
from fsseg.prepare.resample import itk

TURNED = 1e-2
"""How far directions may be from unit length and from right angles: they are stored with few digits."""

FARTHEST = 1e5
"""mm; nothing that is scanned is farther from the scanner."""


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
        syntax: How its pixels are stored, in words.
        warnings: What pydicom warned of.
    """

    path: Path
    series: str
    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray
    pixel: tuple[float, float]
    size: tuple[int, int]
    syntax: str
    warnings: tuple[str, ...] = ()

    @property
    def height(self) -> float:
        """Where the slice is along its normal, mm."""
        normal = np.cross(self.across, self.down)
        return float(normal @ self.corner)


def read_header(path: Path) -> Slice:
    """Returns what the header of a file says.

    Raises:
        DataError: It is no DICOM, has colours or frames, lacks its geometry, or has fewer or more pixels than it says.
    """
    problem = None
    with _collected_warnings() as warned:
        try:
            dataset = _read(path)
            _check_pixels(path, dataset)
            header = _header(path, dataset)
        except DataError as error:
            problem = str(error)
        except Exception as error:  # pydicom raises all kinds, also when a value is asked for
            problem = f"{path}: cannot be read as DICOM ({_one_line(error)}); it is damaged or of another format, copy it again"
    told = tuple(dict.fromkeys(warned))
    if problem is not None:
        reasons = f" (pydicom warns: {'; '.join(told)})" if told else ""
        raise DataError(problem + reasons)
    return replace(header, warnings=told)


def _header(path: Path, dataset: Any) -> Slice:
    across, down = _directions(path, dataset)
    rows, columns = _pixel_spacing(path, dataset)
    return Slice(
        path=path,
        series=str(dataset.get("SeriesInstanceUID") or "").strip(" \0"),
        corner=_numbers(path, dataset, "ImagePositionPatient", 3, "say where the slice is"),
        across=across,
        down=down,
        pixel=(columns, rows),
        size=(int(dataset.Columns), int(dataset.Rows)),
        syntax=_syntax(dataset).name,
    )


def read_pixels(header: Slice) -> Num[np.ndarray, "x y"]:
    """Returns the voxels of a slice; raises DataError where they cannot be decoded or are not as many as the header says."""
    sitk = itk()
    path = header.path
    try:
        image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    except RuntimeError:
        raise DataError(
            f"{path}: its pixels ({header.syntax}) cannot be decoded; it is damaged, copy it again, or SimpleITK does not "
            "know this compression, decompress the series (gdcmconv --raw)"
        ) from None
    voxels = sitk.GetArrayFromImage(image).T
    columns, rows = header.size
    expected = (columns, rows, 1) if voxels.ndim == 3 else (columns, rows)
    if voxels.shape != expected:
        decoded = " x ".join(str(length) for length in voxels.shape)
        raise DataError(
            f"{path}: its pixels are {decoded}, expected {columns} columns and {rows} rows as its header says; "
            "it is damaged, copy it again"
        )
    return voxels.reshape(columns, rows)


def _read(path: Path) -> Any:
    pydicom = dicom()
    try:
        dataset = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError:
        dataset = pydicom.dcmread(path, force=True)  # some old files lack the first 132 bytes
        if "Rows" not in dataset:
            raise DataError(
                f"{path}: cannot be read as DICOM; it is damaged or of another format, copy it again"
            ) from None
    return dataset


def _syntax(dataset: Any) -> Any:
    """The transfer syntax; files that do not say have the standard's default."""
    pydicom = dicom()
    default = pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.UID(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", default))


def _check_pixels(path: Path, dataset: Any) -> None:
    """Raises DataError for colours, frames, and pixels that are not as many bytes as the header says."""
    samples = int(dataset.get("SamplesPerPixel") or 1)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if samples != 1 or frames != 1:
        raise DataError(
            f"{path}: has colours or several frames, expected one grey slice per file; split the file"
        )
    slope = dataset.get("RescaleSlope")
    if slope is not None and not 0 < abs(float(slope)) < math.inf:
        raise DataError(
            f"{path}: its RescaleSlope is {float(slope):g}, expected a number besides 0; no intensity can be told, export it anew"
        )
    sizes = [int(dataset.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated")]
    if not dataset.get("PixelData") or min(sizes) < 1:
        raise DataError(
            f"{path}: has no pixels (Rows, Columns, BitsAllocated and PixelData); it is cut off or no image, copy it again"
        )
    syntax = _syntax(dataset)
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise DataError(
            f"{path}: its pixels are stored in a way that DICOM does not know (transfer syntax {syntax}); "
            "export the series anew"
        )
    if syntax.is_encapsulated:
        check_compressed(path, dataset.PixelData, syntax, *sizes)
    else:
        check_length(path, len(dataset.PixelData), *sizes)


def _directions(path: Path, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    directions = _numbers(
        path, dataset, "ImageOrientationPatient", 6, "say how the slice is turned"
    )
    across, down = directions[:3], directions[3:]
    lengths = np.linalg.norm([across, down], axis=1)
    if np.abs(lengths - 1).max() > TURNED or abs(across @ down) > TURNED:
        raise DataError(
            f"{path}: its ImageOrientationPatient is {_listed(directions)}, expected two directions of length 1 at right "
            "angles; export the series with its geometry"
        )
    return across, down


def _pixel_spacing(path: Path, dataset: Any) -> tuple[float, float]:
    """The distance of rows and of columns, mm."""
    spacing = _numbers(path, dataset, "PixelSpacing", 2, "say how large a pixel is in mm")
    if spacing.min() <= 0:
        raise DataError(
            f"{path}: its PixelSpacing is {_listed(spacing)}, expected two numbers above 0 that say how large a pixel is "
            "in mm; export the series with its geometry"
        )
    rows, columns = spacing.tolist()
    return rows, columns


def _numbers(path: Path, dataset: Any, name: str, count: int, meaning: str) -> np.ndarray:
    try:
        numbers = np.array([float(number) for number in dataset.get(name) or ()])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    is_known = len(numbers) == count and np.isfinite(numbers).all()
    if not is_known or np.abs(numbers).max() > FARTHEST:
        raise DataError(
            f"{path}: lacks {name}, expected {count} numbers that {meaning}; export the series with its geometry"
        )
    return numbers


def _listed(numbers: np.ndarray) -> str:
    return "\\".join(f"{number:g}" for number in numbers)


class _Collector(logging.Handler):
    """Keeps what is logged, a line for each."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one."""
        self._texts.append(_one_line(record.getMessage()))


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collects what pydicom warns of and logs, which would otherwise be printed between our own lines."""
    texts: list[str] = []
    logger = logging.getLogger("pydicom")
    collector = _Collector(texts)
    propagates = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield texts
            texts += [_one_line(warning.message) for warning in warned]
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagates


def _one_line(text: object) -> str:
    words = " ".join(str(text).split())
    return words.encode("unicode_escape").decode() if not words.isprintable() else words
