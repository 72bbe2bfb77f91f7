"""A component's constructor is its schema: options, their types, defaults and meanings come from its signature."""

import difflib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails, PydanticUndefined

from fsseg.errors import PluginError


@dataclass(frozen=True)
class Option:
    """One option of a component, as shown to people."""

    name: str
    type: str
    default: str
    meaning: str


@lru_cache(maxsize=256)
def schema(component: type) -> type[BaseModel]:
    """The pydantic model of a component's options.

    Raises PluginError for a constructor with positional, variable or unannotated arguments.
    """
    hints = get_type_hints(component.__init__, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(component.__init__).parameters.items())[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name not in hints:
            raise PluginError(
                f"{component.__module__}:{component.__qualname__}{_place(component)}: the constructor's argument {name!r} "
                f"is {'unannotated' if name not in hints else 'not keyword-only'}, expected annotated keyword-only "
                "arguments; they are the component's recipe table, as in `def __init__(self, *, scale: float = 1.0)`"
            )
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    return create_model(
        component.__name__, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields
    )


def _place(component: type) -> str:
    """File and line of a constructor that is written in Python."""
    code = getattr(component.__init__, "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""


def options_of(component: type) -> list[Option]:
    """The options of a component, in the order of its constructor."""
    return [
        Option(name, _type_name(field.annotation), _default_text(field), field.description or "")
        for name, field in schema(component).model_fields.items()
    ]


def validate(component: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options as the constructor takes them; raises pydantic's ValidationError."""
    # Through JSON, so that a TOML list becomes a tuple where one is meant, but "3" never becomes 3.
    model = schema(component).model_validate_json(json.dumps(options, default=str), strict=True)
    return {name: getattr(model, name) for name in model.model_fields_set}


def explain(
    error: ValidationError, valid_at: Callable[[tuple[int | str, ...]], list[str]]
) -> list[tuple[str, str]]:
    """Pydantic's complaints as (key, sentence) pairs.

    `valid_at` gives the valid keys of the table at a location, with which an unknown key is compared.
    """
    explained: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"] if not _is_type_tag(part))
        sentence = _sentence(detail, valid_at(detail["loc"][:-1]))
        # The branches of a union complain one by one; together they are one sentence.
        explained[key] = _join(explained[key], sentence) if key in explained else sentence
    return list(explained.items())


def _join(first: str, second: str) -> str:
    """Two expectations of one value as one: "expected an integer or 'all', got 'x'"."""
    return f"{first.rsplit(', got ', 1)[0]} or {second.removeprefix('expected ')}"


def nearest(name: str, valid: list[str]) -> str:
    """A hint naming the closest valid name, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid are {', '.join(valid)}" if valid else "there are no options"


def _sentence(detail: ErrorDetails, valid: list[str]) -> str:
    if detail["type"] == "extra_forbidden":
        return f"unknown key; {nearest(str(detail['loc'][-1]), valid)}"
    if detail["type"] == "missing":
        return "is missing; give it a value"
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"expected {message}, got {detail['input']!r}"


def _is_type_tag(part: str | int) -> bool:
    """Pydantic names the branches of a union within an error's location; a reader of a recipe has no use for them."""
    if not isinstance(part, str):
        return False
    tags = {"str", "int", "float", "bool", "list", "dict"}
    return part in tags or part.startswith(
        ("literal[", "tuple[", "list[", "function-", "constrained-")
    )


def _type_name(annotation: Any) -> str:
    """A type as a reader of a recipe would write it: `'a' | 'b'`, `list[int]`, `float | none`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(repr(value) for value in arguments)
    if origin in (Union, UnionType):
        return " | ".join(_type_name(argument) for argument in arguments)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is not None:
        return f"{origin.__name__}[{', '.join(_type_name(argument) for argument in arguments)}]"
    if annotation in (None, type(None)):
        return "none"
    return "..." if annotation is Ellipsis else getattr(annotation, "__name__", str(annotation))


def _default_text(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    return "none" if field.default is None else json.dumps(field.default)
