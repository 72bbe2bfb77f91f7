"""Anybody's own scans: image and label files found by two patterns."""

from functools import partial
from pathlib import Path
from typing import Any

from fsseg.data.datasets.finding import match_pairs
from fsseg.data.datasets.patterns import pattern_problem
from fsseg.errors import DataError
from fsseg.prepare.layouts.resaved import (
    IMAGE,
    LABEL,
    UNNAMED,
    described,
    make,
    name_values,
    values_of,
)
from fsseg.prepare.plan import (
    CasePlan,
    Classes,
    Plan,
    check_source,
    file_ids,
    identifier,
    name_classes,
    pair_up,
)
from fsseg.prepare.read import stored_with


def plan(
    source: Path,
    image: str,
    label: str,
    classes: Classes | None = None,
    name: str | None = None,
    modality: str | None = None,
) -> Plan:
    """Plans image and label pairs, by id.

    Args:
        source: The folder to search.
        image: Where images are below it: `{case}` stands for the id, the same wherever it repeats; `*` for anything
            within a name; `**/` for any folders.
        label: Where labels are, likewise. A file that both find is what the pattern says that says more of its name.
        classes: Label values of each class; without it, every value found becomes a class.
        name: What tables call the dataset; otherwise the folder's name.
        modality: CT or MR, which decides how intensities are clipped when the dataset is read; otherwise not at all.

    Raises:
        DataError: A pattern is malformed, there is no image, a partner is missing, or two files have one id.
    """
    check_source(source, "the folder that both patterns start from")
    for option, pattern in (("--image", image), ("--label", label)):
        problem = pattern_problem(pattern)
        if problem is not None:
            raise DataError(f"{option} {pattern!r} {problem}")
    found = match_pairs(source, image, label)
    found.raise_problems()
    if not found.images:
        raise DataError(
            f"{source}: found no image, expected files named {image}; check --source and --image"
        )
    pairs = pair_up(source, found.images, found.labels, image, label)
    ids = file_ids(pairs, source)
    cases: list[CasePlan] = []
    for case, (image_path, label_path) in pairs.items():
        cases.append(CasePlan(ids[case], stored_with(image_path), stored_with(label_path)))
    notes: list[str] = []
    if not modality:
        notes.append(
            "no --modality: intensities will not be clipped; CT or MR sets that in dataset.toml"
        )
    called = identifier(name or source.resolve().name) or UNNAMED
    describing = partial(describe, name=called, modality=modality, classes=classes)
    return Plan("nifti", source, IMAGE, LABEL, tuple(cases), make, describing, tuple(notes))


def describe(
    cases: int, values: list[int], *, name: str, modality: str | None, classes: Classes | None
) -> tuple[dict[str, Any], list[str]]:
    """Returns the contents of dataset.toml for so many cases, and notes for the user."""
    if not classes:
        classes = name_values(values)
        names = ", ".join(classes)
        note = f"no --class: every label value became one ({names}); name them with --class liver=1"
        return described(name, modality, classes), [note]
    description = described(name, modality, classes)
    named = values_of(classes)
    notes: list[str] = []
    others = [str(value) for value in values if value not in named]
    if others:
        description = {"other_labels": "background", **description}
        notes.append(
            f"label values {', '.join(others)} have no --class and are taken as background"
        )
    absent = [str(value) for value in sorted(named - set(values))]
    if absent:
        notes.append(f"label values {', '.join(absent)} of --class occur in no scan")
    return description, notes


def parse_classes(texts: list[str]) -> Classes:
    """Returns the classes of texts such as `liver=1` or `kidneys=2,3`.

    Raises DataError for anything else, and for a name or a value of two classes.
    """
    regions: list[tuple[str, list[int]]] = []
    taken: dict[int, str] = {}
    for text in texts:
        name, _, listed = text.rpartition("=")
        numbers = [part.strip() for part in listed.split(",")]
        if not name.strip() or not all(map(_is_label_value, numbers)):
            raise DataError(
                f"--class {text}: expected NAME=VALUE with a value from 1 to 65535, for example liver=1"
            )
        values = [int(number) for number in numbers]
        for value in values:
            other = taken.setdefault(value, text)
            if other != text or values.count(value) > 1:
                raise DataError(
                    f"--class {text}: the value {value} has a class already ({other}); give each value once"
                )
        regions.append((name, values))
    return name_classes("--class", regions)


def _is_label_value(text: str) -> bool:
    return text.isdecimal() and len(text) <= 5 and 0 < int(text) <= 65535
