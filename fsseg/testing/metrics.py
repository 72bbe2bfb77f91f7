"""Checks of metrics."""

import math
from typing import Any

import numpy as np

from fsseg.evaluation.metrics import value_of
from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.samples import SPACING


@check("metric")
def check_facts_of_metric(subject: Subject) -> None:
    """`range`, `best`, `symmetric` and `unit` are there, and the best value is within the range."""
    metric = subject.build()
    low, high = metric.range
    is_within = low < high and low <= metric.best <= high
    if not is_within or not isinstance(metric.symmetric, bool):
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
        value = _value(metric, predicted, actual)
        if not (math.isnan(value) or low <= value <= high):
            subject.fail(f"expected a value from {low} to {high}, got {value}")


@check("metric")
def check_best_for_a_perfect_prediction(subject: Subject) -> None:
    """A prediction that is the truth has the value `best`, and no other has a better one."""
    metric = subject.build()
    truth = samples.cylinder((0.4, 0.5), 0.3)
    value = value_of(metric, truth, truth, SPACING, truth.astype(np.float32))
    if not math.isclose(value, metric.best, abs_tol=1e-9):
        subject.fail(f"expected {metric.best} for a perfect prediction, got {value}")


@check("metric")
def check_symmetry(subject: Subject) -> None:
    """Where it says that it is symmetric, prediction and truth can change places."""
    metric = subject.build()
    for predicted, actual in _pairs():
        value = _value(metric, predicted, actual)
        swapped = _value(metric, actual, predicted)
        if metric.symmetric and not np.isclose(value, swapped, equal_nan=True):
            subject.fail(
                f"expected the same with prediction and truth changed over, got {value} and {swapped}"
            )


@check("metric")
def check_nan_rule(subject: Subject) -> None:
    """NaN where the class is in neither prediction nor truth, so that means leave the scan out; a number where both are."""
    metric = subject.build()
    predicted, actual = _pairs()[0]
    nothing = np.zeros_like(actual)
    value = _value(metric, nothing, nothing)
    if not math.isnan(value):
        subject.fail(f"expected NaN where the class is in neither, got {value}")
    if math.isnan(_value(metric, predicted, actual)):
        subject.fail("expected a number where the class is in both, got NaN")


@check("metric")
def check_probabilities(subject: Subject) -> None:
    """Where it asks for probabilities, it says `probabilities = True`, and slices that are not segmented (NaN) change nothing."""
    metric = subject.build()
    declared = getattr(metric, "probabilities", False)
    if not isinstance(declared, bool):
        subject.fail(f"expected `probabilities` to be true or false, got {declared!r}")
    if not declared:
        raise NotApplicable("it asks for no probabilities")
    predicted, actual = _pairs()[0]
    probability = samples.probability(predicted)
    value = metric(predicted, actual, SPACING, probability)
    unsegmented = np.full_like(probability[:2], np.nan)
    nothing = np.zeros_like(predicted[:2])
    longer = metric(
        np.concatenate([predicted, nothing]),
        np.concatenate([actual, nothing]),
        SPACING,
        np.concatenate([probability, unsegmented]),
    )
    if not math.isclose(value, longer, rel_tol=1e-9):
        subject.fail(
            f"expected the same with slices that are not segmented, whose probability is NaN, got {value} and {longer}; "
            "leave those voxels out"
        )


def _value(metric: Any, predicted: np.ndarray, actual: np.ndarray) -> float:
    """The value of a prediction, with probabilities that fit it."""
    return value_of(metric, predicted, actual, SPACING, samples.probability(predicted))


def _pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and truths: overlapping, apart, one within the other, one empty, one voxel, everything."""
    first = samples.cylinder((0.4, 0.4), 0.3)
    second = samples.cylinder((0.4, 0.5), 0.3)
    small = samples.cylinder((0.4, 0.4), 0.1)
    far = samples.cylinder((0.85, 0.85), 0.1)
    nothing = np.zeros_like(first)
    everything = np.ones_like(first)
    voxel = np.zeros_like(first)
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
