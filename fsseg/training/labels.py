"""The one place where training meets labels: never those of a class that is evaluated."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fsseg.data.volume import Volume
from fsseg.errors import DataError, FssegError
from fsseg.plugins.options import nearest


def training_classes(
    wanted: Sequence[str], classes: Mapping[int, str], evaluated: Collection[str]
) -> dict[int, str]:
    """The classes whose labels a source of episodes may see, by label value.

    Args:
        wanted: The names that the source asks for.
        classes: The dataset's classes: names by label value.
        evaluated: The names of those that are evaluated.

    Raises:
        FssegError: It asks for a class that is evaluated, or that the dataset does not have.
    """
    known = list(classes.values())
    for name in wanted:
        if name not in known:
            raise FssegError(
                f"episodes.source: the dataset has no class {name!r}; {nearest(name, known)}"
            )
        if name in evaluated:
            raise FssegError(
                f"episodes.source: it trains on labels of {name}, which is evaluated; expected other classes, so that no "
                "result is of what training was shown; leave it out of the source's classes, or evaluate others with "
                "protocol.classes"
            )
    return {value: name for value, name in classes.items() if name in wanted}


def with_labels_of(volume: Volume, classes: Mapping[int, str]) -> Volume:
    """A scan with the labels of these classes alone, and without any where there are none.

    Raises:
        DataError: The scan has no labels, but some are asked for.
    """
    if not classes:
        return replace(volume, labels=None)
    if volume.labels is None:
        raise DataError(
            f"case {volume.case}: it has no labels, but episodes.source trains on those of "
            f"{' and '.join(classes.values())}; add its label file, or choose another source"
        )
    is_shown = np.isin(volume.labels, list(classes))
    return replace(volume, labels=np.where(is_shown, volume.labels, 0).astype(volume.labels.dtype))
