"""A check that arrays fit together, from the shapes that their annotations say."""

from functools import cache
from typing import Any, get_args

from jaxtyping import AbstractArray, jaxtyped

from fsseg.errors import DataError


def require_fitting(where: str, example: str, *values: Any) -> None:
    """Holds the annotated arrays of dataclasses against their annotations, all of them together.

    Only shapes, kinds of numbers and devices are looked at, so that no device has to be waited for.

    Args:
        where: What a message calls the values.
        example: What a message shows as right.
        values: Dataclasses; axes of one name are of one size over all of them. Arrays that are None are passed over.

    Raises:
        DataError: An array is none, is of another kind of numbers or shape, or on another device than the others.
    """
    arrays, hints = {}, {}
    for value in values:
        for name, hint in _array_hints(value.__class__).items():
            arrays[name], hints[name] = getattr(value, name), hint
    with jaxtyped("context"):
        strange = [name for name, array in arrays.items() if not isinstance(array, hints[name])]
    if strange:
        raise DataError(f"{where}: {strange[0]} does not fit; {_listed(arrays, hints)}; {example}")
    devices = {name: array.device for name, array in arrays.items() if array is not None}
    if len(set(devices.values())) > 1:
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise DataError(
            f"{where}: got {places}, expected all on one device; move them with .to first"
        )


@cache
def _array_hints(cls: type) -> dict[str, Any]:
    """The annotations of a class that are arrays, or arrays or None."""
    return {name: hint for name, hint in cls.__annotations__.items() if _is_array(hint)}


def _is_array(hint: Any) -> bool:
    alternatives = get_args(hint) or (hint,)
    return any(isinstance(one, type) and issubclass(one, AbstractArray) for one in alternatives)


def _listed(arrays: dict[str, Any], hints: dict[str, Any]) -> str:
    """What was expected of each array, and what was got."""
    expected = ", ".join(
        f"{name} {getattr(hints[name], '__name__', hints[name])}" for name in arrays
    )
    got = ", ".join(f"{name} {_described(array)}" for name, array in arrays.items())
    return f"expected {expected}, got {got}"


def _described(array: Any) -> str:
    """The kind of numbers and the shape of an array, the type of anything else."""
    if not hasattr(array, "dtype"):
        return type(array).__name__
    return f"{array.dtype} {tuple(array.shape)}".removeprefix("torch.")
