"""The type checker that the tests execute annotations with: an int may stand for a float, as PEP 484 says."""

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typecheck(function):
    """Checks a function that has a shape among its annotations; other types are a matter of the static checker."""
    shapes = any("jaxtyping" in repr(hint) for hint in function.__annotations__.values())
    return _check(function) if shapes else function
