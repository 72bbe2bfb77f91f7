"""Which support segments which slices of which scan: what a protocol makes of a fold."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fsseg.data.scans import EvaluationScan
from fsseg.errors import DataError
from fsseg.protocols import Fold, Protocol
from fsseg.types import Support

SUPPORT_STREAM = 3
"""The stream of a run's seed from which support slices are drawn; training and calibration have their own."""


@dataclass(frozen=True)
class Assignment:
    """Slices of a query scan, and the support that segments them.

    Attributes:
        classes: Value and name of each way's class.
        support_case: The case that gives the support.
        support_slices: Its labelled slices.
        support: These slices with their masks.
        query_case: The case to segment.
        query_slices: The slices to segment and score; None for all of them.
    """

    classes: tuple[tuple[int, str], ...]
    support_case: str
    support_slices: tuple[int, ...]
    support: Support
    query_case: str
    query_slices: tuple[int, ...] | None = None


def assign(
    protocol: Protocol, fold: Fold, scans: Mapping[str, EvaluationScan], classes: dict[int, str], seed: int
) -> list[Assignment]:
    """Every assignment of a fold, by query.

    Args:
        protocol: The protocol.
        fold: The fold.
        scans: The fold's support and queries by case.
        classes: Name of each class value.
        seed: Seed of what the protocol draws.

    Raises:
        DataError: A support scan does not show a class, or not in enough slices.
    """
    found: list[Assignment] = []
    for support_case, queries in _supports_and_queries(protocol, fold):
        if protocol.together:
            seeds = [seed, SUPPORT_STREAM, fold.index]
            found += _all_classes(protocol, scans, support_case, queries, classes, seeds)
        else:
            for value, name in classes.items():
                found += _one_class(protocol, scans, support_case, queries, (value, name))
    order = [*fold.queries, fold.support]
    return sorted(found, key=lambda assignment: order.index(assignment.query_case))


def _supports_and_queries(protocol: Protocol, fold: Fold) -> list[tuple[str, tuple[str, ...]]]:
    if protocol.support != "each":
        return [(fold.support, fold.queries)]
    members = (*fold.queries, fold.support)
    return [(case, tuple(other for other in members if other != case)) for case in members]


def _one_class(
    protocol: Protocol,
    scans: Mapping[str, EvaluationScan],
    support_case: str,
    queries: tuple[str, ...],
    of: tuple[int, str],
) -> Iterator[Assignment]:
    """A class by itself: each part of a query is segmented from the support slices at the same part of the class."""
    value, name = of
    scan = scans[support_case]
    shown = _slices_with(scan, value)
    if not shown:
        raise DataError(
            f"case {support_case}: it is a support but shows no {name} (label {value}), expected at least one slice with "
            "it; choose another fold or another protocol.support, or leave the class out of protocol.classes"
        )
    parts, shots = protocol.support_parts, protocol.shots
    if 1 < shots > len(shown) // parts:
        raise DataError(
            f"case {support_case}: {len(shown)} of its slices show {name} (label {value}), expected at least "
            f"{parts * shots} for {_told(parts, 'part')} of {_told(shots, 'shot')}; lower protocol.shots"
        )
    shares = parts * shots
    middles = [shown[(2 * share + 1) * len(shown) // (2 * shares)] for share in range(shares)]
    chosen = [tuple(middles[part * shots : (part + 1) * shots]) for part in range(parts)]
    supports = [_make_support(scan, numbers, [value]) for numbers in chosen]
    for query in queries:
        divided = divide_query(protocol, _slices_with(scans[query], value))
        for numbers, support, slices in zip(chosen, supports, divided):
            if slices is None or slices:
                yield Assignment((of,), support_case, numbers, support, query, slices)


def _all_classes(
    protocol: Protocol,
    scans: Mapping[str, EvaluationScan],
    support_case: str,
    queries: tuple[str, ...],
    classes: dict[int, str],
    seed: list[int],
) -> Iterator[Assignment]:
    """All classes from one slice: one of those that show most of them. Ways are the classes that it shows.

    Further shots are other slices that show the same ways.
    """
    scan = scans[support_case]
    shown = torch.stack([(scan.labels == value).any(dim=2).any(dim=1) for value in classes], dim=1)
    counts = shown.sum(dim=1)
    if not counts.any():
        raise DataError(f"case {support_case}: it is a support but shows no class, expected one at least; label it")
    best = (counts == counts.max()).nonzero()[:, 0].tolist()
    # The case's own generator: its slice does not depend on which other cases are in the fold.
    rng = np.random.default_rng([*seed, *support_case.encode()])
    number = best[int(rng.integers(len(best)))]
    ways = tuple(of for of, there in zip(classes.items(), shown[number].tolist()) if there)
    alike = [other for other in best if other != number and torch.equal(shown[other], shown[number])]
    if len(alike) < protocol.shots - 1:
        raise DataError(
            f"case {support_case}: {_told(len(alike) + 1, 'slice')} of it show {' and '.join(name for _, name in ways)} "
            f"like slice {number}, expected at least {protocol.shots} for as many shots; lower protocol.shots, or draw "
            "another slice with another seed"
        )
    others = rng.choice(alike, protocol.shots - 1, replace=False)
    numbers = tuple(sorted([number, *(int(other) for other in others)]))
    support = _make_support(scan, numbers, [value for value, _ in ways])
    for query in queries:
        yield Assignment(ways, support_case, numbers, support, query)


def divide_query(protocol: Protocol, shown: list[int]) -> list[tuple[int, ...] | None]:
    """The query slices of each part; None stands for all slices.

    Args:
        protocol: The protocol.
        shown: The query's slices that show the class. Protocols other than those with `query_slices = "all"` look at
            them, so they know something of the ground truth.
    """
    parts = protocol.support_parts
    if protocol.query_slices == "all":
        return [None]
    if not shown:
        return [()] * parts
    if protocol.query_slices == "labelled":  # ADNet's EP1: what shows the class, in equal parts of its slices
        limits = np.linspace(0, len(shown), parts + 1).astype(int)
        return [tuple(shown[a:b]) for a, b in zip(limits, limits[1:])]
    # ALPNet: everything from the first to the last slice of the class, in equal parts of its extent.
    first, last = shown[0], shown[-1]
    extent = max(1, last - first)
    part_of = {z: min(parts - 1, int((z - first) / (extent / parts))) for z in range(first, last + 1)}
    return [tuple(z for z, part in part_of.items() if part == number) for number in range(parts)]


def _slices_with(scan: EvaluationScan, value: int) -> list[int]:
    return (scan.labels == value).any(dim=2).any(dim=1).nonzero()[:, 0].tolist()


def _make_support(scan: EvaluationScan, numbers: tuple[int, ...], values: list[int]) -> Support:
    ways, shots = len(values), list(numbers)
    masks = torch.stack([scan.labels[shots] == value for value in values])
    images = scan.images[shots]
    location = scan.location[shots].expand(ways, -1)
    return Support(images.expand(ways, *images.shape), masks, location, shared=ways > 1)


def _told(count: int, thing: str) -> str:
    return f"{count} {thing}" + "s" * (count != 1)
