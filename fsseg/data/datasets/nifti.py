"""Reading one file of a scan: its voxels and where they lie, and a sentence for everything that keeps it from being read."""

import gzip
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import nibabel
import numpy as np
from jaxtyping import Num
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener

from fsseg.data.datasets.header import (
    Geometry,
    check_dimensions,
    check_sizes,
    geometry_of,
    is_header,
    read_header,
    shape_in_words,
)
from fsseg.data.geometry import Affine, check_affine
from fsseg.errors import DataError

SINGLE_FILES = (".nii", ".nii.gz", ".nii.bz2")
"""How the names of NIfTI files end whose header and voxels are one file."""

GZIP = b"\x1f\x8b"
"""How gzip files begin."""

LFS_POINTER = b"version https://git-lfs"
"""How the files begin that Git LFS puts in place of what it has not fetched."""

FIRST_BYTES = 64

REST = 2**24
"""Bytes after the voxels that are looked at, at most, for the checksum at the end of the file."""


@dataclass(frozen=True)
class ScanFile:
    """A three-dimensional scan as stored.

    Attributes:
        path: Its file.
        voxels: In the file's own order of axes.
        affine: Voxel indices to mm.
        voxel_sizes: Along the file's axes, mm.
        other_affine: Where the header says a second time that the voxels lie; None where it does not.
        remarks: What was strange in the header and was mended on reading.
        channel: The name of its channel, where the scan has several.
    """

    path: Path
    voxels: np.ndarray
    affine: np.ndarray
    voxel_sizes: tuple[float, float, float]
    other_affine: Affine | None = None
    remarks: tuple[str, ...] = ()
    channel: str = ""

    @property
    def where(self) -> str:
        """The file, and the channel where there are several, for messages."""
        return f"{self.path}, channel {self.channel}" if self.channel else str(self.path)


UNREADABLE = (
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    EOFError,
    OSError,
    OverflowError,
    ValueError,
    zlib.error,
)
"""What reading a damaged file raises."""


def read_nifti(path: Path, channel: int | None = None) -> ScanFile:
    """Reads a file; scaled integers come as float32, and lengths in mm whatever the header's unit.

    Args:
        path: The file.
        channel: Of a file with several channels (a fourth axis); None refuses such files.

    Raises:
        DataError: It is missing, cut off, not NIfTI, too large for the machine, in colours, not three-dimensional or
            nowhere in space.
    """
    file = _read_whole(path)
    return replace(file, voxels=one_channel(path, file.voxels, channel))


def _read_whole(path: Path) -> ScanFile:
    """Reads a file with all the axes that it has; raises DataError for whatever keeps it from being read."""
    try:
        _refuse_what_is_no_scan(path)
        if path.name.lower().endswith(SINGLE_FILES):
            return _read_single_file(path)
        return _read_other_format(path)
    except UNREADABLE as error:
        _refuse(path, in_one_line(error))
    except MemoryError:
        raise DataError(
            f"{path}: does not fit in the memory that is free; close other programs, or read it on a larger machine"
        ) from None


def read_channels(
    path: Path,
    names: Sequence[str],
    remedy: str = "correct channels in dataset.toml, or the file",
) -> list[ScanFile]:
    """Reads a file whose fourth axis has a channel for each name.

    Args:
        path: The file.
        names: The names of the channels.
        remedy: What to do about another number of channels, for the message.

    Raises:
        DataError: As of `read_nifti`, or it has another number of channels.
    """
    file = _read_whole(path)
    shape = file.voxels.shape
    of_several = [count for count in shape[3:] if count != 1]
    count = of_several[0] if of_several else 1
    if len(of_several) > 1 or count != len(names):
        raise DataError(
            f"{path}: has {count} channel(s) ({shape_in_words(shape)}), expected {len(names)} ({', '.join(names)}) along the "
            f"fourth axis; {remedy}"
        )
    voxels = file.voxels.reshape([*shape[:3], count], order="F")
    return [replace(file, voxels=voxels[..., channel]) for channel in range(count)]


def read_header_of(path: Path) -> nibabel.Nifti1Header | None:
    """Returns the header of a file that `read_nifti` reads; None where it is of another format than NIfTI."""
    if not path.name.lower().endswith(SINGLE_FILES):
        return None
    with _unpacked(path) as stream:
        header, _ = read_header(stream)
    return header


def one_channel(path: Path, voxels: np.ndarray, channel: int | None) -> Num[np.ndarray, "x y z"]:
    """Returns three-dimensional voxels; raises DataError where a fourth axis leaves a choice that `channel` does not make."""
    shape = voxels.shape
    check_dimensions(path, shape)
    of_several = [count for count in shape[3:] if count != 1]
    voxels = voxels.reshape([*shape[:3], *of_several], order="F")
    if len(of_several) == 1 and channel is not None:
        [channels] = of_several
        if channel >= channels:
            raise DataError(
                f"{path}: has {channels} channels, expected one with number {channel}; check --channel"
            )
        voxels = voxels[..., channel]
    if voxels.ndim > 3:
        raise DataError(
            f"{path}: has {voxels.ndim} dimensions ({shape_in_words(shape)}), expected 3; split it into one file per "
            "channel or time"
        )
    return voxels


def first_few(texts: Sequence[str], most: int = 5) -> str:
    """Returns the first of some texts in a list, and dots where there are more."""
    listed = list(texts[:most])
    if len(texts) > most:
        listed.append("...")
    return ", ".join(listed)


def _read_single_file(path: Path) -> ScanFile:
    """Reads header and voxels in one go; extensions of the header are passed over, whatever length they claim."""
    with _unpacked(path) as stream:
        header, remarks = read_header(stream)
        offset = int(header["vox_offset"])
        check_sizes(path, header.get_data_shape(), header.get_data_dtype(), offset)
        voxels = np.asanyarray(ArrayProxy(stream, header))
        _require_the_end(stream)
    voxels = _as_numbers(path, voxels, header.get_data_dtype())
    check_dimensions(path, voxels.shape)  # a header of fewer dimensions has fewer sizes, too
    geometry = geometry_of(path, header)
    return ScanFile(
        path, voxels, geometry.affine, geometry.voxel_sizes, geometry.other, tuple(remarks)
    )


def _read_other_format(path: Path) -> ScanFile:
    """Reads what else nibabel knows: pairs of .hdr and .img, MGH and others."""
    try:
        file: Any = nibabel.load(path)
        with_voxels = file.file_map.get("image", file.file_map.get("header"))
        check_sizes(Path(with_voxels.filename), file.shape, file.get_data_dtype())
        stored = np.asanyarray(file.dataobj)
        geometry = _geometry_of_other(path, file)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # each format's reader fails in ways of its own
        reason = in_one_line(error) or type(error).__name__
        _refuse(path, reason, "it is damaged or of a format that is not read, convert it to NIfTI")
    voxels = _as_numbers(path, stored, file.get_data_dtype())
    check_dimensions(path, voxels.shape)
    return ScanFile(path, voxels, geometry.affine, geometry.voxel_sizes, geometry.other)


def _geometry_of_other(path: Path, file: Any) -> Geometry:
    """Where another format than a single NIfTI file puts its voxels; only the headers of NIfTI pairs have a unit."""
    if isinstance(file.header, nibabel.Nifti1Header):
        return geometry_of(path, file.header)
    affine = np.asarray(file.affine, dtype=np.float64)
    check_affine(path, affine)
    x, y, z = (float(size) for size in file.header.get_zooms()[:3])
    return Geometry(affine, (x, y, z), None)


def in_one_line(error: Exception) -> str:
    """Returns what a library says, without its line breaks: a problem is one line."""
    return " ".join(str(error).split())


def _unpacked(path: Path) -> AbstractContextManager[Any]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path)
    if path.suffix.lower() == ".nii":
        return path.open("rb")
    return ImageOpener(str(path))


def _require_the_end(stream: Any) -> None:
    """Reads on where a file was unpacked, so that the checksum at its end is looked at; raises OSError where it is wrong."""
    if not isinstance(stream, gzip.GzipFile):
        return
    try:
        stream.read(REST)
    except gzip.BadGzipFile as error:
        if str(error).startswith("Not a gzipped file"):  # what other programs leave after the end
            return
        raise


def _as_numbers(path: Path, voxels: np.ndarray, stored: np.dtype) -> np.ndarray:
    """Voxels in the machine's byte order, integers that were scaled (scl_slope, scl_inter) as float32."""
    if voxels.dtype.fields is not None or np.iscomplexobj(voxels):
        raise DataError(
            f"{path}: has colours (RGB) or complex numbers, expected one number per voxel; convert it to grey values or labels"
        )
    if stored.kind in "iu" and voxels.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is infinite then is told with the image's problems
            voxels = voxels.astype(np.float32)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def _refuse_what_is_no_scan(path: Path) -> None:
    """Raises DataError for what is no file, or begins as no scan does, with what to do about it."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file; expected a NIfTI image")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise DataError(f"{path}: is {kind}, expected a NIfTI image; give the file")
    with path.open("rb") as file:
        start = file.read(FIRST_BYTES)
    name = path.name
    if not start:
        _refuse(path, "it is empty")
    if start.startswith(LFS_POINTER):
        _refuse(path, "it is a pointer of Git LFS", "fetch the file itself with git lfs pull")
    is_packed = start.startswith(GZIP)
    if name.lower().endswith(".nii.gz") and is_header(start):
        _refuse(path, "it is not compressed", f"rename it to {name[:-3]}")
    if name.lower().endswith(".nii") and is_packed:
        _refuse(path, "it is compressed", f"rename it to {name}.gz")
    if name.lower().endswith(".nii.gz") and not is_packed:
        text = start[:20].decode("latin-1")
        _refuse(path, f"it is no gzip file but begins with {text!r}", "get the right file")


def _refuse(
    path: Path, reason: str, advice: str = "it is damaged or cut off, copy it again"
) -> NoReturn:
    raise DataError(f"{path}: cannot be read as NIfTI ({reason}); {advice}") from None
