"""The `repr` of components, which shows their options."""

from collections.abc import Callable, Mapping
from typing import Any


def has_its_own_repr(cls: type) -> bool:
    """True where a class's `repr` is not that of every object, nor torch's, which lists the modules within."""
    definer = next(base for base in cls.__mro__ if "__repr__" in vars(base))
    return definer is not object and not definer.__module__.startswith("torch.")


def showing(
    otherwise: Callable[[Any], str], defaults_of: Callable[[type], Mapping[str, Any] | None]
) -> Callable[[Any], str]:
    """A `repr` of the class and all its options, such as `EmGmm(count=5, iterations=100)`.

    Args:
        otherwise: The `repr` of what has no options.
        defaults_of: Gives the defaults of a class's options; None for a class whose options are not checked.
    """

    def __repr__(self: Any) -> str:
        given = getattr(self, "_given_options", None)
        defaults = None if given is None else defaults_of(type(self))
        if given is None or defaults is None:
            return otherwise(self)
        options = []
        for name, default in defaults.items():
            value = given.get(name, default)
            options.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(options)})"

    return __repr__
