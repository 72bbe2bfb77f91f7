"""Which support segments which slices of which scan: what a protocol makes of a fold."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fsseg.data.folds import Fold
from fsseg.errors import DataError
from fsseg.evaluation.scans import EvaluationScan
from fsseg.recipe.protocols import Protocol
from fsseg.types import Support

SUPPORT_STREAM = 3
"""The stream of a run's seed from which support slices are drawn; training and calibration have their own."""


Shown = Sequence[Collection[int]]
"""The class values that each slice of a scan shows on the working grid."""


@dataclass(frozen=True)
class Choice:
    """Slices of a query scan, and those that are to segment them: all of an assignment but its tensors.

    Attributes:
        classes: Value and name of each way's class.
        support_case: The case that gives the support.
        support_slices: Its labelled slices.
        query_case: The case to segment.
        query_slices: The slices to segment and score; None for all of them.
        turn: Choices of one query, support case, classes and turn are parts of one segmentation.
    """

    classes: tuple[tuple[int, str], ...]
    support_case: str
    support_slices: tuple[int, ...]
    query_case: str
    query_slices: tuple[int, ...] | None = None
    turn: int = 0


@dataclass(frozen=True)
class Assignment(Choice):
    """A choice, and the support that it means.

    Attributes:
        support: The support slices with their masks; one object for all assignments that share it.
    """

    support: Support = field(kw_only=True)


def choose(
    protocol: Protocol, fold: Fold, shown: Mapping[str, Shown], classes: dict[int, str], seed: int
) -> list[Choice]:
    """Every choice of a fold, by query. It takes no voxels, so that what cannot be evaluated is found at once.

    Args:
        protocol: The protocol.
        fold: The fold.
        shown: What the slices of the fold's support and queries show, by case.
        classes: Name of each class value.
        seed: Seed of what the protocol draws.

    Raises:
        DataError: A support scan does not show a class, or not in enough slices.
    """
    found: list[Choice] = []
    for support_case, queries in _supports_and_queries(protocol, fold):
        if protocol.together:
            seeds = [seed, SUPPORT_STREAM, fold.index]
            found += _all_classes(protocol, shown, support_case, queries, classes, seeds)
        else:
            for value, name in classes.items():
                found += _one_class(protocol, shown, support_case, queries, (value, name))
    order = {case: place for place, case in enumerate((*fold.queries, fold.support))}
    return sorted(found, key=lambda choice: order[choice.query_case])


def assign(
    protocol: Protocol,
    fold: Fold,
    scans: Mapping[str, EvaluationScan],
    classes: dict[int, str],
    seed: int,
    shown: Mapping[str, Shown] | None = None,
) -> list[Assignment]:
    """Every assignment of a fold, by query.

    Args:
        protocol: The protocol.
        fold: The fold.
        scans: The fold's support and queries by case; with `shown`, only supports are looked at.
        classes: Name of each class value.
        seed: Seed of what the protocol draws.
        shown: What their slices show, by case; found in the scans when omitted.

    Raises:
        DataError: A support scan does not show a class, or not in enough slices.
    """
    if shown is None:
        shown = {case: _shown_by(scans[case], classes) for case in (fold.support, *fold.queries)}
    return with_supports(choose(protocol, fold, shown, classes, seed), scans)


def with_supports(choices: list[Choice], scans: Mapping[str, EvaluationScan]) -> list[Assignment]:
    """The choices with the supports that they mean; choices of the same support share it."""
    supports: dict[tuple, Support] = {}
    assigned = []
    for choice in choices:
        key = choice.support_case, choice.support_slices, choice.classes
        if key not in supports:
            supports[key] = _make_support(scans[choice.support_case], choice)
        assigned.append(Assignment(**vars(choice), support=supports[key]))
    return assigned


def choose_every_support(
    protocol: Protocol, fold: Fold, shown: Mapping[str, Shown], classes: dict[int, str]
) -> list[Choice]:
    """Every single slice of the fold's cases that could be the support, each for all other cases.

    It segments what the protocol scores of a query, all parts of it. Where classes are segmented together, its ways are
    those that the slice shows. The support's slice number is the turn.
    """
    cases, whole = (*fold.queries, fold.support), replace(protocol, support_parts=1)
    found = []
    for query in cases:
        for support in cases:
            if support == query:
                continue
            for number, values in enumerate(shown[support]):
                there = tuple(of for of in classes.items() if of[0] in values)
                for ways in (
                    ([there] if there else []) if protocol.together else [(of,) for of in there]
                ):
                    slices = None
                    if not protocol.together:
                        (slices,) = divide_query(whole, _slices_with(shown[query], ways[0][0]))
                    if slices is None or slices:
                        found.append(Choice(ways, support, (number,), query, slices, turn=number))
    return found


def _supports_and_queries(protocol: Protocol, fold: Fold) -> list[tuple[str, tuple[str, ...]]]:
    if protocol.support != "each":
        return [(fold.support, fold.queries)]
    members = (*fold.queries, fold.support)
    return [(case, tuple(other for other in members if other != case)) for case in members]


def _one_class(
    protocol: Protocol,
    shown: Mapping[str, Shown],
    support_case: str,
    queries: tuple[str, ...],
    of: tuple[int, str],
) -> Iterator[Choice]:
    """A class by itself: each part of a query is segmented from the support slices at the same part of the class."""
    value, name = of
    labelled = _slices_with(shown[support_case], value)
    if not labelled:
        raise DataError(
            f"case {support_case}: it is a support but shows no {name} (label {value}), expected at least one slice with "
            "it; choose another fold or another protocol.support, or leave the class out of protocol.classes"
        )
    parts, shots = protocol.support_parts, protocol.shots
    if 1 < shots > len(labelled) // parts:
        raise DataError(
            f"case {support_case}: {len(labelled)} of its slices show {name} (label {value}), expected at least "
            f"{parts * shots} for {_told(parts, 'part')} of {_told(shots, 'shot')}; lower protocol.shots"
        )
    shares = parts * shots
    middles = [labelled[(2 * share + 1) * len(labelled) // (2 * shares)] for share in range(shares)]
    chosen = [tuple(middles[part * shots : (part + 1) * shots]) for part in range(parts)]
    for query in queries:
        divided = divide_query(protocol, _slices_with(shown[query], value))
        for numbers, slices in zip(chosen, divided):
            if slices is None or slices:
                yield Choice((of,), support_case, numbers, query, slices)


def _all_classes(
    protocol: Protocol,
    shown: Mapping[str, Shown],
    support_case: str,
    queries: tuple[str, ...],
    classes: dict[int, str],
    seed: list[int],
) -> Iterator[Choice]:
    """All classes from one slice: one of those that show most of them. Ways are the classes that it shows.

    Further shots are other slices that show the same ways.
    """
    ways = [
        tuple(of for of in classes.items() if of[0] in values) for values in shown[support_case]
    ]
    most = max(len(of_slice) for of_slice in ways)
    if not most:
        raise DataError(
            f"case {support_case}: it is a support but shows no class, expected one at least; label it"
        )
    best = [number for number, of_slice in enumerate(ways) if len(of_slice) == most]
    # The case's own generator: its slice does not depend on which other cases are in the fold.
    rng = np.random.default_rng([*seed, *support_case.encode()])
    number = best[int(rng.integers(len(best)))]
    alike = [other for other in best if other != number and ways[other] == ways[number]]
    if len(alike) < protocol.shots - 1:
        raise DataError(
            f"case {support_case}: {_told(len(alike) + 1, 'slice')} of it show "
            f"{' and '.join(name for _, name in ways[number])} "
            f"like slice {number}, expected at least {protocol.shots} for as many shots; lower protocol.shots, or draw "
            "another slice with another seed"
        )
    others = rng.choice(alike, protocol.shots - 1, replace=False)
    numbers = tuple(sorted([number, *(int(other) for other in others)]))
    for query in queries:
        yield Choice(ways[number], support_case, numbers, query)


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
    if (
        protocol.query_slices == "labelled"
    ):  # ADNet's EP1: what shows the class, in equal parts of its slices
        limits = np.linspace(0, len(shown), parts + 1).astype(int)
        return [tuple(shown[a:b]) for a, b in zip(limits, limits[1:])]
    # ALPNet: everything from the first to the last slice of the class, in equal parts of its extent.
    first, last = shown[0], shown[-1]
    extent = max(1, last - first)
    part_of = {
        z: min(parts - 1, int((z - first) / (extent / parts))) for z in range(first, last + 1)
    }
    return [tuple(z for z, part in part_of.items() if part == number) for number in range(parts)]


def _slices_with(shown: Shown, value: int) -> list[int]:
    return [number for number, values in enumerate(shown) if value in values]


def _shown_by(scan: EvaluationScan, classes: dict[int, str]) -> Shown:
    shows = torch.stack([(scan.labels == value).any(dim=2).any(dim=1) for value in classes], dim=1)
    return [{value for value, there in zip(classes, row) if there} for row in shows.tolist()]


def _make_support(scan: EvaluationScan, choice: Choice) -> Support:
    ways, shots = len(choice.classes), list(choice.support_slices)
    masks = torch.stack([scan.labels[shots] == value for value, _ in choice.classes])
    images = scan.images[shots]
    location = scan.location[shots].expand(ways, -1)
    return Support(images.expand(ways, *images.shape), masks, location, shared=ways > 1)


def _told(count: int, thing: str) -> str:
    return f"{count} {thing}" + "s" * (count != 1)
