"""The evaluation that a recipe asks for, once its dataset is known: protocol, classes, and the folds to run."""

import json
from dataclasses import dataclass, replace
from typing import Any

from fsseg.data.class_names import problems_of_names
from fsseg.data.folds import Fold, FoldScheme, SupportChoice, make_fold
from fsseg.errors import DataError, FssegError, PluginError
from fsseg.interfaces import Dataset
from fsseg.plugins.manager import registry
from fsseg.recipe.protocol_table import ProtocolTable
from fsseg.recipe.protocols import Classes, Protocol, choose_classes
from fsseg.system.names import problem_of, told


@dataclass(frozen=True)
class Setup:
    """The evaluation of a dataset.

    Attributes:
        protocol: The protocol, with what the recipe changes about it.
        classes: The classes that are evaluated: names by label value.
        scheme: The scheme by which cases are divided into folds.
        folds: The folds to run.
        origin: The protocol in messages, with the distribution that it comes from.
    """

    protocol: Protocol
    classes: Classes
    scheme: FoldScheme
    folds: list[Fold]
    origin: str

    @property
    def support(self) -> SupportChoice:
        """The choice of the case that gives the support."""
        return self.protocol.support or self.scheme.support

    @property
    def evaluated(self) -> set[str]:
        """The cases whose labels are looked at."""
        return {case for fold in self.folds for case in fold.evaluated}

    @property
    def trained(self) -> set[str]:
        """The cases that train."""
        return {case for fold in self.folds for case in fold.training}


def set_up(table: ProtocolTable, dataset: Dataset) -> Setup:
    """The setup that a recipe asks for.

    Args:
        table: The recipe's [protocol].
        dataset: Its dataset.

    Raises:
        FssegError: The dataset lacks a class, a class has a name that cannot be used, or its cases cannot be divided so.
    """
    problems = list(problems_of_names(dataset.classes.values()))
    of_dataset = problem_of(dataset.name)
    if of_dataset is not None:
        problems.append(f"its name {of_dataset}; rename it")
    if problems:
        raise DataError(
            "\n".join(f"dataset {told(dataset.name)}: {problem}" for problem in problems)
        )
    protocol = rules_of(table)
    scheme = _scheme_of(table, dataset)
    _require_supports(protocol, scheme)
    indices = range(scheme.folds) if table.fold == "all" else [table.fold]
    cases = dataset.cases
    origin = str(registry().find("folds", table.folds.name))
    folds = [
        make_fold(scheme, cases, index, protocol.support, protocol.supports, origin)
        for index in indices
    ]
    classes = choose_classes(dataset.classes, table.classes)
    return Setup(protocol, classes, scheme, folds, str(registry().find("protocol", table.name)))


def rules_of(table: ProtocolTable) -> Protocol:
    """The rules of the protocol that a recipe names, with what the recipe changes about them.

    Args:
        table: The recipe's [protocol].

    Raises:
        FssegError: There is no such protocol, it gives no rules, or it chooses slices itself in another way than the recipe
            says.
    """
    origin = registry().find("protocol", table.name)
    rules = registry().build("protocol", table.name, table.options)()
    _require_value(rules, Protocol, str(origin), "fsseg.Protocol")
    changes: dict[str, Any] = {}
    for key, unsaid in (("support", None), ("shots", 1), ("supports", 1)):
        value = getattr(table, key)
        if value != unsaid:
            changes[key] = value
    for key, value in changes.items():
        if rules.has_logic and value != getattr(rules, key) and value not in ("last", "circular"):
            raise FssegError(
                f"protocol.{key}: is {value!r}, but {origin} chooses supports itself, expected no such key; leave it out, or "
                "set an option of that protocol in [protocol.options]"
            )
    return replace(rules, **changes)


def _scheme_of(table: ProtocolTable, dataset: Dataset) -> FoldScheme:
    """The scheme that a recipe names."""
    origin = registry().find("folds", table.folds.name)
    scheme = table.folds.build("folds")(dataset)
    _require_value(scheme, FoldScheme, str(origin), "fsseg.FoldScheme")
    return scheme


def _require_value(value: Any, expected: type, origin: str, name: str) -> None:
    """Raises PluginError for what a component gave that is not of this class, or has fields that no hash can be made of."""
    if not isinstance(value, expected):
        raise PluginError(f"{origin}: it gave {value!r}, expected a {name}; return one when called")
    try:
        json.dumps(vars(value))
    except (TypeError, ValueError):
        raise PluginError(
            f"{origin}: {value!r} has fields that JSON does not hold, expected texts, numbers, booleans, and tuples of "
            "these, of which the protocol's hash is made; give it such fields"
        ) from None


def _require_supports(protocol: Protocol, scheme: FoldScheme) -> None:
    """Raises FssegError where each case is to give the support alone and several are to give it together."""
    support = protocol.support or scheme.support
    if protocol.supports > 1 and support in ("each", "own"):
        raise FssegError(
            f'protocol.supports: is {protocol.supports}, but with protocol.support = "{support}" every case gives the '
            'support alone, expected "last" or "circular"; leave one of them out'
        )
