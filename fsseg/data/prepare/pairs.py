"""Any pairs of images and label maps that two patterns find; nothing is resampled, the files' affines stay as they are."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fsseg.data.patterns import find_files
from fsseg.data.prepare.plan import CasePlan, Plan, Prepared, check_source, file_ids
from fsseg.data.prepare.read import read_pair, stored_with
from fsseg.errors import DataError

EXPECTED = "a folder in which the patterns of --image and --label find files"


def plan(
    source: Path,
    image: str,
    label: str,
    classes: dict[str, list[int]] | None = None,
    name: str = "nifti",
    modality: str = "MR",
) -> Plan:
    """The cases that both patterns find.

    Args:
        source: Where to look.
        image: The images' path below it, with `{case}` (see fsseg.data.patterns).
        label: The labels' path, likewise.
        classes: Label values of each class; every value found becomes a class of its own when omitted.
        name: What tables call the dataset.
        modality: MR or CT; decides how intensities are clipped.

    Raises:
        DataError: A pattern finds nothing or two files for a case, or a case lacks its partner.
    """
    check_source(source, EXPECTED)
    for option, pattern in (("--image", image), ("--label", label)):
        if "{case}" not in pattern:
            raise DataError(f"{option} {pattern}: expected {{case}} in it, which stands for the id of a case")
    images, labels = find_files(source, image), find_files(source, label)
    for found, pattern in ((images, image), (labels, label)):
        if not found:
            raise DataError(f"{source}: found no file named {pattern}; correct the pattern or --source")
    for have, lack, what, pattern in ((images, labels, "label", label), (labels, images, "image", image)):
        missing = [case for case in have if case not in lack]
        if missing:
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{source}: {len(missing)} case(s) have no {what}: {names}; expected {pattern} for each, "
                "add the files or make the other pattern leave these out"
            )
    ids = file_ids(images, source)
    cases = tuple(CasePlan(ids[case], stored_with(images[case]), stored_with(labels[case])) for case in images)
    return Plan(
        layout="nifti",
        source=source,
        image="image_{case}.nii.gz",
        label="label_{case}.nii.gz",
        cases=cases,
        make=make_pair,
        describe=partial(_describe, classes, name, modality),
    )


def make_pair(case: CasePlan) -> Prepared:
    """One case on its own grid, with its own intensities."""
    image, labels = read_pair(case.image[0], case.label[0], case.options.get("channel"))
    steps = ["grid and intensities as they were"]
    if case.options.get("channel") is not None:
        steps.insert(0, f"channel {case.options['channel']} of several")
    if image.voxels.dtype.kind == "f":
        image = image.with_voxels(image.voxels.astype(np.float32))
    elif image.voxels.dtype.itemsize > 4:  # few programs read NIfTI with 64-bit integers
        image = image.with_voxels(image.voxels.astype(np.int32))
    return Prepared(image, labels, image.geometry(), steps)


def _describe(
    classes: dict[str, list[int]] | None, name: str, modality: str, cases: int, values: list[int]
) -> tuple[dict[str, Any], list[str]]:
    """The dataset.toml."""
    notes = []
    if classes is None:
        classes = {f"label_{value}": [value] for value in values}
        notes.append(f"classes are named {', '.join(classes)}; name them with --class NAME=VALUE, or in dataset.toml")
    others = [value for value in values if value not in {v for of in classes.values() for v in of}]
    if others:
        notes.append(f"label values {', '.join(map(str, others))} were given no name; they belong to no class")
    description = {
        "name": name,
        "modality": modality,
        "image": "image_{case}.nii.gz",
        "label": "label_{case}.nii.gz",
        **({"other_labels": "background"} if others else {}),
        "intensity": {"window": [-125, 275]} if modality == "CT" else {"percentiles": [0, 99.5]},
        "classes": {name: of[0] if len(of) == 1 else of for name, of in classes.items()},
    }
    return description, notes
