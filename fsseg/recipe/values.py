"""Types of values that several of a recipe's tables hold."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fsseg.plugins.numbers import LARGEST_WHOLE

NumberOrAuto = Annotated[int, Field(ge=1)] | Literal["auto"]

MOST_CLASSES = 254
"""Classes of an episode at most: a byte holds them, the background, and pixels that do not count."""


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high:
        raise ValueError("[low, high] with 0 < low <= high")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_check_range)]
"""The least and the largest value of a factor or an exponent."""


def _check_seeds(value: Any) -> Any:
    seeds = value if isinstance(value, list) else [value]
    are_numbers = all(type(seed) is int and 0 <= seed <= LARGEST_WHOLE for seed in seeds)
    are_different = are_numbers and len(set(seeds)) == len(seeds)
    if not seeds or not are_different:
        raise ValueError(
            "a whole number from 0 to 2**63 - 1, or a list of different ones, such as [0, 1, 2]"
        )
    return value


Seeds = Annotated[int | list[int], BeforeValidator(_check_seeds)]
"""A seed, or several of a run with each."""
