"""How far long-running stages are, told by themselves; the shell draws bars, a script stays silent."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


@runtime_checkable
class Progress(Protocol):
    """Follows the stages of a run."""

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        """Yields the items and counts them."""
        ...

    def note(self, text: str) -> None:
        """Says something in passing."""
        ...


class Silent:
    """A progress that shows and says nothing."""

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        yield from items

    def note(self, text: str) -> None:
        pass


def told_time(seconds: float) -> str:
    """Returns a time as a person reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"
