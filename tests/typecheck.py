"""The type checker that the tests execute annotations with: an int may stand for a float, as PEP 484 says.

Shapes are what it is for. Functions without any are left alone, since other types are a matter of the static checker, and
of the others the first calls in each test are checked, since the loops of a training have thousands alike.
"""

import inspect
import sys
from functools import partial, wraps

import jaxtyping
from beartype import BeartypeConf, beartype

MOST_CALLS = 8
"""Calls of a function that are checked in one test."""

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped
_calls = {}
_unchecked = []


def install(modules):
    """Has the shapes in these modules executed, which are not imported yet."""
    jaxtyping.jaxtyped = _where_there_are_shapes
    jaxtyping.install_import_hook(modules, "typecheck.typecheck")


def typecheck(function):
    """Checks the first calls of a function, in every test anew."""
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


def _where_there_are_shapes(*functions, **how):
    """The decorator that the import hook puts before every function and class, and what else it is called for."""
    if not functions:
        return partial(_where_there_are_shapes, **how)
    [function] = functions
    if inspect.isfunction(function) and not _has_shapes(function):
        return function
    return _jaxtyped(function, **how)


def _has_shapes(function):
    return any(
        "jaxtyping" in repr(hint) or (isinstance(hint, str) and "[" in hint)
        for hint in function.__annotations__.values()
    )


def _skip(module, qualname):
    """Leaves a function alone, which jaxtyping asks for the mark of `typing.no_type_check` at each call."""
    found = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    found = getattr(found, "fget", getattr(found, "__func__", found))
    # Annotations of constructors are read, and `typing.get_type_hints` finds none beside that mark.
    if hasattr(found, "__wrapped__") and not qualname.endswith("__init__"):
        found.__no_type_check__ = True
        _unchecked.append(found)
