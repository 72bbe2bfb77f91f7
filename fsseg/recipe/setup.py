"""The evaluation that a recipe asks for, once its dataset is known: protocol, classes, and the folds to run."""

from dataclasses import dataclass, replace

from fsseg.data.class_names import problems_of_names
from fsseg.data.folds import Fold, FoldScheme, SupportChoice, find_scheme, make_fold
from fsseg.errors import DataError
from fsseg.interfaces import Dataset
from fsseg.recipe.protocols import Classes, Protocol, choose_classes, find_protocol
from fsseg.recipe.tables import ProtocolTable
from fsseg.system.names import problem_of, told


@dataclass(frozen=True)
class Setup:
    """The evaluation of a dataset.

    Attributes:
        protocol: The protocol, with what the recipe changes about it.
        classes: The classes that are evaluated: names by label value.
        scheme: The scheme by which cases are divided into folds.
        folds: The folds to run.
    """

    protocol: Protocol
    classes: Classes
    scheme: FoldScheme
    folds: list[Fold]

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
    protocol = replace(find_protocol(table.name), shots=table.shots)
    if table.support:
        protocol = replace(protocol, support=table.support)
    scheme = dataset.folds
    if table.folds != "dataset":
        scheme = find_scheme(table.folds)
    indices = range(scheme.folds) if table.fold == "all" else [table.fold]
    cases = dataset.cases
    folds = [make_fold(scheme, cases, index, protocol.support) for index in indices]
    classes = choose_classes(dataset.classes, table.classes)
    return Setup(protocol, classes, scheme, folds)
