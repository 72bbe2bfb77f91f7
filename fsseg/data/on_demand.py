"""Scans that are read when they are looked at, for those who would otherwise hold thousands of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

KEPT_AT_HAND = 8
"""Scans that stay in memory after they were read: those of a fold of the published benchmarks."""

Value = TypeVar("Value")


class OnDemand(Mapping[str, Value]):
    """A value for each case, made when it is looked at; the last few stay in memory."""

    def __init__(self, cases: Iterable[str], make: Callable[[str], Value]) -> None:
        self._cases = list(cases)
        self._make = lru_cache(KEPT_AT_HAND)(make)

    def __getitem__(self, case: str) -> Value:
        return self._make(case)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cases)

    def __len__(self) -> int:
        return len(self._cases)


class InTurn(Sequence[np.ndarray]):
    """Arrays that are read one after the other, and again when they are looked at again."""

    def __init__(self, read: Callable[[Any], np.ndarray], cases: Sequence[Any]) -> None:
        self._read = read
        self._cases = cases

    def __getitem__(self, index: Any) -> Any:
        """The array of this number; there are no slices of arrays."""
        return self._read(self._cases[index])

    def __len__(self) -> int:
        return len(self._cases)
