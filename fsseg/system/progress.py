"""How long-running stages tell how far they are; the shell draws bars, a script stays silent."""

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
    """Follows nothing."""

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        yield from items

    def note(self, text: str) -> None:
        pass


def told_time(seconds: float) -> str:
    """A time as a person reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
