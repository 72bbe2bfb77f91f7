"""The pixels of a DICOM file before they are decoded: as many as its header says, and stored as their own headers say.

The libraries that decode them fill what is missing with what lies in memory, and end the process for some that are damaged.
"""

import math
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

from fsseg.errors import DataError

JPEG = "1.2.840.10008.1.2.4."
"""Begins the transfer syntaxes of all kinds of JPEG, whose images end with a mark."""

END_OF_IMAGE = b"\xff\xd9"

JPEG_2000 = b"\xff\x4f\xff\x51"
"""How images in JPEG 2000 begin; their size follows."""

FRAMES_OF_JPEG = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}
"""The marks of the parts of a JPEG that say how large it is; the last is that of JPEG-LS."""

MOST_BITS = 16
"""JPEG has no more bits in a pixel, and its decoder ends the process for more."""

RUN_LENGTH_HEADER = struct.Struct("<16L")
"""Begins pixels of the transfer syntax RLE: how many parts there are, and where each begins."""


def dicom() -> ModuleType:
    """Returns pydicom; raises DataError where it is not installed."""
    try:
        import pydicom
    except ImportError:
        raise DataError(
            "fsseg prepare: needs pydicom, which is not installed; install fsseg[prepare]"
        ) from None
    return pydicom


def check_length(path: Path, length: int, rows: int, columns: int, bits: int) -> None:
    """Raises DataError where plain pixels are not as many bytes as rows, columns and bits of a pixel say."""
    expected = math.ceil(rows * columns * bits / 8)
    padded = expected + math.ceil(columns * bits / 8)
    if not expected <= length < padded:
        raise DataError(
            f"{path}: has {length} bytes of pixels, expected {expected} of {columns} columns and {rows} rows with {bits} "
            "bits each; it is cut off or its header is wrong, copy it again"
        )


def check_compressed(
    path: Path, content: bytes, syntax: Any, rows: int, columns: int, bits: int
) -> None:
    """Raises DataError where compressed pixels are cut off, or are of another size than the file's header says.

    Args:
        path: The file.
        content: Its element PixelData.
        syntax: Its transfer syntax, as pydicom has it.
        rows: By the file's header.
        columns: Likewise.
        bits: Of a pixel.
    """
    pydicom = dicom()
    frames = list(pydicom.encaps.generate_frames(content, number_of_frames=1))
    frame = frames[0] if len(frames) == 1 else b""
    is_whole = len(frame) > 0
    if syntax.startswith(JPEG):
        is_whole = frame.rstrip(b"\0").endswith(END_OF_IMAGE)
    elif syntax == pydicom.uid.RLELossless:
        is_whole = _is_run_length(frame, bits)
    if not is_whole:
        raise DataError(
            f"{path}: its pixels ({syntax.name}) end before the image does; it is damaged or cut off, copy it again"
        )
    if syntax.startswith(JPEG) and _size_of_jpeg(frame) != (rows, columns):
        raise DataError(
            f"{path}: its pixels ({syntax.name}) are no grey image of {columns} columns and {rows} rows, as its header "
            "says; it is damaged, copy it again"
        )


def _size_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of an image of one channel, by its own header; None where it says none."""
    try:
        if frame.startswith(JPEG_2000):
            right, bottom, left, top = struct.unpack_from(">4L", frame, 8)
            [channels] = struct.unpack_from(">H", frame, 40)
            return (bottom - top, right - left) if channels == 1 else None
        place = 2
        while frame[place] == 0xFF:
            mark = frame[place + 1]
            if mark == 0xFF:  # which may fill the space before a part
                place += 1
                continue
            [length] = struct.unpack_from(">H", frame, place + 2)
            if mark in FRAMES_OF_JPEG:
                bits, rows, columns, channels = struct.unpack_from(">BHHB", frame, place + 4)
                return (rows, columns) if channels == 1 and bits <= MOST_BITS else None
            place += 2 + length
    except (struct.error, IndexError):
        pass
    return None


def _is_run_length(frame: bytes, bits: int) -> bool:
    """Whether a frame begins with where its parts begin, one for each byte of a pixel: GDCM ends the process for others."""
    if len(frame) < RUN_LENGTH_HEADER.size:
        return False
    count, *starts = RUN_LENGTH_HEADER.unpack_from(frame)
    begin = starts[:count]
    in_order = begin == sorted(set(begin))
    return (
        count == bits // 8
        and in_order
        and begin[0] == RUN_LENGTH_HEADER.size
        and begin[-1] < len(frame)
    )
