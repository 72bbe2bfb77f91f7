"""Constructors as `help` shows them: types without their metadata, and the meaning of each argument."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo


def document(wrapper: Callable[..., None], constructor: Callable[..., None]) -> None:
    """Gives what stands for a constructor a signature to read, and a docstring if the constructor has none.

    Args:
        wrapper: The function that stands for the constructor; it is changed.
        constructor: The constructor, whose annotations hold each argument's meaning.
    """
    signature = inspect.signature(constructor)
    parameters = [
        parameter.replace(annotation=_plain(parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    documented: Any = wrapper
    documented.__signature__ = signature.replace(parameters=parameters)
    if not constructor.__doc__:
        wrapper.__doc__ = _options(signature)


def _plain(annotation: Any) -> Any:
    """The type alone, of an annotation with metadata."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _options(signature: inspect.Signature) -> str:
    """The meaning of each option, as a docstring tells of arguments."""
    lines = []
    for name, parameter in list(signature.parameters.items())[1:]:
        meaning = _meaning(parameter.annotation)
        lines.append(f"    {name}: {meaning}." if meaning else f"    {name}")
    if not lines:
        return "Takes no options."
    return "\n".join(["Takes the options.", "", "Args:", *lines])


def _meaning(annotation: Any) -> str:
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    fields = [field for field in metadata if isinstance(field, FieldInfo)]
    return next((field.description for field in fields if field.description), "")
