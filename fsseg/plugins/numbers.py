"""Numbers that people give: finite, and no larger than what computes with them can hold."""

import math
from typing import Any

from pydantic_core import PydanticCustomError

LARGEST = (2 - 2**-23) * 2.0**127
"""The largest number of single precision, in which networks compute: about 3.4e38."""

SMALLEST = 2.0**-126
"""The smallest that keeps all its digits there: about 1.2e-38."""

LARGEST_WHOLE = 2**63 - 1
"""The largest whole number of TOML, of generators' seeds and of tables of scores."""


def within_bounds(value: Any) -> Any:
    """Checks every number in a value; a validator of pydantic.

    Args:
        value: A number, or a list or table of numbers and other values.

    Returns:
        The value as it was.

    Raises:
        PydanticCustomError: A number is not finite, or too large or small for what computes with it.
    """
    for part in _parts(value):
        expected = _expected(part)
        if expected is not None:
            raise PydanticCustomError(
                "number", "Input should be {expected}", {"expected": expected}
            )
    return value


def are_finite(value: Any) -> bool:
    """True unless a number in a value, or in lists and tables of it, is infinite or not a number."""
    numbers = [part for part in _parts(value) if isinstance(part, float)]
    return all(math.isfinite(number) for number in numbers)


def _parts(value: Any) -> list[Any]:
    """The value, or those within it."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return [value]
    parts = []
    for inner in value:
        parts += _parts(inner)
    return parts


def _expected(value: Any) -> str | None:
    """What would be right in place of a number that is not."""
    if isinstance(value, int):
        return None if abs(value) <= LARGEST_WHOLE else "a whole number of at most 63 bits"
    if not isinstance(value, float) or value == 0:
        return None
    if not math.isfinite(value):
        return "a finite number"
    if not SMALLEST <= abs(value) <= LARGEST:
        return f"0 or a number from {SMALLEST:.2g} to {LARGEST:.2g} in size, as single precision has them"
    return None
