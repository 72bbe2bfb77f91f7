"""Scans that are only saved anew: intensities and grid stay as they are (the layouts `msd` and `nifti`)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fsseg.prepare.plan import CasePlan, Classes, Prepared
from fsseg.prepare.read import as_small, check_values, read_pair, read_pair_of_channels

IMAGE = "image_{case}.nii.gz"
LABEL = "label_{case}.nii.gz"

UNNAMED = "scans"
"""What a dataset is called whose folder's name has no letter."""

INTENSITY = {
    "CT": {"window": [-125, 275]},
    "MR": {"percentiles": [0, 99.5]},
}
"""The `[intensity]` of dataset.toml by modality."""


def make(case: CasePlan) -> Prepared:
    """Makes one scan of what its plan's options say.

    They are `channel` (a number, of files with several), `channels` (the names of all, where all are kept), `ignore` (label values that become 0) and `known` (the label
    values that may occur, as text, with their names).
    """
    channel = case.options.get("channel")
    ignored = case.options.get("ignore")
    known = case.options.get("known")
    label_path = case.label[0]
    names_of_channels = case.options.get("channels")
    if names_of_channels:
        pair = read_pair_of_channels(case.image, label_path, names_of_channels)
    else:
        pair = read_pair(case.image[0], label_path, channel)
    image, labels, notes = pair
    if known:
        names = {int(value): name for value, name in known.items()}
        check_values(label_path, labels, names)
    steps = ["intensities and grid as in the source"]
    if channel is not None:
        steps.append(f"channel {channel} of several")
    if names_of_channels:
        steps.append(f"channels {', '.join(names_of_channels)} along the fourth axis")
    values = labels.voxels
    if ignored:
        marked = np.isin(values, ignored)
        values = np.where(marked, 0, values)
        steps.append(f"{int(marked.sum())} voxels labelled to be ignored became background")
    # Both files say the same place within a hundredth of a millimetre; one of them counts.
    return Prepared(
        image=image,
        label=image.with_voxels(as_small(values)),
        before=image.geometry(),
        steps=steps,
        notes=notes,
    )


def described(
    name: str, modality: str | None, classes: Classes, channels: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the contents of dataset.toml without what depends on the values in the label maps."""
    description: dict[str, Any] = {"name": name}
    if modality:
        description["modality"] = modality
    description |= {"image": IMAGE, "label": LABEL}
    if channels:
        description["channels"] = list(channels)
    if modality in INTENSITY:
        description["intensity"] = INTENSITY[modality]
    return description | {"classes": classes}


def values_of(classes: Classes) -> set[int]:
    """Returns all label values that have a class."""
    listed: set[int] = set()
    for values in classes.values():
        listed |= set(values) if isinstance(values, list) else {values}
    return listed


def name_values(values: Iterable[int]) -> Classes:
    """Returns a class for each value, named after it."""
    return {f"label_{value}": value for value in values}
