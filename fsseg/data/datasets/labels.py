"""Label values as files hold them: what is none, and what they are called.

Check, run, predict and prepare ask here, so that a value is a label to all of them or to none.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fsseg.data.datasets.description import Description
from fsseg.data.datasets.nifti import ScanFile, first_few

LARGEST = 65535
"""The largest label value."""

FEW = 32
"""So many values may be labels without a look at how they lie."""

MOSTLY = 0.5
"""Labels form areas: of neighbours that are not both background, at least this share has one value."""

TABLE = 2**20
"""Whole numbers below this are looked up in a table, which is many times faster than sorting voxels."""


def distinct_values(voxels: np.ndarray) -> Sequence[float]:
    """Returns the values that are there, in increasing order; NaN comes last."""
    if voxels.dtype.kind in "iu" and voxels.size and voxels.min() >= 0 and voxels.max() < TABLE:
        is_there = np.zeros(TABLE, dtype=bool)
        is_there[voxels] = True
        return np.flatnonzero(is_there).tolist()
    return np.unique(voxels).tolist()


def value_problems(labels: ScanFile) -> Iterator[str]:
    """Yields a sentence for values that are none of a label, whatever the classes."""
    values = distinct_values(labels.voxels)
    if looks_like_an_image(labels.voxels, values):
        yield _is_an_image(labels, values)
        return
    strange = [value for value in values if not is_label(value)]
    if strange:
        yield (
            f"{labels.path}: has label values {_listed(strange)}, expected whole numbers from 0 to {LARGEST}; "
            "set what belongs to no class to 0"
        )


def label_problems(labels: ScanFile, described: Description) -> Iterator[str]:
    """Yields a sentence for values of a label map that the description does not allow."""
    values = distinct_values(labels.voxels)
    known = {0: "background"}
    for name, numbers in described.class_values.items():
        known |= dict.fromkeys(numbers, name)
    strange = [value for value in values if value not in known]
    if strange and looks_like_an_image(labels.voxels, values):
        yield _is_an_image(labels, values)
        return
    if described.other_labels == "background":
        strange = [value for value in strange if not float(value).is_integer()]
    if strange:
        expected = ", ".join(f"{value} {name}" for value, name in known.items() if value)
        yield (
            f"{labels.path}: has labels {_listed(strange)}, expected 0 and {expected}; name the classes in the dataset's "
            'description (or set other_labels = "background" there), or correct the file'
        )


def is_label(value: float) -> bool:
    """Returns True for whole numbers from 0 to 65535."""
    return math.isfinite(value) and 0 <= value <= LARGEST and float(value).is_integer()


def looks_like_an_image(voxels: np.ndarray, values: Sequence[float]) -> bool:
    """Returns True for many values of which neighbours have different ones, as intensities do and labels do not.

    Args:
        voxels: What a file holds.
        values: The values that are there.
    """
    if len(values) <= FEW:
        return False
    alike = 0
    pairs = 0
    for axis in range(voxels.ndim):
        along = np.moveaxis(voxels, axis, 0)
        first = along[:-1]
        second = along[1:]
        is_pair = (first != 0) | (second != 0)
        pairs += int(is_pair.sum())
        alike += int((is_pair & (first == second)).sum())
    return alike < MOSTLY * pairs


def as_whole_numbers(labels: ScanFile) -> np.ndarray:
    """Returns labels without problems as integers: as stored, or else of the smallest type that holds them."""
    if labels.voxels.dtype.kind in "iu":
        return labels.voxels
    largest = int(labels.voxels.max(initial=0))
    return labels.voxels.astype(np.min_scalar_type(largest))


def _is_an_image(labels: ScanFile, values: Sequence[float]) -> str:
    return (
        f"{labels.path}: has {len(values)} values, and neighbouring voxels mostly differ; expected labels, which are few "
        "whole numbers in areas; is it the image?"
    )


def _listed(values: Sequence[float]) -> str:
    return first_few([f"{value:g}" for value in values])
