"""Checks of refiners."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fsseg.testing import samples
from fsseg.testing.contract import Subject, check
from fsseg.testing.exercises import same
from fsseg.types import QueryVolume

TOLERANCE = 1e-4


@check("refiner")
def check_margins_for_margins(subject: Subject) -> None:
    """It gives finite margins of the shape that it got, for one way and for three, for a whole scan and for one slice."""
    for ways in (1, 3):
        margins, volume = samples.margins(ways), samples.volume(ways)
        for count in (samples.SLICES, 1):
            refined = _refine(subject.build(), margins[:count], _first(volume, count))
            if refined.shape != margins[:count].shape or not refined.isfinite().all():
                subject.fail(
                    f"expected finite margins of shape {tuple(margins[:count].shape)}, got {tuple(refined.shape)}"
                    f"{'' if refined.isfinite().all() else ', some not finite'}"
                )


@check("refiner")
def check_ways_in_another_order(subject: Subject) -> None:
    """The ways in another order have the same margins in that order."""
    order, margins, volume = [2, 0, 1], samples.margins(3), samples.volume(3)
    support, prototypes = volume.support, volume.prototypes
    moved = replace(
        volume,
        support=replace(
            support,
            images=support.images[order],
            masks=support.masks[order],
            location=support.location[order],
        ),
        prototypes=replace(
            prototypes, foreground=prototypes.foreground[order], weights=prototypes.weights[order]
        ),
    )
    expected = _refine(subject.build(), margins, volume)[:, order]
    if not same(expected, _refine(subject.build(), margins[:, order], moved), TOLERANCE):
        subject.fail(
            "expected ways in another order to have the same margins in that order, got others"
        )


@check("refiner")
def check_nothing_is_foreground(subject: Subject) -> None:
    """Where nothing is foreground it gives finite margins, and where everything is too."""
    volume = samples.volume()
    for what, margins in (
        ("nothing", -samples.margins().abs() - 1),
        ("everything", samples.margins().abs() + 1),
    ):
        if not _refine(subject.build(), margins, volume).isfinite().all():
            subject.fail(
                f"expected finite margins where {what} is foreground, got some that are not"
            )


@check("refiner")
def check_keeps_nothing_of_a_scan(subject: Subject) -> None:
    """A scan leaves no trace: the first one's margins are the same after another."""
    instance, margins, volume = subject.build(), samples.margins(), samples.volume()
    first = _refine(instance, margins, volume)
    _refine(instance, margins.flip(0) + 1, replace(volume, features=volume.features.flip(0)))
    if not same(first, _refine(instance, margins, volume)):
        subject.fail(
            "expected the same answer for the same scan, got another after a second scan; keep nothing"
        )


def _first(volume: QueryVolume, count: int) -> QueryVolume:
    return replace(
        volume, query=volume.query.part(slice(0, count)), features=volume.features[:count]
    )


def _refine(instance: Any, margins: Tensor, volume: QueryVolume) -> Tensor:
    with torch.no_grad():
        return instance(margins, volume)
