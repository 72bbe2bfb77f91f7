"""The header of a NIfTI file: looked at before anything is unpacked, and believed where it can be true."""

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np

from fsseg.data.geometry import Affine, check_affine, millimetres
from fsseg.errors import DataError
from fsseg.system.memory import machine_memory, size_in_words

LIMIT = "FSSEG_MAX_SCAN_GIB"
"""The environment variable with the most GiB that a scan may have, in place of a part of the machine's memory."""

SHARE = 4
"""A scan may have one part in so many of the machine's memory: it is scaled, cut and turned, each time into new arrays."""

IN_MEMORY = 4
"""Bytes that a voxel has at least, once it is an intensity."""

GZIP_AT_MOST = 1032
"""No gzip file unpacks to more times its size: a limit of the format."""

UNPACKED_AT_MOST = {
    ".gz": GZIP_AT_MOST,
    ".mgz": GZIP_AT_MOST,
    ".nii": 1,
    ".img": 1,
    ".mgh": 1,
}
"""The times its size that a file may hold, by the end of its name; other kinds tell only when they are unpacked."""

HEADERS = {
    348: nibabel.Nifti1Header,
    540: nibabel.Nifti2Header,
}
"""The headers by the number of bytes that they begin with."""

MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""The units of length by their code; what has no unit is in millimetres, as in other programs."""

REMARKABLE = logging.WARNING
"""What nibabel mends in a header is remarked upon from this level on."""


@dataclass(frozen=True)
class Geometry:
    """Where a header puts its voxels.

    Attributes:
        affine: Voxel indices to mm.
        voxel_sizes: Along the file's axes, mm, which headers hold beside the affine.
        other: The affine of the qform, mm, where the header has both and the sform is used; None elsewhere.
    """

    affine: Affine
    voxel_sizes: tuple[float, float, float]
    other: Affine | None


def read_header(stream: BinaryIO) -> tuple[nibabel.Nifti1Header, list[str]]:
    """Reads the header at the beginning of an unpacked NIfTI file.

    Returns:
        The header, mended where nibabel can, and a sentence for each thing that was.

    Raises:
        nibabel.spatialimages.HeaderDataError: It is none, or cannot be mended.
    """
    start = stream.read(4)
    kind = _kind_of_header(start)
    if kind is None:
        raise nibabel.spatialimages.HeaderDataError("it does not begin as NIfTI files do")
    length = kind.template_dtype.itemsize
    content = start + stream.read(length - len(start))
    if len(content) < length:
        raise nibabel.spatialimages.HeaderDataError("it ends within its header")
    header = kind(content, check=False)
    _require_numbers(header)
    return header, _mend(header)


def is_header(start: bytes) -> bool:
    """Returns True for the first bytes of an unpacked NIfTI file."""
    return _kind_of_header(start[:4]) is not None


def check_sizes(path: Path, shape: tuple[int, ...], stored: np.dtype, offset: int = 0) -> None:
    """Refuses more voxels than a file can hold, or than a scan may have.

    Args:
        path: The file with the voxels.
        shape: Their number along each axis.
        stored: Their type.
        offset: Bytes in front of them.

    Raises:
        nibabel.spatialimages.HeaderDataError: The file cannot hold so many.
        DataError: They are none along an axis, or more than the machine's memory can take.
    """
    shape = tuple(int(count) for count in shape)
    check_dimensions(path, shape)
    needed = offset + math.prod(shape) * stored.itemsize
    times = UNPACKED_AT_MOST.get(path.suffix.lower(), math.inf)
    size = path.stat().st_size
    if needed > size * times:
        raise nibabel.spatialimages.HeaderDataError(
            f"its header says {shape_in_words(shape)} voxels, {size_in_words(needed)}, and a file of {size_in_words(size)} "
            f"holds {size_in_words(int(size * times))} at most"
        )
    check_room(path, shape, needed)


def check_dimensions(path: Path, shape: tuple[int, ...]) -> None:
    """Raises DataError for what has less than three dimensions, or no voxel along one of them."""
    if len(shape) < 3:
        raise DataError(
            f"{path}: has {len(shape)} dimensions ({shape_in_words(shape) or 'no size'}), expected 3; a single picture is "
            "no scan, stack the slices of a scan in one file"
        )
    if min(shape) < 1:
        raise DataError(
            f"{path}: its header says {shape_in_words(shape)} voxels, expected some along each axis; copy it again"
        )


def check_room(path: Path, shape: tuple[int, ...], stored: int = 0) -> None:
    """Raises DataError for a scan that would take too much of the machine's memory.

    Args:
        path: Its file.
        shape: Its voxels along each axis.
        stored: Bytes of the file, unpacked.
    """
    needed = max(stored, math.prod(shape) * IN_MEMORY)
    most, reason = _most_bytes()
    if needed > most:
        enough = math.ceil(needed / 2**30)
        raise DataError(
            f"{path}: its header says {shape_in_words(shape)} voxels, {size_in_words(needed)} in memory, expected at most "
            f"{size_in_words(most)} ({reason}); repair the header, or set {LIMIT}={enough} if the scan is that large"
        )


def geometry_of(path: Path, header: nibabel.Nifti1Header) -> Geometry:
    """Returns where a header puts its voxels, in mm; raises DataError where that is nowhere."""
    unit = _millimetres_per_unit(header)
    in_millimetres = np.diag([unit, unit, unit, 1.0])
    affine = in_millimetres @ np.asarray(header.get_best_affine(), dtype=np.float64)
    check_affine(path, affine)
    x, y, z = (float(size) * unit for size in header.get_zooms()[:3])
    if not 0 < min(x, y, z) <= max(x, y, z) < math.inf:
        raise DataError(
            f"{path}: its header says voxels of {millimetres((x, y, z))} mm, expected positive numbers; repair the header"
        )
    other = None
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        other = in_millimetres @ _qform(header)
    return Geometry(affine, (x, y, z), other)


def shape_in_words(shape: tuple[int, ...]) -> str:
    """Returns a shape for people, as in "256 x 256 x 30"."""
    return " x ".join(str(count) for count in shape)


class _Remarks(logging.Handler):
    """What nibabel mends in a header, which would otherwise go to the error output without the file's name."""

    def __init__(self) -> None:
        super().__init__(REMARKABLE)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps what is said."""
        self.sentences.append(record.getMessage())


def _mend(header: nibabel.Nifti1Header) -> list[str]:
    """Mends a header; returns a sentence for each thing that was."""
    remarks = _Remarks()
    logger = logging.Logger("header")  # of its own: several threads may read at once
    logger.addHandler(remarks)
    header.check_fix(logger)
    return remarks.sentences


def _kind_of_header(start: bytes) -> type[nibabel.Nifti1Header] | None:
    for order in ("little", "big"):
        kind = HEADERS.get(int.from_bytes(start[:4], order))
        if kind is not None:
            return kind
    return None


def _require_numbers(header: nibabel.Nifti1Header) -> None:
    """Refuses what nibabel fails on, and sizes that it would take as 1 mm; those of axes with one voxel matter to nothing."""
    offset = float(header["vox_offset"])
    if not math.isfinite(offset):
        raise nibabel.spatialimages.HeaderDataError(f"its voxels begin at byte {offset:g}")
    slope = float(header["scl_slope"])
    if math.isinf(slope):  # NaN and 0 say that nothing is scaled
        raise nibabel.spatialimages.HeaderDataError(f"its voxels are scaled by {slope:g}")
    counts = header["dim"][1:4]
    sizes = header["pixdim"][1:4]
    is_strange = ~np.isfinite(sizes) | (sizes == 0)
    if is_strange[counts > 1].any():
        raise nibabel.spatialimages.HeaderDataError(
            f"its header says voxels of {millimetres(sizes)} mm"
        )


def _millimetres_per_unit(header: nibabel.Nifti1Header) -> float:
    """The three lowest bits say the unit of length, the others that of time."""
    code = int(header["xyzt_units"]) & 7
    return MILLIMETRES.get(code, 1.0)


def _qform(header: nibabel.Nifti1Header) -> Affine:
    """The affine of the qform; NaN where its quaternion is none."""
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (nibabel.spatialimages.HeaderDataError, ValueError):
        return np.full((4, 4), np.nan)


def _most_bytes() -> tuple[int, str]:
    """What a scan may have of memory, and why."""
    wanted = os.environ.get(LIMIT)
    if not wanted:
        memory = machine_memory()
        return memory // SHARE, f"a quarter of the {size_in_words(memory)} of memory"
    try:
        limit = float(wanted)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise DataError(
            f"{LIMIT}: is {wanted!r}, expected the GiB that a scan may have, such as 16; correct it or unset it"
        )
    return int(limit * 2**30), f"{LIMIT}={wanted}"
