"""Scans that are only saved anew: intensities and grid stay as they are (the layouts `msd` and `nifti`)."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from fsseg.prepare.plan import CasePlan, Prepared
from fsseg.prepare.read import check_values, read_pair

IMAGE, LABEL = "image_{case}.nii.gz", "label_{case}.nii.gz"
INTENSITY = {"CT": {"window": [-125, 275]}, "MR": {"percentiles": [0, 99.5]}}

Classes = dict[str, int | list[int]]


def make(case: CasePlan) -> Prepared:
    """One scan. Options: `channel` (a number, of files with several), `ignore` (label values that become 0), `known`
    (the label values that may occur, as text, with their names)."""
    options = case.options
    image, labels = read_pair(case.image[0], case.label[0], options.get("channel"))
    before = image.geometry()
    if options.get("known"):
        check_values(
            case.label[0], labels, {int(value): name for value, name in options["known"].items()}
        )
    steps = ["intensities and grid as in the source"]
    if options.get("channel") is not None:
        steps.append(f"channel {options['channel']} of several")
    if options.get("ignore"):
        marked = np.isin(labels.voxels, options["ignore"])
        labels = labels.with_voxels(np.where(marked, 0, labels.voxels).astype(labels.voxels.dtype))
        steps.append(f"{int(marked.sum())} voxels labelled to be ignored became background")
    labels = labels.with_voxels(
        labels.voxels.astype(np.uint8 if labels.voxels.max() <= 255 else np.uint16)
    )
    # Both files say the same place within a hundredth of a millimetre; one of them counts.
    return Prepared(image, image.with_voxels(labels.voxels), before, steps)


def described(name: str, modality: str | None, classes: Classes) -> dict[str, Any]:
    """The dataset.toml without what depends on the values found."""
    description: dict[str, Any] = {"name": name}
    if modality:
        description["modality"] = modality
    description |= {"image": IMAGE, "label": LABEL}
    if modality in INTENSITY:
        description["intensity"] = INTENSITY[modality]
    return description | {"classes": classes}


def values_of(classes: Classes) -> set[int]:
    """All label values that have a class."""
    return {
        value
        for values in classes.values()
        for value in (values if isinstance(values, list) else [values])
    }


def name_values(values: Iterable[int]) -> Classes:
    """A class for each value, named after it."""
    return {f"label_{value}": value for value in values}
