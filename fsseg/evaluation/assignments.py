"""The assignments of a fold: choices of slices, with the supports that they mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

import numpy as np
import torch
from jaxtyping import Int

from fsseg.data.folds import Fold
from fsseg.evaluation.choices import Choice, Shown, Way
from fsseg.evaluation.choosing import choose
from fsseg.evaluation.scans import EvaluationScan
from fsseg.evaluation.sound_choices import require_one_size
from fsseg.recipe.protocols import Protocol
from fsseg.types import Support


@dataclass(frozen=True)
class Assignment(Choice):
    """A choice, and the support that it means.

    Attributes:
        support: The support slices with their masks; one object for all assignments that share it.
    """

    support: Support = field(kw_only=True)


@dataclass(frozen=True)
class Task:
    """One segmentation of a query scan from one support.

    Attributes:
        parts: The assignments of which it consists.
    """

    parts: tuple[Assignment, ...]

    @property
    def classes(self) -> tuple[Way, ...]:
        """Value and name of each way's class."""
        return self.parts[0].classes

    @property
    def query_case(self) -> str:
        """The case to segment."""
        return self.parts[0].query_case

    @property
    def support_case(self) -> str:
        """The case that gives the supports, or several as `a + b`."""
        return self.parts[0].support_name

    @property
    def support_slices(self) -> tuple[int, ...]:
        """The labelled slices of all parts; of several cases, one case's after the other's."""
        slices: list[int] = []
        for part in self.parts:
            for _, numbers in part.supports:
                slices += numbers
        return tuple(slices)

    def query_slices(self, count: int) -> Int[np.ndarray, "slice"]:
        """The numbers of the slices of all parts, one part after the other.

        Args:
            count: The number of slices that the query has.
        """
        everything = np.arange(count)
        slices = [everything[part.index] for part in self.parts]
        return np.concatenate(slices)


def tasks_of(assignments: Sequence[Assignment]) -> list[Task]:
    """The assignments of one query as the segmentations whose parts they are, in order."""
    segmentation = attrgetter("segmentation")
    return [Task(tuple(parts)) for _, parts in groupby(assignments, segmentation)]


def assign(
    protocol: Protocol,
    fold: Fold,
    scans: Mapping[str, EvaluationScan],
    classes: dict[int, str],
    seed: int,
    shown: Mapping[str, Shown] | None = None,
    origin: str | None = None,
) -> list[Assignment]:
    """Every assignment of a fold, by query.

    Args:
        protocol: The protocol.
        fold: The fold.
        scans: The fold's support and queries by case; with `shown`, only supports are looked at.
        classes: Name of each class value.
        seed: Seed of what the protocol draws.
        shown: What their slices show, by case; found in the scans when omitted.
        origin: As of `choose`.

    Raises:
        DataError: A support scan does not show a class, or not in enough slices; or shots of one support have slices of
            several sizes.
        FssegError: As from `choose`.
    """
    if shown is None:
        shown = {case: _shown_by(scans[case], classes) for case in fold.evaluated}
    choices = choose(protocol, fold, shown, classes, seed, origin)
    return with_supports(choices, scans)


def with_supports(
    choices: Sequence[Choice],
    scans: Mapping[str, EvaluationScan],
) -> list[Assignment]:
    """The choices with the supports that they mean; choices of the same support share it."""
    supports: dict[tuple, Support] = {}
    assignments = []
    for choice in choices:
        key = (choice.supports, choice.classes)
        if key not in supports:
            supports[key] = _make_support(scans, choice)
        assignment = Assignment(**vars(choice), support=supports[key])
        assignments.append(assignment)
    return assignments


def _shown_by(scan: EvaluationScan, classes: dict[int, str]) -> Shown:
    """The class values that each slice of a scan shows."""
    shown: list[set[int]] = [set() for _ in scan.labels]
    for value in classes:
        masks = scan.labels == value
        has_value = masks.any(dim=2).any(dim=1)
        for values, is_there in zip(shown, has_value.tolist()):
            if is_there:
                values.add(value)
    return shown


def _make_support(scans: Mapping[str, EvaluationScan], choice: Choice) -> Support:
    """The labelled slices of all support scans as the shots of one support."""
    sizes = {case: tuple(scans[case].images.shape[1:]) for case, _ in choice.supports}
    require_one_size(choice, sizes)
    images = []
    labels = []
    location = []
    for case, numbers in choice.supports:
        slices = list(numbers)
        images.append(scans[case].images[slices])
        labels.append(scans[case].labels[slices])
        location.append(scans[case].location[slices])
    ways = len(choice.classes)
    of_shots = torch.cat(images)
    values = torch.cat(labels)
    masks = [values == value for value, _ in choice.classes]
    return Support(
        images=of_shots.expand(ways, *of_shots.shape),
        masks=torch.stack(masks),
        location=torch.cat(location).expand(ways, -1),
        shared=ways > 1,
    )
