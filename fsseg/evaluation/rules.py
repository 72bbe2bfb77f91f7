"""The choices that follow from a protocol's rules: which slices are labelled, and which they segment."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise

import numpy as np

from fsseg.data.folds import Fold
from fsseg.errors import DataError
from fsseg.evaluation.choices import Choice, Shown, Slices, Way, slices_with, ways_in
from fsseg.recipe.protocols import Protocol

SUPPORT_STREAM = 3
"""The stream of a run's seed from which support slices are drawn; training and calibration have their own."""

Labelled = tuple[tuple[str, Slices], ...]
"""The cases that give a support, each with its labelled slices."""


def choices_by_rules(
    protocol: Protocol,
    fold: Fold,
    shown: Mapping[str, Shown],
    classes: dict[int, str],
    seed: int,
) -> Iterator[Choice]:
    """The choices of a protocol without logic of its own; see `fsseg.evaluation.choosing.choose`."""
    for supports, queries in _supports_and_queries(protocol, fold):
        if protocol.together:
            yield from _all_classes(protocol, fold, shown, supports, queries, classes, seed)
        else:
            for way in classes.items():
                yield from _one_class(protocol, fold, shown, supports, queries, way, seed)


def _supports_and_queries(
    protocol: Protocol,
    fold: Fold,
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The cases that give a support together, and the cases that it segments."""
    cases = (*fold.queries, fold.support)
    if protocol.support == "each":
        for support in cases:
            yield (support,), [case for case in cases if case != support]
    elif protocol.support == "own":
        for case in cases:
            yield (case,), [case]
    else:
        yield fold.supports, list(fold.queries)


def _one_class(
    protocol: Protocol,
    fold: Fold,
    shown: Mapping[str, Shown],
    supports: Sequence[str],
    queries: Sequence[str],
    way: Way,
    seed: int,
) -> Iterator[Choice]:
    """A class by itself: each part of a query is segmented from the support slices at the same part of the class."""
    value, _ = way
    if protocol.support == "own" and not slices_with(shown[supports[0]], value):
        return  # nobody could label a slice of it
    of_cases: dict[str, list[Slices]] = {}
    for case in supports:
        rng = _generator(seed, fold, case, value) if protocol.drawn else None
        of_cases[case] = _labelled_slices(protocol, shown[case], case, way, rng)
    for query in queries:
        known = chain.from_iterable(of_cases.get(query, []))
        labelled = tuple(known)
        segmented = divide_query(protocol, slices_with(shown[query], value))
        for part, slices in enumerate(segmented):
            slices = without(labelled, slices, len(shown[query]))
            if slices != ():
                of_part = tuple((case, parts[part]) for case, parts in of_cases.items())
                yield _choice((way,), of_part, query, slices)


def _all_classes(
    protocol: Protocol,
    fold: Fold,
    shown: Mapping[str, Shown],
    supports: Sequence[str],
    queries: Sequence[str],
    classes: dict[int, str],
    seed: int,
) -> Iterator[Choice]:
    """All classes at once, from slices that show the same ways; see `_best_slices`."""
    first, *others = supports
    if protocol.support == "own" and not any(ways_in(classes, values) for values in shown[first]):
        return  # nobody could label a slice of it
    # The case's own generator: its slice does not depend on which other cases are in the fold.
    rng = _generator(seed, fold, first)
    ways, numbers = _best_slices(protocol, shown[first], first, classes, rng)
    labelled: list[tuple[str, Slices]] = [(first, numbers)]
    for case in others:
        rng = _generator(seed, fold, case)
        labelled.append((case, _slices_with_all(protocol, shown[case], case, ways, rng)))
    for query in queries:
        own = numbers if query == first else ()
        segmented = without(own, None, len(shown[query]))
        if segmented != ():
            yield _choice(ways, tuple(labelled), query, segmented)


def _generator(seed: int, fold: Fold, case: str, *more: int) -> np.random.Generator:
    """The generator of a case in a fold."""
    return np.random.default_rng([seed, SUPPORT_STREAM, fold.index, *more, *case.encode()])


def _choice(ways: tuple[Way, ...], labelled: Labelled, query: str, slices: Slices | None) -> Choice:
    (case, numbers), *more = labelled
    return Choice(ways, case, numbers, query, slices, more_supports=tuple(more))


def without(
    labelled: Sequence[int],
    segmented: Slices | None,
    count: int,
) -> Slices | None:
    """The query slices without those that are labelled; None stands for all that the scan has."""
    if not labelled:
        return segmented
    numbers = range(count) if segmented is None else segmented
    return tuple(number for number in numbers if number not in labelled)


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


def _labelled_slices(
    protocol: Protocol,
    shown: Shown,
    case: str,
    way: Way,
    rng: np.random.Generator | None,
) -> list[Slices]:
    """For each part, a support slice of each of the equal shares of those that show a class: the middle or a drawn one."""
    value, name = way
    labelled = slices_with(shown, value)
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
    numbers = []
    for share in range(shares):
        chosen = (2 * share + 1) * len(labelled) // (2 * shares)
        first = share * len(labelled) // shares
        end = (share + 1) * len(labelled) // shares
        if rng is not None and first < end:  # fewer slices than shares leave some empty
            chosen = int(rng.integers(first, end))
        numbers.append(labelled[chosen])
    by_part = []
    for start in range(0, shares, shots):
        by_part.append(tuple(numbers[start : start + shots]))
    return by_part


def _best_slices(
    protocol: Protocol,
    shown: Shown,
    case: str,
    classes: dict[int, str],
    rng: np.random.Generator,
) -> tuple[tuple[Way, ...], Slices]:
    """The ways that one of the slices with most classes shows, and that slice; further shots show the same ways."""
    ways_by_slice = [ways_in(classes, values) for values in shown]
    most = max(len(ways) for ways in ways_by_slice)
    if not most:
        raise DataError(
            f"case {case}: it is a support but shows no class, expected one at least; label it"
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
            f"case {case}: {_count(len(alike) + 1, 'slice')} of it show {names} like slice "
            f"{drawn}, expected at least {protocol.shots} for as many shots; lower protocol.shots, "
            "or draw another slice with another seed"
        )
    others = rng.choice(alike, more_shots, replace=False)
    numbers = sorted([drawn, *map(int, others)])
    return drawn_ways, tuple(numbers)


def _slices_with_all(
    protocol: Protocol,
    shown: Shown,
    case: str,
    ways: tuple[Way, ...],
    rng: np.random.Generator,
) -> Slices:
    """Drawn slices of a further support scan that show all of these ways."""
    wanted = {value for value, _ in ways}
    fitting = [number for number, values in enumerate(shown) if wanted.issubset(values)]
    if len(fitting) < protocol.shots:
        names = " and ".join(name for _, name in ways)
        raise DataError(
            f"case {case}: {_count(len(fitting), 'slice')} of it show {names} like the first support's slice, expected "
            f"at least {protocol.shots}; lower protocol.supports, or draw another slice with another seed"
        )
    return tuple(sorted(map(int, rng.choice(fitting, protocol.shots, replace=False))))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
