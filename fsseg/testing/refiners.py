"""Checks of refiners."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.model.chain import resolution_of
from fsseg.testing import samples
from fsseg.testing.contract import Subject, check
from fsseg.testing.exercises import same
from fsseg.types import QueryVolume

TOLERANCE = 1e-4


@check("refiner")
def check_margins_for_margins(subject: Subject) -> None:
    """It gives finite margins of the shape that it got, for one way and for three, for a whole scan and for one slice."""
    for ways in (1, 3):
        for slices in (samples.SLICES, 1):
            volume = _first(samples.volume(ways), slices)
            for size in sizes_of(subject.build()):
                _check_margins(subject, samples.margins(ways, size)[:slices], volume)


def _check_margins(subject: Subject, margins: Tensor, volume: QueryVolume) -> None:
    refined = _refine(subject.build(), margins, volume)
    is_finite = refined.isfinite().all()
    if refined.shape != margins.shape or not is_finite:
        subject.fail(
            f"expected finite margins of shape {tuple(margins.shape)}, got {tuple(refined.shape)}"
            f"{'' if is_finite else ', some not finite'}"
        )


@check("refiner")
def check_resolution(subject: Subject) -> None:
    """`resolution`, if it has one, is "features", "image" or "any"; with the last it works on both grids."""
    try:
        resolution = resolution_of(subject.build())
    except FssegError as error:
        subject.fail(str(error))
    if resolution != "any":
        return
    for size in sizes_of(subject.build()):
        margins = samples.margins(size=size)
        try:
            refined = _refine(subject.build(), margins, samples.volume())
        except Exception as error:
            subject.fail(
                f'expected margins of {size} x {size} to be taken by one with resolution = "any", got '
                f"{type(error).__name__}: {error}"
            )
        if refined.shape != margins.shape:
            subject.fail(f"expected margins of {size} x {size}, got {tuple(refined.shape)}")


def sizes_of(refiner: Any) -> list[int]:
    """The sizes of margins, height or width, that a refiner takes."""
    sizes = {"features": [samples.CELLS], "image": [samples.SIZE]}
    return sizes.get(resolution_of(refiner), [samples.CELLS, samples.SIZE])


@check("refiner")
def check_ways_in_another_order(subject: Subject) -> None:
    """The ways in another order have the same margins in that order."""
    order = [2, 0, 1]
    margins = _margins(subject, 3)
    volume = samples.volume(3)
    expected = _refine(subject.build(), margins, volume)[:, order]
    moved = _refine(subject.build(), margins[:, order], samples.reordered(volume, order))
    if not same(expected, moved, TOLERANCE):
        subject.fail(
            "expected ways in another order to have the same margins in that order, got others"
        )


@check("refiner")
def check_nothing_is_foreground(subject: Subject) -> None:
    """Where nothing is foreground it gives finite margins, and where everything is too."""
    amount = _margins(subject).abs() + 1
    for what, margins in (("nothing", -amount), ("everything", amount)):
        refined = _refine(subject.build(), margins, samples.volume())
        if not refined.isfinite().all():
            subject.fail(
                f"expected finite margins where {what} is foreground, got some that are not"
            )


@check("refiner")
def check_keeps_nothing_of_a_scan(subject: Subject) -> None:
    """A scan leaves no trace: the first one's margins are the same after another."""
    instance = subject.build()
    margins = _margins(subject)
    volume = samples.volume()
    first = _refine(instance, margins, volume)
    another = replace(volume, features=volume.features.flip(0))
    _refine(instance, margins.flip(0) + 1, another)
    if not same(first, _refine(instance, margins, volume)):
        subject.fail(
            "expected the same answer for the same scan, got another after a second scan; keep nothing"
        )


def _margins(subject: Subject, ways: int = 1) -> Tensor:
    """Margins on a grid that the refiner takes."""
    return samples.margins(ways, sizes_of(subject.build())[0])


def _first(volume: QueryVolume, slices: int) -> QueryVolume:
    """The scan with its first slices alone."""
    return volume.part(slice(0, slices))


def _refine(instance: Any, margins: Tensor, volume: QueryVolume) -> Tensor:
    with torch.no_grad():
        return instance(margins, volume)
