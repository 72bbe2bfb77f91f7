"""Who segments what from which slices: the value that protocols choose. No voxel is looked at here."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

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
        turn: Choices of one query, support, classes and turn are parts of one segmentation; protocols leave it at 0.
        more_supports: Further cases whose labelled slices are shots of the same support, each with those slices.

    Example:
        Slice 12 of a scan segments the ten slices behind it:

        >>> choice = Choice(((1, "liver"),), "a", (12,), "a", tuple(range(13, 23)))
        >>> choice.supports, choice.support_name
        ((('a', (12,)),), 'a')
    """

    classes: tuple[Way, ...]
    support_case: str
    support_slices: Slices
    query_case: str
    query_slices: Slices | None = None
    turn: int = 0
    more_supports: tuple[tuple[str, Slices], ...] = ()

    def __post_init__(self) -> None:
        """Takes whatever holds whole numbers, such as an array, for numbers of slices."""
        object.__setattr__(self, "support_slices", _whole(self.support_slices))
        if self.query_slices is not None:
            object.__setattr__(self, "query_slices", _whole(self.query_slices))
        more = tuple((case, _whole(numbers)) for case, numbers in self.more_supports)
        object.__setattr__(self, "more_supports", more)

    @property
    def supports(self) -> tuple[tuple[str, Slices], ...]:
        """Every case that gives shots, with its labelled slices."""
        return ((self.support_case, self.support_slices), *self.more_supports)

    @property
    def support_name(self) -> str:
        """The cases that give the support, as scores and files name them."""
        return " + ".join(case for case, _ in self.supports)

    @property
    def segmentation(self) -> tuple:
        """The query, the supports, the classes and the turn, which the parts of one segmentation share."""
        return self.query_case, self.support_name, self.classes, self.turn

    @property
    def index(self) -> slice | list[int]:
        """Picks the query slices from a scan, without a copy where they are all of them."""
        if self.query_slices is None:
            return slice(None)
        return list(self.query_slices)


def segmented_slices(parts: Iterable[Choice]) -> Slices | None:
    """The slices that any part of a segmentation segments; None for all."""
    slices: list[int] = []
    for part in parts:
        if part.query_slices is None:
            return None
        slices += part.query_slices
    return tuple(slices)


def _whole(numbers: Iterable[Any]) -> Slices:
    """Numbers as a tuple; those of NumPy as Python's, which JSON holds."""
    return tuple(int(number) if isinstance(number, Integral) else number for number in numbers)


def ways_in(classes: dict[int, str], values: Collection[int]) -> tuple[Way, ...]:
    """The evaluated classes among the values that a slice shows."""
    return tuple(way for way in classes.items() if way[0] in values)


def slices_with(shown: Shown, value: int) -> list[int]:
    """The slices that show a class, in order."""
    return [number for number, values in enumerate(shown) if value in values]
