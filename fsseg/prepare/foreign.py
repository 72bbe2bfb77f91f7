"""NRRD and MetaImage, through SimpleITK: what a header says is looked at before anything is read.

SimpleITK reads whatever file a header names, takes 1 mm for a spacing that is not there, and asks for as much memory as a
header claims.
"""

import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fsseg.data.datasets.finding import name_problem
from fsseg.data.datasets.header import GZIP_AT_MOST, check_room, shape_in_words
from fsseg.data.datasets.nifti import ScanFile, one_channel
from fsseg.data.geometry import check_affine
from fsseg.errors import DataError
from fsseg.prepare.meta_image import meta_image_fields
from fsseg.prepare.resample import LPS, itk

ENDINGS = (".nrrd", ".mha", ".mhd")

LONGEST_HEADER = 2**20
"""Bytes of a header at most."""

DATA_FILE = re.compile(r"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*)\r?\n?", re.MULTILINE)
"""The last line of a MetaImage header."""

END_OF_NRRD = re.compile(r"\r?\n\r?\n")

CHUNK = 2**20
"""Bytes that are unpacked at a time."""

ZLIB_OR_GZIP = 47
"""What has zlib tell the two apart by their beginning."""

COMPRESSIONS = {
    "raw": 1,
    "false": 1,
    "gzip": GZIP_AT_MOST,
    "gz": GZIP_AT_MOST,
    "true": GZIP_AT_MOST,
}
"""How many times its size a file unpacks to at most, by what the two formats call its encoding."""


@dataclass(frozen=True)
class Header:
    """What the text of a header says.

    Attributes:
        path: Its file.
        data: The file with the voxels; the same one where they follow the header.
        start: Bytes before the voxels.
        says_spacing: Whether it says how large a voxel is.
        unpacks: How many times its size the file with the voxels unpacks to at most; None where nobody knows.
        packed: Bytes of the packed voxels, where it says so.
    """

    path: Path
    data: Path
    start: int
    says_spacing: bool
    unpacks: int | None
    packed: int | None


def read_header(path: Path) -> Header:
    """Returns what a header says; raises DataError for one that is none, or that names several files with voxels."""
    with path.open("rb") as file:
        text = file.read(LONGEST_HEADER).decode("latin-1")
    if path.suffix.lower() == ".nrrd":
        return _read_nrrd(path, text)
    return _read_meta_image(path, text)


def require_near(path: Path, source: Path) -> None:
    """Checks that a header keeps its voxels in the source's folder, or beside itself; links are followed.

    Args:
        path: A file of any format; only those that name other files are looked at.
        source: The folder with the raw scans.

    Raises:
        DataError: A header names a file elsewhere: whoever wrote it may not choose what is read on this machine.
    """
    if not path.name.lower().endswith(ENDINGS):
        return
    data = read_header(path).data
    if data == path:
        return
    real = Path(os.path.realpath(data))
    folders = [Path(os.path.realpath(source)), Path(os.path.realpath(path)).parent]
    if not any(folder in real.parents for folder in folders):
        raise DataError(
            f"{path}: says that its voxels are in {data}, expected a file in {source}; copy that file beside the header "
            "and name it there"
        )


def read_foreign(path: Path) -> ScanFile:
    """Reads a file of these formats.

    Raises:
        DataError: It is damaged or cut off, too large for the machine, in colours, or not three-dimensional.
    """
    header = read_header(path)
    sitk = itk()
    try:
        _check(header, _information(path))
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise DataError(
            f"{path}: cannot be read as an image ({reason}); it is damaged, copy it again"
        ) from None
    directions = np.reshape(image.GetDirection(), (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = LPS @ directions * image.GetSpacing()
    affine[:3, 3] = LPS @ image.GetOrigin()
    check_affine(path, affine)
    voxels = one_channel(path, sitk.GetArrayFromImage(image).T, None)
    remarks = () if header.says_spacing else ("does not say how large a voxel is; 1 mm is taken",)
    return ScanFile(path, voxels, affine, tuple(image.GetSpacing()), remarks=remarks)


def _read_nrrd(path: Path, text: str) -> Header:
    if not text.startswith("NRRD"):
        raise DataError(
            f"{path}: cannot be read as an image (it does not begin as NRRD files do); copy it again"
        )
    end = END_OF_NRRD.search(text)
    lines = text[: end.start() if end else len(text)].splitlines()
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(": ")
        fields[name.strip().lower()] = value.strip()
    named = fields.get("data file", fields.get("datafile"))
    encoding = fields.get("encoding", "raw").lower()
    skips = "byte skip" in fields or "line skip" in fields
    return Header(
        path=path,
        data=_data_file(path, named),
        start=end.end() if end and named is None else 0,
        says_spacing="spacings" in fields or "space directions" in fields,
        unpacks=None if skips else COMPRESSIONS.get(encoding),
        packed=None,
    )


def _read_meta_image(path: Path, text: str) -> Header:
    last = DATA_FILE.search(text)
    if last is None:
        raise DataError(
            f"{path}: cannot be read as an image (its header names no ElementDataFile); copy it again"
        )
    fields = meta_image_fields(path, text[: last.start()])
    is_local = last[1].strip().upper() == "LOCAL"
    is_packed = fields.get("CompressedData", "false").lower() == "true"
    if (
        is_local and is_packed and "CompressedDataSize" not in fields
    ):  # SimpleITK would go on with zeros
        raise DataError(
            f"{path}: cannot be read as an image (its header lacks CompressedDataSize); it is damaged, copy it again"
        )
    skipped = int(fields.get("HeaderSize", "0"))  # -1: the voxels are the end of the file
    return Header(
        path=path,
        data=_data_file(path, None if is_local else last[1].strip()),
        start=(last.end() if is_local else 0) + max(0, skipped),
        says_spacing="ElementSpacing" in fields or "ElementSize" in fields,
        unpacks=COMPRESSIONS.get(fields.get("CompressedData", "false").lower())
        if skipped >= 0
        else None,
        packed=int(fields["CompressedDataSize"]) if "CompressedDataSize" in fields else None,
    )


def _data_file(path: Path, name: str | None) -> Path:
    """The file with the voxels; its name is as the header says it."""
    if name is None:
        return path
    if name.startswith("LIST") or "%" in name:
        raise DataError(
            f"{path}: keeps its voxels in several files ({name}), expected one; save it anew in one file"
        )
    if not name or name_problem(Path(name)) is not None:
        raise DataError(
            f"{path}: names the file {name!a} for its voxels, expected the name of a file; correct it"
        )
    return path.parent / name


def _information(path: Path) -> Any:
    """What SimpleITK reads in a header."""
    reader = itk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _check(header: Header, information: Any) -> None:
    """Raises DataError for what is no scan, and for more voxels than the file can hold or than a scan may have."""
    path = header.path
    shape = information.GetSize()
    if len(shape) == 2:
        raise DataError(
            f"{path}: has 2 dimensions ({shape_in_words(shape)}), expected 3; a picture of one slice is no scan, stack a "
            "scan's slices in one file"
        )
    if len(shape) != 3:
        raise DataError(
            f"{path}: has {len(shape)} dimensions ({shape_in_words(shape)}), expected 3; split it into one file per "
            "channel or time"
        )
    count = information.GetNumberOfComponents()
    if count > 1:
        raise DataError(
            f"{path}: has {count} numbers per voxel (colours), expected one; convert it to grey values"
        )
    stored = math.prod(shape) * _bytes_of(information)
    _check_length(header, shape, stored)
    check_room(path, shape, stored)
    if header.unpacks == GZIP_AT_MOST:
        _require_whole(header, stored)


def _require_whole(header: Header, stored: int) -> None:
    """Unpacks the voxels once for the checksum behind them: SimpleITK leaves zeros where it cannot unpack, and goes on."""
    try:
        with header.data.open("rb") as file:
            file.seek(header.start)
            _unpack(file, stored)
    except (EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{header.path}: cannot be read as an image ({reason}); it is damaged or cut off, copy it again"
        ) from None


def _unpack(file: BinaryIO, size: int) -> None:
    """Unpacks what follows in a file, to the end of the part with the last of so many bytes.

    Raises:
        EOFError: There are fewer, or more.
        zlib.error: They are damaged.
    """
    unpacked = 0
    packed = b""
    unpacker = zlib.decompressobj(ZLIB_OR_GZIP)
    while unpacked <= size:
        packed = packed or file.read(CHUNK)
        if not packed:
            raise EOFError("the voxels end too early")
        unpacked += len(unpacker.decompress(packed, CHUNK))
        packed = unpacker.unconsumed_tail
        if unpacker.eof and unpacked == size:
            return
        if unpacker.eof:  # gzip files may have several parts
            packed = unpacker.unused_data
            unpacker = zlib.decompressobj(ZLIB_OR_GZIP)
    raise EOFError("there are more voxels than its header says")


def _check_length(header: Header, shape: tuple[int, ...], stored: int) -> None:
    if not header.data.is_file():
        raise DataError(
            f"{header.path}: says that its voxels are in {header.data}, where no file is; copy that file as well"
        )
    if header.unpacks is None:
        return
    available = header.data.stat().st_size - header.start
    needed = math.ceil(stored / header.unpacks)
    if header.unpacks > 1 and header.packed is not None:
        needed = max(needed, header.packed)
    row = stored // math.prod(shape[1:])
    has_more = header.unpacks == 1 and available >= needed + row
    if available < needed or has_more:
        least = "" if header.unpacks == 1 else "at least "
        raise DataError(
            f"{header.path}: its header says {shape_in_words(shape)} voxels, {least}{needed} bytes, and {header.data.name} "
            f"has {available}; it is cut off or its header is wrong, copy it again"
        )


def _bytes_of(information: Any) -> int:
    """Bytes of a voxel."""
    sitk = itk()
    one = sitk.Image([1, 1, 1], information.GetPixelID())
    return int(sitk.GetArrayViewFromImage(one).itemsize)
