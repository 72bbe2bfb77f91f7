"""Checks of fold schemes."""

import json
from types import SimpleNamespace
from typing import Any

from fsseg.data.folds import FoldScheme, listed_folds, make_fold
from fsseg.errors import FssegError
from fsseg.testing.contract import Subject, check


@check("folds")
def check_scheme(subject: Subject) -> None:
    """Called with a dataset it gives a FoldScheme with a name and at least one fold, of plain values."""
    scheme = _scheme(subject, _dataset())
    if not scheme.name or not isinstance(scheme.name, str):
        subject.fail(f"expected a name for tables, got {scheme.name!r}")
    if not isinstance(scheme.folds, int) or scheme.folds < 1:
        subject.fail(f"expected at least one fold, got {scheme.folds!r}")
    try:
        json.dumps(scheme.definition("last"))
    except (TypeError, ValueError) as error:
        subject.fail(
            f"expected fields of texts, numbers and tuples of these, of which a hash is made, got {error}"
        )


@check("folds")
def check_every_fold(subject: Subject) -> None:
    """Every fold has a query and a support, cases of the dataset that differ, and leaves others for training."""
    scheme = _scheme(subject, _dataset())
    counts = scheme.cases or (12,)
    for count in counts:
        dataset = _dataset(count)
        scheme = _scheme(subject, dataset)
        for index in range(scheme.folds):
            try:
                make_fold(scheme, dataset.cases, index)
            except FssegError as error:
                subject.fail(f"expected every fold of {count} cases to be usable, got: {error}")


@check("folds")
def check_same_folds_again(subject: Subject) -> None:
    """Two of the same options divide alike, again and again."""
    dataset = _dataset()
    divided = []
    for scheme in (_scheme(subject, dataset), _scheme(subject, dataset)):
        count = scheme.cases[0] if scheme.cases else 12
        cases = _dataset(count).cases
        for _ in range(2):
            divided.append([scheme.divide(cases, index) for index in range(scheme.folds)])
    if any(folds != divided[0] for folds in divided):
        subject.fail(
            "expected the same folds each time, got others; draw from a generator that is seeded by an option"
        )


def _scheme(subject: Subject, dataset: Any) -> FoldScheme:
    scheme = subject.build()(dataset)
    if not isinstance(scheme, FoldScheme):
        subject.fail(f"expected a fsseg.FoldScheme, got {scheme!r}")
    return scheme


def _dataset(count: int = 12) -> Any:
    """As much of a dataset as folds may look at; its own folds are two lists."""
    cases = [f"case_{number:02}" for number in range(1, count + 1)]
    folds = listed_folds([cases[:4], cases[4:8]])
    return SimpleNamespace(name="checked", cases=cases, classes={1: "organ"}, folds=folds)
