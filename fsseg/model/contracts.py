"""What a part of a segmenter is, told from the attributes that its contract in `fsseg.interfaces` names."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from fsseg.errors import DataError, FssegError
from fsseg.interfaces import Backbone, Head, PrototypeExtractor, Refiner, Threshold
from fsseg.plugins.options import nearest
from fsseg.types import Support

CONTRACTS = {
    "backbone": (Backbone, "TimmBackbone()"),
    "prototypes": (PrototypeExtractor, "MaskedAverage()"),
    "head": (Head, "Tpm()"),
    "threshold": (Threshold, "CeT()"),
    "refiner": (Refiner, "Smooth3d()"),
}
"""By kind, its contract and an example."""

ARGUMENTS = {"prototypes": 3, "refiner": 2}
"""Kinds that may be nothing but callable, and with how many arguments they are called; one that sees the query gets one more."""


def require_parts(parts: Mapping[str, Any], refiners: Any) -> None:
    """Holds the parts of a segmenter against the contracts of their kinds.

    Args:
        parts: Backbone, prototypes, head and threshold by kind.
        refiners: The refiners.

    Raises:
        FssegError: Parts are not of their kind; the message names them all, and says if they look swapped.
    """
    misplaced = {}
    for kind, part in parts.items():
        if not _is_of_kind(kind, part):
            misplaced[kind] = part
    kinds = {_kind_of(part) for part in misplaced.values()}
    if len(misplaced) > 1 and kinds == set(misplaced):
        got = " and ".join(f"{_described(part)} as {kind}" for kind, part in misplaced.items())
        raise FssegError(
            f"Segmenter: got {got}, which look swapped; expected Segmenter(backbone, prototypes, head, threshold)"
        )
    if misplaced:
        sentences = [_sentence(kind, part) for kind, part in misplaced.items()]
        raise FssegError(f"Segmenter: {'; '.join(sentences)}")
    if not isinstance(refiners, Sequence) or isinstance(refiners, str):
        raise FssegError(
            f"Segmenter: got {_described(refiners)} as refiners, expected a list such as [Smooth3d()]"
        )
    for refiner in refiners:
        if not _is_of_kind("refiner", refiner):
            raise FssegError(f"Segmenter: {_sentence('refiner', refiner)}")


def require_mode(mode: str, modes: Any) -> None:
    """Raises FssegError for a mode that is none of those in this Literal."""
    known = list(get_args(modes))
    if mode not in known:
        raise FssegError(f"Segmenter: there is no mode {mode!r}; {nearest(str(mode), known)}")


def _is_of_kind(kind: str, part: Any) -> bool:
    found = _kind_of(part)
    if found is None and kind in ARGUMENTS:
        sees_query = kind == "prototypes" and getattr(part, "per_query", False)
        return _takes(part, ARGUMENTS[kind] + sees_query)
    return found == kind


def _kind_of(part: Any) -> str | None:
    """The kind whose attributes a part has; None where that does not tell."""
    if isinstance(part, type) or not callable(part):
        return None
    kinds = ("backbone", "head", "threshold", "prototypes")
    return next((kind for kind in kinds if not _lacking(part, kind)), None)


def _lacking(part: Any, kind: str) -> list[str]:
    """The attributes of the kind's contract that a part lacks."""
    contract, _ = CONTRACTS[kind]
    return [name for name in contract.__annotations__ if not hasattr(part, name)]


def _takes(part: Any, count: int) -> bool:
    """Whether a part can be called with so many arguments, as far as its signature tells."""
    if isinstance(part, type) or not callable(part):
        return False
    try:
        signature = inspect.signature(part)
    except ValueError:  # one that is not written in Python
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _sentence(kind: str, part: Any) -> str:
    contract, example = CONTRACTS[kind]
    lacking = [] if isinstance(part, str | type) else _lacking(part, kind)
    lacks = f", which lacks {' and '.join(lacking)}" if lacking and kind not in ARGUMENTS else ""
    return (
        f"got {_described(part)} as {kind}{lacks}, expected an object such as {example} "
        f"(see fsseg.interfaces.{contract.__name__})"
    )


def _described(part: Any) -> str:
    if isinstance(part, type):
        return f"the class {part.__name__}"
    if isinstance(part, str):
        return repr(part)
    kind = _kind_of(part)
    return f"the {kind} {type(part).__name__}" if kind else f"a {type(part).__name__}"


def require_foreground(support: Support) -> None:
    """Checks that every way has a foreground pixel in each of its shots, for which the host waits.

    Raises:
        DataError: A mask is empty.
    """
    empty = ~support.masks.any(dim=-1).any(dim=-1)
    if empty.any():
        way, shot = empty.nonzero()[0].tolist()
        raise DataError(
            f"support: the mask of way {way}, shot {shot} is empty, expected at least one foreground pixel; "
            "choose a slice that shows the class"
        )
