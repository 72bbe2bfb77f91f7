"""Reading one scan file, and everything that can be wrong with it. No torch: worker processes start fast."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Num

from fsseg.data.datasets.labels import value_problems
from fsseg.data.datasets.nifti import ScanFile, first_few, read_channels, read_nifti
from fsseg.data.datasets.scans import image_problems, pair_problems, pair_warnings
from fsseg.errors import DataError
from fsseg.prepare.foreign import ENDINGS, read_foreign, read_header
from fsseg.prepare.scan import Scan

NIFTI = (".nii", ".nii.gz")
OTHER = ENDINGS


def read_scan(path: Path, channel: int | None = None) -> ScanFile:
    """Reads NIfTI, or NRRD and MetaImage through SimpleITK; scaled integers come as float32.

    Args:
        path: The file.
        channel: Of a NIfTI file with several channels (a fourth axis); None refuses such files.

    Raises:
        DataError: It is missing, cut off, of another format, in colours or not three-dimensional.
    """
    name = path.name.lower()
    if name.endswith(OTHER):
        return read_foreign(path)
    if name.endswith(NIFTI):
        return read_nifti(path, channel)
    known = ", ".join(NIFTI + OTHER)
    raise DataError(f"{path}: is of an unknown format, expected {known}; convert it to NIfTI")


class Pair(NamedTuple):
    """An image and its labels as read.

    Attributes:
        image: The image.
        labels: Its labels, as uint8 or uint16.
        notes: What is strange in their headers, a sentence each.
    """

    image: Scan
    labels: Scan
    notes: tuple[str, ...]


def read_pair(image: Path, label: Path, channel: int | None = None) -> Pair:
    """Reads an image and its labels; raises DataError listing all that is wrong with them."""
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
    return Pair(
        image=Scan(scan.voxels, scan.affine),
        labels=Scan(values, labels.affine),
        notes=tuple(pair_warnings(scan, labels)),
    )


def read_pair_of_channels(images: Sequence[Path], label: Path, names: Sequence[str]) -> Pair:
    """Reads an image of several channels and its labels; raises DataError listing all that is wrong with them.

    Args:
        images: A file of each channel, or one with all of them along its fourth axis.
        label: The file of the labels.
        names: The names of the channels.
    """
    if len(images) == 1:
        channels = read_channels(images[0], names, "correct dataset.json, or the file")
    else:
        channels = [read_scan(path) for path in images]
    labels = read_scan(label)
    first = channels[0]
    problems: list[str] = []
    for name, channel in zip(names, channels, strict=True):
        problems += image_problems(replace(channel, channel=name))
        if channel.path != first.path:
            problems += pair_problems(first, channel, f"channel {name}")
    problems += [*value_problems(labels), *pair_problems(first, labels)]
    if problems:
        raise DataError("\n".join(problems))
    voxels = np.stack([channel.voxels for channel in channels], axis=-1)
    return Pair(
        image=Scan(voxels, first.affine),
        labels=Scan(as_small(labels.voxels), labels.affine),
        notes=tuple(pair_warnings(first, labels)),
    )


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
    """Returns the files that a scan file consists of: itself, and the one that its header names for the voxels."""
    if not path.name.lower().endswith(OTHER):
        return (path,)
    try:
        data = read_header(path).data
    except DataError:  # which is told when its case is made
        return (path,)
    return (path,) if data == path else (path, data)
