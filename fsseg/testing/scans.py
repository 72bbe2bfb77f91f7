"""Checks of datasets, supervoxel methods and metrics."""

import math
from typing import Any

import numpy as np

from fsseg.data.datasets.phantom.dataset import AbdomenPhantom
from fsseg.data.folds import FoldScheme
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.testing import samples
from fsseg.testing.contract import Subject, check

SPACING = (5.0, 1.5, 1.2)


@check("dataset")
def check_cases(subject: Subject) -> None:
    """Cases are different names, at least two; an unknown one is a DataError."""
    dataset = subject.build()
    cases = list(dataset.cases)
    if (
        len(cases) < 2
        or len(set(cases)) != len(cases)
        or not all(isinstance(case, str) for case in cases)
    ):
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
    if not (isinstance(dataset.name, str) and dataset.name):
        subject.fail(f"expected a name for tables, got {dataset.name!r}")
    if (
        not dataset.classes
        or 0 in dataset.classes
        or not all(isinstance(name, str) for name in dataset.classes.values())
    ):
        subject.fail(
            f"expected a name for each label value without the background 0, got {dataset.classes!r}"
        )
    if not isinstance(dataset.folds, FoldScheme):
        subject.fail(f"expected folds to be a FoldScheme, got {dataset.folds!r}")
    if dataset.statistics not in ("volume", "training"):
        subject.fail(
            f"expected statistics to be 'volume' or 'training', got {dataset.statistics!r}"
        )
    least = dataset.supervoxel_min_size
    if least is not None and not (isinstance(least, int) and least > 0):
        subject.fail(f"expected supervoxel_min_size to be None or a positive number, got {least!r}")


@check("dataset")
def check_volumes(subject: Subject) -> None:
    """A scan has finite intensities slices first, labels of the same shape within the classes, and positive spacing."""
    dataset = subject.build()
    for case in list(dataset.cases)[:2]:
        volume = dataset.load(case)
        _check_volume(subject, volume, case)
        if volume.labels is not None and not set(np.unique(volume.labels)) <= {0, *dataset.classes}:
            strange = sorted(set(np.unique(volume.labels).tolist()) - {0, *dataset.classes})
            subject.fail(
                f"expected labels within 0 and {sorted(dataset.classes)}, got {strange} in {case}"
            )


def _check_volume(subject: Subject, volume: Any, case: str) -> None:
    if not isinstance(volume, Volume) or volume.case != case:
        subject.fail(
            f"expected the Volume of {case}, got {getattr(volume, 'case', type(volume).__name__)}"
        )
    image, labels = volume.image, volume.labels
    if (
        image.ndim != 3
        or not np.issubdtype(image.dtype, np.floating)
        or not np.isfinite(image).all()
    ):
        subject.fail(
            f"expected finite floating-point intensities of slice x height x width, got {image.dtype} {image.shape}"
        )
    if labels is not None and (labels.shape != image.shape or labels.dtype != np.uint8):
        subject.fail(
            f"expected uint8 labels of shape {image.shape}, got {labels.dtype} {labels.shape}"
        )
    if len(volume.spacing) != 3 or not all(0 < mm < math.inf for mm in volume.spacing):
        subject.fail(
            f"expected a positive spacing of slice, height and width in mm, got {volume.spacing}"
        )


@check("dataset")
def check_deterministic(subject: Subject) -> None:
    """A case is the same each time it is loaded, and loading another in between changes nothing."""
    dataset = subject.build()
    case, other = list(dataset.cases)[:2]
    first = dataset.load(case)
    image, labels = first.image.copy(), None if first.labels is None else first.labels.copy()
    dataset.load(other)
    again = dataset.load(case)
    if not np.array_equal(image, again.image) or (
        labels is not None and not np.array_equal(labels, again.labels)
    ):
        subject.fail(f"expected {case} to be the same each time it is loaded, got another scan")


@check("supervoxels")
def check_region_ids(subject: Subject) -> None:
    """It gives an int32 region id per voxel, none below 0, and more than one region."""
    dataset = AbdomenPhantom(count=4, size=64)
    volume = dataset.load(dataset.cases[0])
    regions = subject.build()(volume, dataset)
    if regions.shape != volume.image.shape or regions.dtype != np.int32:
        subject.fail(
            f"expected int32 of shape {volume.image.shape}, got {regions.dtype} {regions.shape}"
        )
    if regions.min() < 0 or len(np.unique(regions[regions > 0])) < 2:
        subject.fail(
            f"expected at least two regions with ids from 1, and 0 for what is never sampled, got {np.unique(regions)[:5]}"
        )


@check("metric")
def check_facts_of_metric(subject: Subject) -> None:
    """`range`, `best`, `symmetric` and `unit` are there, and the best value is within the range."""
    metric = subject.build()
    low, high = metric.range
    if not (low < high and low <= metric.best <= high and isinstance(metric.symmetric, bool)):
        subject.fail(
            f"expected best within range and symmetric true or false, got {metric.best}, {metric.range}"
        )
    if not isinstance(metric.unit, str):
        subject.fail(f"expected unit to be a string, perhaps empty, got {metric.unit!r}")


@check("metric")
def check_bounds(subject: Subject) -> None:
    """Values lie within `range` (or are NaN, where nothing is defined), whatever is predicted and whatever is there."""
    metric = subject.build()
    low, high = metric.range
    for predicted, actual in _pairs():
        value = metric(predicted, actual, SPACING)
        if not (math.isnan(value) or low <= value <= high):
            subject.fail(f"expected a value from {low} to {high}, got {value}")


@check("metric")
def check_best_for_a_perfect_prediction(subject: Subject) -> None:
    """A prediction that is the truth has the value `best`, and no other has a better one."""
    metric, (_, actual) = subject.build(), _pairs()[0]
    value = metric(actual, actual, SPACING)
    if not math.isclose(value, metric.best, abs_tol=1e-9):
        subject.fail(f"expected {metric.best} for a perfect prediction, got {value}")


@check("metric")
def check_symmetry(subject: Subject) -> None:
    """Where it says that it is symmetric, prediction and truth can change places."""
    metric = subject.build()
    for predicted, actual in _pairs():
        one, other = metric(predicted, actual, SPACING), metric(actual, predicted, SPACING)
        if metric.symmetric and not np.isclose(one, other, equal_nan=True):
            subject.fail(
                f"expected the same with prediction and truth changed over, got {one} and {other}"
            )


@check("metric")
def check_nan_rule(subject: Subject) -> None:
    """NaN where the class is in neither prediction nor truth, so that means leave the scan out; a number where both are."""
    metric, (predicted, actual) = subject.build(), _pairs()[0]
    nothing = np.zeros_like(actual)
    if not math.isnan(metric(nothing, nothing, SPACING)):
        subject.fail(
            f"expected NaN where the class is in neither, got {metric(nothing, nothing, SPACING)}"
        )
    if math.isnan(metric(predicted, actual, SPACING)):
        subject.fail("expected a number where the class is in both, got NaN")


def _pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and truths: overlapping, apart, one within the other, one empty, one voxel, everything."""
    first, second, small, far = (
        samples.disc(centre, radius).numpy()[None].repeat(4, axis=0)
        for centre, radius in (
            ((0.4, 0.4), 0.3),
            ((0.4, 0.5), 0.3),
            ((0.4, 0.4), 0.1),
            ((0.85, 0.85), 0.1),
        )
    )
    voxel, nothing, everything = np.zeros_like(first), np.zeros_like(first), np.ones_like(first)
    voxel[2, 10, 10] = True
    return [
        (first, second),
        (small, first),
        (far, small),
        (nothing, first),
        (first, nothing),
        (voxel, first),
        (everything, first),
    ]
