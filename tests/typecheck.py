"""The type checker that the tests execute annotations with: an int may stand for a float, as PEP 484 says."""

import sys
from functools import wraps

from beartype import BeartypeConf, beartype

MOST_CALLS = 20
"""Calls of a function that are checked in one test; the loops of a training have thousands alike."""

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_calls = {}
_unchecked = []


def typecheck(function):
    """Checks the first calls of a function that has a shape among its annotations, in every test anew.

    Other types are a matter of the static checker.
    """
    shapes = any("jaxtyping" in repr(hint) for hint in function.__annotations__.values())
    if not shapes:
        return _never_again(function)
    checked = _check(function)
    name = function.__module__, function.__qualname__

    @wraps(function)
    def counted(*args, **kwargs):
        calls = _calls[name] = _calls.get(name, 0) + 1
        if calls == MOST_CALLS:
            _skip(*name)
        return checked(*args, **kwargs)

    return counted


def begin_test():
    """Has the calls counted anew."""
    _calls.clear()
    for function in _unchecked:
        del function.__no_type_check__
    _unchecked.clear()


def _never_again(function):
    """A function without shapes, which jaxtyping need not look at from its first call on."""
    seen = []

    @wraps(function)
    def once(*args, **kwargs):
        if not seen:
            seen.append(True)
            found = _find(function.__module__, function.__qualname__)
            if found is not None:
                found.__no_type_check__ = True
        return function(*args, **kwargs)

    return once


def _skip(module, qualname):
    found = _find(module, qualname)
    if found is not None:
        found.__no_type_check__ = True
        _unchecked.append(found)


def _find(module, qualname):
    """The function of this name as jaxtyping has wrapped it, which asks for `__no_type_check__` at each call.

    None for constructors: their annotations are read, and `typing.get_type_hints` finds none beside that mark.
    """
    if qualname.endswith("__init__"):
        return None
    found = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    found = getattr(found, "fget", getattr(found, "__func__", found))
    return found if hasattr(found, "__wrapped__") else None
