"""The choices of a fold: by the rules of its protocol or by the protocol's own logic, checked before anything is computed."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import permutations

import numpy as np

from fsseg.data.folds import Fold
from fsseg.evaluation.choices import Choice, Shown, Slices, Way, slices_with, ways_in
from fsseg.evaluation.rules import SUPPORT_STREAM, choices_by_rules, divide_query, without
from fsseg.evaluation.sound_choices import require_sound
from fsseg.interfaces import Assigner
from fsseg.recipe.protocols import Protocol


def choose(
    protocol: Protocol,
    fold: Fold,
    shown: Mapping[str, Shown],
    classes: dict[int, str],
    seed: int,
    origin: str | None = None,
) -> list[Choice]:
    """Every choice of a fold, by query. It takes no voxels, so that what cannot be evaluated is found at once.

    Args:
        protocol: The protocol.
        fold: The fold.
        shown: What the slices of the fold's supports and queries show, by case.
        classes: Name of each class value.
        seed: Seed of what the protocol draws.
        origin: The protocol in messages, with the distribution that it comes from; its name when omitted.

    Raises:
        DataError: A support scan does not show a class, or not in enough slices.
        FssegError: The protocol scores a slice that it labels, or chooses what there is not.
    """
    choices = list(_choices(protocol, fold, shown, classes, seed))
    require_sound(choices, fold, shown, classes, origin or f"protocol {protocol.name!r}")
    cases = (*fold.queries, *fold.supports)
    order = {case: number for number, case in enumerate(cases)}
    first_of: dict[tuple, int] = {}
    for number, choice in enumerate(choices):
        first_of.setdefault(choice.segmentation, number)
    # By query, and the parts of one segmentation side by side.
    return sorted(
        choices, key=lambda choice: (order[choice.query_case], first_of[choice.segmentation])
    )


def _choices(
    protocol: Protocol,
    fold: Fold,
    shown: Mapping[str, Shown],
    classes: dict[int, str],
    seed: int,
) -> Collection[Choice]:
    if isinstance(protocol, Assigner):
        rng = np.random.default_rng([seed, SUPPORT_STREAM, fold.index])
        return protocol.choose(fold, shown, classes, rng)
    return list(choices_by_rules(protocol, fold, shown, classes, seed))


def choose_every_support(
    protocol: Protocol,
    fold: Fold,
    shown: Mapping[str, Shown],
    classes: dict[int, str],
) -> list[Choice]:
    """Every single slice of the fold's cases that could be the support, each for all other cases (or for its own one).

    It segments what the protocol scores of a query, all parts of it. Where classes are segmented
    together, its ways are those that the slice shows. The support's slice number is the turn.

    Args:
        protocol: The protocol.
        fold: The fold.
        shown: What the slices of the fold's cases show, by case.
        classes: Name of each class value.
    """
    cases = (*fold.queries, *fold.supports)
    whole = replace(protocol, support_parts=1)
    own = protocol.support == "own"
    pairs = zip(cases, cases) if own else permutations(cases, 2)
    choices = []
    for query, support in pairs:
        for number, values in enumerate(shown[support]):
            labelled = (number,) if own else ()
            for ways in _ways_of_slice(protocol, classes, values):
                slices = _whole_query(whole, shown[query], ways)
                slices = without(labelled, slices, len(shown[query]))
                if slices != ():
                    choice = Choice(ways, support, (number,), query, slices, turn=number)
                    choices.append(choice)
    return choices


def _ways_of_slice(
    protocol: Protocol,
    classes: dict[int, str],
    values: Collection[int],
) -> list[tuple[Way, ...]]:
    """The classes that a slice of these values can segment: each group of them is segmented at once."""
    ways = ways_in(classes, values)
    if not protocol.together:
        return [(way,) for way in ways]
    return [ways] if ways else []


def _whole_query(
    protocol: Protocol,
    shown: Shown,
    ways: tuple[Way, ...],
) -> Slices | None:
    """The slices of a query that a protocol of one part scores for these ways; None for all of them."""
    if protocol.together:
        return None
    [(value, _)] = ways
    [slices] = divide_query(protocol, slices_with(shown, value))
    return slices
