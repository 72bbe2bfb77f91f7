"""Checks of sources of episodes."""

from dataclasses import astuple
from typing import Any

import numpy as np

from fsseg.errors import DataError, PluginError
from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.training.pairs import require_pair
from fsseg.training.scans import TrainingScan

DRAWS = 16
"""Pairs that are looked at."""


@check("episodes")
def check_classes(subject: Subject) -> None:
    """`classes`, if it has them, are names of the classes whose labels it needs, in a list or a tuple."""
    classes = getattr(subject.build(), "classes", [])
    is_listed = isinstance(classes, list | tuple)
    if not is_listed or not all(isinstance(name, str) for name in classes):
        subject.fail(f"expected classes to be a list of names, perhaps empty, got {classes!r}")


@check("episodes")
def check_usable_scans(subject: Subject) -> None:
    """`usable`, if it has it, chooses among the scans, and says in a DataError that scans without a region show nothing."""
    instance = subject.build()
    if not hasattr(instance, "usable"):
        raise NotApplicable("it has no method usable")
    scans = samples.training_scans(instance)
    usable = instance.usable(scans)
    if not usable or any(all(each is not scan for scan in scans) for each in usable):
        subject.fail(f"expected some of the {len(scans)} scans that it was given, got others")
    try:
        answer = instance.usable(samples.training_scans(None, empty=True))
    except DataError:
        return
    subject.fail(
        f"expected a DataError for scans without any region, which says what to do, got {len(answer)} scans"
    )


@check("episodes")
def check_pairs(subject: Subject) -> None:
    """A pair is of two slices of the scans that it was given, of one size, and the support shows the region."""
    instance = subject.build()
    scans = _usable(instance)
    for seed in range(DRAWS):
        pair = instance.pair(scans, np.random.default_rng(seed))
        try:
            require_pair(instance, pair, scans)
        except PluginError as error:
            subject.fail(f"expected a pair of the scans, got one that is none ({error})")
        if pair.least < 1:
            subject.fail(f"expected `least` to be a number of pixels, at least 1, got {pair.least}")


@check("episodes")
def check_same_pair(subject: Subject) -> None:
    """The same generator gives the same pair, and different ones give several."""
    instance = subject.build()
    scans = _usable(instance)
    drawn = set()
    for seed in range(DRAWS):
        first, second = (
            astuple(instance.pair(scans, np.random.default_rng(seed))) for _ in range(2)
        )
        if first != second:
            subject.fail(
                "expected the same pair from the same generator, got another; draw from nothing else"
            )
        drawn.add(first)
    if len(drawn) == 1:
        subject.fail(f"expected several pairs from {DRAWS} generators, got one")


@check("episodes")
def check_others(subject: Subject) -> None:
    """`others`, if it has it, gives further regions of the support, each once and none that is the pair's, at most so many."""
    instance = subject.build()
    if not hasattr(instance, "others"):
        raise NotApplicable("it has no method others")
    scans = _usable(instance)
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        pair = instance.pair(scans, rng)
        scan = scans[pair.support.scan]
        others = instance.others(scan, pair, 1 + seed % 3, rng)
        drawn = [pair.region, *others]
        are_shown = all(scan.table.counts[other, pair.support.slice] > 0 for other in others)
        if len(set(drawn)) < len(drawn) or len(others) > 1 + seed % 3 or not are_shown:
            subject.fail(
                f"expected at most {1 + seed % 3} other regions that the support shows, got {others} beside {pair.region}"
            )


@check("episodes")
def check_regions(subject: Subject) -> None:
    """`regions`, if it has it, gives an int32 region id per voxel, none below 0, the same each time, and some region."""
    instance = subject.build()
    if not hasattr(instance, "regions"):
        raise NotApplicable("it has no method regions, and takes the supervoxels")
    volume, supervoxels = samples.labelled_volume(getattr(instance, "classes", ()))
    regions = instance.regions(volume, supervoxels.copy)
    shape = volume.shape
    if regions.shape != shape or regions.dtype != np.int32:
        subject.fail(f"expected int32 of shape {shape}, got {regions.dtype} {regions.shape}")
    if regions.min() < 0 or regions.max() < 1:
        subject.fail(
            f"expected ids from 1, and 0 for what is never drawn, got {regions.min()} to {regions.max()}"
        )
    if not np.array_equal(regions, subject.build().regions(volume, supervoxels.copy)):
        subject.fail("expected the same regions each time, got others")


def _usable(instance: Any) -> list[TrainingScan]:
    """The scans that a source can draw from."""
    scans = samples.training_scans(instance)
    choose = getattr(instance, "usable", list)
    return list(choose(scans))
