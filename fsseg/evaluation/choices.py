"""The slices that each support segments, by what slices show: no voxel is looked at here."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import numpy as np

from fsseg.data.folds import Fold
from fsseg.errors import DataError
from fsseg.recipe.protocols import Protocol

SUPPORT_STREAM = 3
"""The stream of a run's seed from which support slices are drawn; training and calibration have their own."""

Way = tuple[int, str]
"""Value and name of a way's class."""

Shown = Sequence[Collection[int]]
"""The class values that each slice of a scan shows on the working grid."""


Slices = tuple[int, ...]
"""Numbers of slices of a scan."""


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

    classes: tuple[Way, ...]
    support_case: str
    support_slices: Slices
    query_case: str
    query_slices: Slices | None = None
    turn: int = 0

    @property
    def index(self) -> slice | list[int]:
        """Picks the query slices from a scan, without a copy where they are all of them."""
        if self.query_slices is None:
            return slice(None)
        return list(self.query_slices)


def choose(
    protocol: Protocol,
    fold: Fold,
    shown: Mapping[str, Shown],
    classes: dict[int, str],
    seed: int,
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
    choices: list[Choice] = []
    for support_case, queries in _supports_and_queries(protocol, fold):
        if protocol.together:
            # The case's own generator: its slice does not depend on which other cases are in the fold.
            words = [seed, SUPPORT_STREAM, fold.index, *support_case.encode()]
            rng = np.random.default_rng(words)
            choices += _all_classes(protocol, shown, support_case, queries, classes, rng)
        else:
            for way in classes.items():
                choices += _one_class(protocol, shown, support_case, queries, way)
    cases = (*fold.queries, fold.support)
    order = {case: number for number, case in enumerate(cases)}
    return sorted(choices, key=lambda choice: order[choice.query_case])


def choose_every_support(
    protocol: Protocol,
    fold: Fold,
    shown: Mapping[str, Shown],
    classes: dict[int, str],
) -> list[Choice]:
    """Every single slice of the fold's cases that could be the support, each for all other cases.

    It segments what the protocol scores of a query, all parts of it. Where classes are segmented
    together, its ways are those that the slice shows. The support's slice number is the turn.

    Args:
        protocol: The protocol.
        fold: The fold.
        shown: What the slices of the fold's cases show, by case.
        classes: Name of each class value.
    """
    cases = (*fold.queries, fold.support)
    whole = replace(protocol, support_parts=1)
    choices = []
    for query, support in permutations(cases, 2):
        for number, values in enumerate(shown[support]):
            for ways in _ways_of_slice(protocol, classes, values):
                slices = _whole_query(whole, shown[query], ways)
                if slices != ():
                    choice = Choice(ways, support, (number,), query, slices, turn=number)
                    choices.append(choice)
    return choices


def divide_query(protocol: Protocol, shown: Sequence[int]) -> list[Slices | None]:
    """The query slices of each part; None stands for all slices.

    Args:
        protocol: The protocol.
        shown: The query's slices that show the class. Protocols other than those with
            `query_slices = "all"` look at them, so they know something of the ground truth.
    """
    parts = protocol.support_parts
    if protocol.query_slices == "all":
        return [None]
    if not shown:
        return [()] * parts
    if protocol.query_slices == "labelled":
        return _equal_shares(shown, parts)
    return _equal_extents(shown[0], shown[-1], parts)


def _equal_shares(shown: Sequence[int], parts: int) -> list[Slices | None]:
    """ADNet's EP1: the slices that show the class, in parts of as many of them."""
    limits = np.linspace(0, len(shown), parts + 1).astype(int)
    divided: list[Slices | None] = []
    for start, stop in pairwise(limits):
        divided.append(tuple(shown[start:stop]))
    return divided


def _equal_extents(first: int, last: int, parts: int) -> list[Slices | None]:
    """ALPNet: everything from the first to the last slice of the class, in equal parts of its extent."""
    extent = max(1, last - first)
    divided: list[list[int]] = [[] for _ in range(parts)]
    for number in range(first, last + 1):
        part = int((number - first) / (extent / parts))
        divided[min(parts - 1, part)].append(number)
    return [tuple(numbers) for numbers in divided]


def _supports_and_queries(
    protocol: Protocol,
    fold: Fold,
) -> Iterator[tuple[str, list[str]]]:
    """Each case that gives a support, and the cases that it segments."""
    if protocol.support != "each":
        yield fold.support, list(fold.queries)
        return
    cases = (*fold.queries, fold.support)
    for support in cases:
        yield support, [case for case in cases if case != support]


def _one_class(
    protocol: Protocol,
    shown: Mapping[str, Shown],
    support_case: str,
    queries: Sequence[str],
    way: Way,
) -> Iterator[Choice]:
    """A class by itself: each part of a query is segmented from the support slices at the same part of the class."""
    value, _ = way
    support_slices = _middle_slices(protocol, shown[support_case], support_case, way)
    for query in queries:
        query_slices = divide_query(protocol, _slices_with(shown[query], value))
        for labelled, segmented in zip(support_slices, query_slices):
            if segmented != ():
                yield Choice((way,), support_case, labelled, query, segmented)


def _middle_slices(
    protocol: Protocol,
    shown: Shown,
    case: str,
    way: Way,
) -> list[Slices]:
    """For each part, the support slices in the middle of equal shares of those that show a class."""
    value, name = way
    labelled = _slices_with(shown, value)
    if not labelled:
        raise DataError(
            f"case {case}: it is a support but shows no {name} (label {value}), expected at least "
            "one slice with it; choose another fold or another protocol.support, or leave the class "
            "out of protocol.classes"
        )
    parts = protocol.support_parts
    shots = protocol.shots
    if 1 < shots > len(labelled) // parts:
        raise DataError(
            f"case {case}: {len(labelled)} of its slices show {name} (label {value}), expected at "
            f"least {parts * shots} for {_count(parts, 'part')} of {_count(shots, 'shot')}; lower "
            "protocol.shots"
        )
    shares = parts * shots
    middles = []
    for share in range(shares):
        middle = (2 * share + 1) * len(labelled) // (2 * shares)
        middles.append(labelled[middle])
    by_part = []
    for start in range(0, shares, shots):
        by_part.append(tuple(middles[start : start + shots]))
    return by_part


def _all_classes(
    protocol: Protocol,
    shown: Mapping[str, Shown],
    support_case: str,
    queries: Sequence[str],
    classes: dict[int, str],
    rng: np.random.Generator,
) -> Iterator[Choice]:
    """All classes from one slice: one of those that show most of them. Ways are the classes that it shows.

    Further shots are other slices that show the same ways.
    """
    ways_by_slice = [_ways_in(classes, values) for values in shown[support_case]]
    most = max(len(ways) for ways in ways_by_slice)
    if not most:
        raise DataError(
            f"case {support_case}: it is a support but shows no class, expected one at least; label it"
        )
    best = [number for number, ways in enumerate(ways_by_slice) if len(ways) == most]
    drawn = best[int(rng.integers(len(best)))]
    drawn_ways = ways_by_slice[drawn]
    alike = [number for number in best if ways_by_slice[number] == drawn_ways]
    alike.remove(drawn)
    more_shots = protocol.shots - 1
    if len(alike) < more_shots:
        names = " and ".join(name for _, name in drawn_ways)
        raise DataError(
            f"case {support_case}: {_count(len(alike) + 1, 'slice')} of it show {names} like slice "
            f"{drawn}, expected at least {protocol.shots} for as many shots; lower protocol.shots, "
            "or draw another slice with another seed"
        )
    others = rng.choice(alike, more_shots, replace=False)
    numbers = sorted([drawn, *map(int, others)])
    for query in queries:
        yield Choice(drawn_ways, support_case, tuple(numbers), query)


def _ways_of_slice(
    protocol: Protocol,
    classes: dict[int, str],
    values: Collection[int],
) -> list[tuple[Way, ...]]:
    """The classes that a slice of these values can segment: each group of them is segmented at once."""
    ways = _ways_in(classes, values)
    if not protocol.together:
        return [(way,) for way in ways]
    return [ways] if ways else []


def _ways_in(classes: dict[int, str], values: Collection[int]) -> tuple[Way, ...]:
    return tuple(way for way in classes.items() if way[0] in values)


def _whole_query(
    protocol: Protocol,
    shown: Shown,
    ways: tuple[Way, ...],
) -> Slices | None:
    """The slices of a query that a protocol of one part scores for these ways; None for all of them."""
    if protocol.together:
        return None
    [(value, _)] = ways
    [slices] = divide_query(protocol, _slices_with(shown, value))
    return slices


def _slices_with(shown: Shown, value: int) -> list[int]:
    return [number for number, values in enumerate(shown) if value in values]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
