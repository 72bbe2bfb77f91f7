"""Checks of protocols."""

import copy
import json
from collections.abc import Mapping

from fsseg.data.folds import Fold
from fsseg.errors import FssegError
from fsseg.evaluation.choices import Choice
from fsseg.evaluation.choosing import choose
from fsseg.recipe.protocols import Protocol
from fsseg.testing.contract import NotApplicable, Subject, check

CLASSES = {1: "large", 2: "small", 5: "short"}
"""Classes by label value."""

SLICES = 14
"""Of a scan."""

Shown = dict[str, list[set[int]]]
"""By case, the class values that each slice shows."""


@check("protocol")
def check_rules(subject: Subject) -> None:
    """Called it gives rules, a `fsseg.Protocol`, with a name and plain values that are the same each time."""
    rules = _rules(subject)
    if not rules.name or not isinstance(rules.name, str):
        subject.fail(f"expected a name for tables, got {rules.name!r}")
    try:
        texts = {json.dumps(_rules(subject).definition()) for _ in range(2)}
    except (TypeError, ValueError) as error:
        subject.fail(
            f"expected fields of texts, numbers and tuples of these, of which a hash is made, got {error}"
        )
    if len(texts) > 1:
        subject.fail(
            "expected the same values from two instances with the same options, got two; let them follow from the options"
        )


@check("protocol")
def check_choices(subject: Subject) -> None:
    """It chooses among the fold's cases and slices, labels what shows the class, and scores no slice that it labels."""
    rules = _rules(subject)
    for seed in range(3):
        try:
            choices = _chosen(rules, _shown(rules), seed)
        except FssegError as error:
            subject.fail(f"expected choices that can be evaluated, got: {error}")
        if not choices:
            subject.fail("expected choices, got none")


@check("protocol")
def check_same_choices_again(subject: Subject) -> None:
    """With the same seed it chooses the same, again and again, and leaves what it is shown as it was."""
    rules = _rules(subject)
    shown = _shown(rules)
    kept = copy.deepcopy(shown)
    chosen = [_chosen(rules, shown, seed=4) for _ in range(3)]
    if any(choices != chosen[0] for choices in chosen):
        subject.fail("expected the same choices each time, got others; draw from `rng` alone")
    if shown != kept:
        subject.fail("expected `shown` unchanged, got a changed one; copy before you write")


@check("protocol")
def check_truth_is_declared(subject: Subject) -> None:
    """Where what a query shows decides which of its slices are scored, `uses_truth` says so."""
    rules = _rules(subject)
    if rules.uses_truth:
        raise NotApplicable("it says that it looks at the query's ground truth")
    shown = _shown(rules)
    before = _scored(_chosen(rules, shown, seed=0))
    moved = 0
    for query in _fold(rules).queries:
        others = shown | {query: shown[query][3:] + shown[query][:3]}
        after = _scored(_chosen(rules, others, seed=0))
        for key in before.keys() & after.keys():
            moved += key[0] == query != key[1] and before[key] != after[key]
    if moved:
        subject.fail(
            "expected the same query slices wherever the query shows the class, got others; say `query_slices` = "
            '"labelled" or "range", or `uses_truth` = True, or do not look'
        )


def _rules(subject: Subject) -> Protocol:
    rules = subject.build()()
    if not isinstance(rules, Protocol):
        subject.fail(f"expected rules, a fsseg.Protocol, got {rules!r}")
    return rules


def _fold(rules: Protocol) -> Fold:
    """Three queries, and as many supports as the rules take together."""
    more = tuple(f"support_{number}" for number in range(1, rules.supports))
    return Fold(1, "support", ("query_1", "query_2", "query_3"), ("trained",), more)


def _shown(rules: Protocol) -> Shown:
    """Every scan shows all classes, also together, and each of them in slices of its own."""
    shown: Shown = {}
    for shift, case in enumerate(_fold(rules).evaluated):
        first = 1 + shift % 3
        slices: list[set[int]] = [set() for _ in range(SLICES)]
        for value, length in ((1, 9), (2, 8), (5, 7)):
            for number in range(first, first + length):
                slices[number].add(value)
        shown[case] = slices
    return shown


def _chosen(rules: Protocol, shown: Mapping[str, list[set[int]]], seed: int) -> list[Choice]:
    return choose(rules, _fold(rules), shown, CLASSES, seed, "it")


def _scored(choices: list[Choice]) -> dict[tuple, set[int] | None]:
    """By query, support and classes, the slices that are scored; None for all."""
    scored: dict[tuple, set[int] | None] = {}
    for choice in choices:
        key = (choice.query_case, choice.support_name, choice.classes)
        before = scored.setdefault(key, set())
        if choice.query_slices is None or before is None:
            scored[key] = None
        else:
            scored[key] = before | set(choice.query_slices)
    return scored
