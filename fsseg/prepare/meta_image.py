"""The text of a MetaImage header, checked before SimpleITK reads it: its own reader ends the process for some that are damaged."""

import math
import re
from collections.abc import Callable
from pathlib import Path

from fsseg.errors import DataError

LONGEST_LINE = 1000
"""Characters of a line; those with numbers have some dozens."""

MOST_DIMENSIONS = 4

LARGEST = 2**40
"""Counts and sizes are smaller."""

ELEMENT = re.compile(r"MET_U?(CHAR|SHORT|INT|LONG|LONG_LONG|FLOAT|DOUBLE)(_ARRAY)?")
"""The types of voxels."""

VECTORS = ("ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation")
MATRICES = ("TransformMatrix", "Rotation", "Orientation")
COUNTS = ("ElementNumberOfChannels", "CompressedDataSize")
REQUIRED = ("NDims", "DimSize", "ElementType")


def meta_image_fields(path: Path, text: str) -> dict[str, str]:
    """Returns the fields of a header by their names.

    Args:
        path: Its file, for messages.
        text: The lines before the one that names the file with the voxels.

    Raises:
        DataError: A field is missing, is there twice, or is none of the numbers that it should be.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if len(line) > LONGEST_LINE:
            _refuse(path, f"has a line of {len(line)} characters")
        name, *value = re.split("[=:]", line, maxsplit=1)
        name = name.strip()
        if name in fields:
            _refuse(path, f"has {name} twice")
        fields[name] = "".join(value).strip()
    for name in REQUIRED:
        if name not in fields:
            _refuse(path, f"lacks {name}")
    dimensions = fields["NDims"]
    if dimensions not in [str(count) for count in range(1, MOST_DIMENSIONS + 1)]:
        _refuse(path, f"says NDims = {dimensions}")
    for name, is_right in _rules(int(dimensions)).items():
        if name in fields and not is_right(fields[name]):
            _refuse(path, f"says {name} = {fields[name]}")
    return fields


def _rules(dimensions: int) -> dict[str, Callable[[str], bool]]:
    """What fields have to be."""

    def is_vector(text: str) -> bool:
        return _are_numbers(text, dimensions)

    def is_matrix(text: str) -> bool:
        return _are_numbers(text, dimensions**2)

    def is_shape(text: str) -> bool:
        return len(text.split()) == dimensions and all(map(_is_count, text.split()))

    rules: dict[str, Callable[[str], bool]] = {"DimSize": is_shape, "HeaderSize": _is_offset}
    rules["ElementType"] = lambda text: ELEMENT.fullmatch(text) is not None
    rules["CompressedData"] = lambda text: text.lower() in ("true", "false")
    rules |= dict.fromkeys(VECTORS, is_vector)
    rules |= dict.fromkeys(MATRICES, is_matrix)
    return rules | dict.fromkeys(COUNTS, _is_count)


def _are_numbers(text: str, count: int) -> bool:
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return False
    return len(numbers) == count and all(map(math.isfinite, numbers))


def _is_count(text: str) -> bool:
    return re.fullmatch("[0-9]{1,13}", text) is not None and 0 < int(text) < LARGEST


def _is_offset(text: str) -> bool:
    return text in ("-1", "0") or _is_count(text)


def _refuse(path: Path, reason: str) -> None:
    shown = reason if len(reason) < 100 else f"{reason[:100]}..."
    printable = "".join(letter if letter.isprintable() else "?" for letter in shown)
    raise DataError(
        f"{path}: cannot be read as an image (its header {printable}); it is damaged, copy it again"
    )
