"""Checks of datasets."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fsseg.data.class_names import problems_of_names
from fsseg.data.folds import FoldScheme
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.testing.contract import Subject, check


@check("dataset")
def check_cases(subject: Subject) -> None:
    """Cases are different names, at least two; an unknown one is a DataError."""
    dataset = subject.build()
    cases = list(dataset.cases)
    if len(cases) < 2 or len(set(cases)) < len(cases) or not _are_names(cases):
        subject.fail(f"expected at least two cases with names of their own, got {cases[:5]}")
    try:
        dataset.load("no such case")
    except DataError:
        return
    except Exception as error:
        subject.fail(
            f"expected a DataError for a case that is not there, got {type(error).__name__}: {error}"
        )
    subject.fail("expected a DataError for a case that is not there, got a volume")


@check("dataset")
def check_facts(subject: Subject) -> None:
    """`name`, `classes`, `folds`, `statistics` and `supervoxel_min_size` are there and can be used."""
    dataset = subject.build()
    if not dataset.name or not _are_names([dataset.name]):
        subject.fail(f"expected a name for tables, got {dataset.name!r}")
    classes = dataset.classes
    if not classes or 0 in classes or not _are_names(classes.values()):
        subject.fail(
            f"expected a name for each label value without the background 0, got {classes!r}"
        )
    for problem in problems_of_names(classes.values()):
        subject.fail(problem)
    if not isinstance(dataset.folds, FoldScheme):
        subject.fail(f"expected folds to be a FoldScheme, got {dataset.folds!r}")
    if dataset.statistics not in ("volume", "training"):
        subject.fail(
            f"expected statistics to be 'volume' or 'training', got {dataset.statistics!r}"
        )
    least = dataset.supervoxel_min_size
    is_positive = isinstance(least, int) and least > 0
    if least is not None and not is_positive:
        subject.fail(f"expected supervoxel_min_size to be None or a positive number, got {least!r}")


def _are_names(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


@check("dataset")
def check_volumes(subject: Subject) -> None:
    """A scan has finite intensities slices first, labels of the same shape within the classes, and positive spacing."""
    dataset = subject.build()
    for case in list(dataset.cases)[:2]:
        volume = dataset.load(case)
        if not isinstance(volume, Volume) or volume.case != case:
            got = getattr(volume, "case", type(volume).__name__)
            subject.fail(f"expected the Volume of {case}, got {got}")
        _check_image(subject, volume)
        if volume.labels is not None:
            _check_labels(subject, volume.labels, volume.shape, dataset.classes)


def _check_image(subject: Subject, volume: Volume) -> None:
    image = volume.image
    is_floating = np.issubdtype(image.dtype, np.floating)
    if image.ndim not in (3, 4) or not is_floating or not np.isfinite(image).all():
        subject.fail(
            f"expected finite floating-point intensities of slice x height x width (or slice x channel x height x width), got {image.dtype} {image.shape}"
        )
    spacing = volume.spacing
    if len(spacing) != 3 or not all(0 < mm < math.inf for mm in spacing):
        subject.fail(f"expected a positive spacing of slice, height and width in mm, got {spacing}")


def _check_labels(
    subject: Subject, labels: np.ndarray, shape: tuple[int, ...], classes: dict[int, str]
) -> None:
    if labels.shape != shape or labels.dtype != np.uint8:
        subject.fail(f"expected uint8 labels of shape {shape}, got {labels.dtype} {labels.shape}")
    values = set(np.unique(labels).tolist())
    strange = sorted(values - set(classes) - {0})
    if strange:
        subject.fail(f"expected labels within 0 and {sorted(classes)}, got {strange}")


@check("dataset")
def check_deterministic(subject: Subject) -> None:
    """A case is the same each time it is loaded, and loading another in between changes nothing."""
    dataset = subject.build()
    case, other = list(dataset.cases)[:2]
    image, labels = _copied(dataset.load(case))
    dataset.load(other)
    image_again, labels_again = _copied(dataset.load(case))
    is_same = np.array_equal(image, image_again) and np.array_equal(labels, labels_again)
    if not is_same:
        subject.fail(f"expected {case} to be the same each time it is loaded, got another scan")


def _copied(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """A scan's intensities and labels, which are empty where there are none."""
    labels = np.zeros(0) if volume.labels is None else volume.labels
    return volume.image.copy(), labels.copy()
