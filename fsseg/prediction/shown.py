"""What a labelled scan shows: its classes, and which of its slices are learned from."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Integer

from fsseg.data.volume import Volume
from fsseg.errors import DataError


def labels_of(support: Volume) -> Integer[np.ndarray, "slice height width"]:
    """The labels of a support; raises DataError where it has none."""
    if support.labels is None:
        raise DataError(
            f"support {support.case}: it has no labels, expected at least one labelled slice"
        )
    return support.labels


def names_of_classes(support: Volume, classes: dict[int, str] | None) -> dict[int, str]:
    """The classes to learn by label value; raises DataError where the support does not show one."""
    values = sorted(set(np.unique(labels_of(support)).tolist()) - {0})
    names = {value: str(value) for value in values} if classes is None else classes
    missing = [value for value in names if value not in values]
    if missing or not names:
        lacking = missing[0] if missing else "foreground"
        raise DataError(
            f"support {support.case}: its labels have no {lacking}, expected voxels of every class; "
            f"there are {values or 'none'}"
        )
    return names


def choose_slices(
    volume: Volume,
    values: tuple[int, ...],
    slices: Sequence[int] | None,
) -> list[int]:
    """The slices that are wanted, or the fullest; raises DataError for one that does not show all classes."""
    voxels = _voxels_of_smallest(volume, values)
    fullest = int(voxels.argmax())
    chosen = [fullest] if slices is None else list(slices)
    classes = " and ".join(map(str, values))
    if not voxels.any():
        raise DataError(f"support {volume.case}: no slice shows {classes} on the working grid")
    for number in chosen:
        if not 0 <= number < len(voxels) or not voxels[number]:
            raise DataError(
                f"support {volume.case}: slice {number} does not show {classes}, expected a slice "
                f"that does, such as {fullest} (they count from 0)"
            )
    return chosen


def _voxels_of_smallest(volume: Volume, values: tuple[int, ...]) -> Int[np.ndarray, "slice"]:
    """The voxels of the class that is smallest in each slice."""
    labels = labels_of(volume)
    voxels = [(labels == value).sum(axis=(1, 2)) for value in values]
    return np.stack(voxels).min(axis=0)
