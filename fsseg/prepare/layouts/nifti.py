"""Anybody's own scans: image and label files found by two patterns."""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from fsseg.data.datasets.patterns import find_files
from fsseg.errors import DataError
from fsseg.prepare.layouts.resaved import (
    IMAGE,
    LABEL,
    Classes,
    described,
    make,
    name_values,
    values_of,
)
from fsseg.prepare.plan import CasePlan, Plan, check_source, file_ids, identifier, pair_up
from fsseg.prepare.read import stored_with


def plan(
    source: Path,
    image: str,
    label: str,
    classes: Classes | None = None,
    name: str | None = None,
    modality: str | None = None,
) -> Plan:
    """Image and label pairs, by id.

    Args:
        source: The folder to search.
        image: Where images are below it: `{case}` stands for the id, the same wherever it repeats; `*` for anything
            within a name; `**/` for any folders.
        label: Where labels are, likewise.
        classes: Label values of each class; without it, every value found becomes a class.
        name: What tables call the dataset; otherwise the folder's name.
        modality: CT or MR, which decides how intensities are clipped when the dataset is read; otherwise not at all.

    Raises:
        DataError: A pattern is malformed, there is no image, a partner is missing, or two files have one id.
    """
    check_source(source, "the folder that both patterns start from")
    for option, pattern in (("--image", image), ("--label", label)):
        _check_pattern(option, pattern)
    images, labels = find_files(source, image), find_files(source, label)
    if not images:
        raise DataError(
            f"{source}: found no image, expected files named {image}; check --source and --image"
        )
    pairs = pair_up(source, images, labels, image, label)
    ids = file_ids(pairs, source)
    cases = tuple(
        CasePlan(ids[case], stored_with(a), stored_with(b)) for case, (a, b) in pairs.items()
    )
    notes = (
        ()
        if modality
        else ("no --modality: intensities will not be clipped; CT or MR sets that in dataset.toml",)
    )
    described_as = identifier(name or source.resolve().name)
    describing = partial(describe, name=described_as, modality=modality, classes=classes)
    return Plan("nifti", source, IMAGE, LABEL, cases, make, describing, notes)


def describe(
    cases: int, values: list[int], *, name: str, modality: str | None, classes: Classes | None
) -> tuple[dict[str, Any], list[str]]:
    """The dataset.toml."""
    if not classes:
        named = name_values(values)
        note = f"no --class: every label value became one ({', '.join(named)}); name them with --class liver=1"
        return described(name, modality, named), [note]
    others = [str(value) for value in values if value not in values_of(classes)]
    description, notes = described(name, modality, classes), []
    if others:
        description = {"other_labels": "background", **description}
        notes = [f"label values {', '.join(others)} have no --class and are taken as background"]
    absent = sorted(values_of(classes) - set(values))
    if absent:
        notes.append(f"label values {', '.join(map(str, absent))} of --class occur in no scan")
    return description, notes


def parse_classes(texts: list[str]) -> Classes:
    """`liver=1`, `kidneys=2,3`; raises DataError for anything else and for a value of two classes."""
    classes: Classes = {}
    for text in texts:
        name, sign, values = text.partition("=")
        numbers = [part.strip() for part in values.split(",")]
        if (
            not sign
            or not name.strip()
            or not all(part.isdecimal() and 0 < int(part) <= 65535 for part in numbers)
        ):
            raise DataError(
                f"--class {text}: expected NAME=VALUE with a value from 1 to 65535, for example liver=1"
            )
        taken = values_of(classes) & {int(part) for part in numbers}
        if taken or identifier(name) in classes:
            raise DataError(
                f"--class {text}: its name or value has a class already; give each once"
            )
        classes[identifier(name)] = (
            int(numbers[0]) if len(numbers) == 1 else [int(part) for part in numbers]
        )
    return classes


def _check_pattern(option: str, pattern: str) -> None:
    parts = PurePosixPath(pattern).parts
    if "{case}" not in pattern or pattern.startswith("/") or ".." in parts:
        raise DataError(
            f"{option} {pattern}: expected a path below --source with {{case}} in it, for example images/{{case}}.nii.gz"
        )
