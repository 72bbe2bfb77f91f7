"""A component's constructor is its schema: options, their types, defaults and meanings come from its signature."""

import datetime
import difflib
import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, PydanticUndefined

from fsseg.errors import OptionsError, PluginError

Class = TypeVar("Class", bound=type)

EXPLAINED = "explained"
"""Pydantic's type of errors whose message is a finished sentence."""


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
    code = getattr(inspect.unwrap(component.__init__), "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""


def options_of(component: type) -> list[Option]:
    """The options of a component, in the order of its constructor."""
    return [
        Option(name, _type_name(field.annotation), _default_text(field), field.description or "")
        for name, field in schema(component).model_fields.items()
    ]


def validate(component: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options as the constructor takes them; raises pydantic's ValidationError."""
    # Through JSON, so that a list becomes a tuple where one is meant, but "3" never becomes 3.
    values: dict[str, str] = {}
    strange = []
    for key, value in options.items():
        try:
            values[key] = json.dumps(value, default=_plain)
        except (TypeError, ValueError):
            strange.append(_not_plain(key, value))
    if strange:
        raise ValidationError.from_exception_data(component.__name__, strange)
    text = ", ".join(f"{json.dumps(key)}: {value}" for key, value in values.items())
    model = schema(component).model_validate_json(f"{{{text}}}", strict=True)
    return {name: getattr(model, name) for name in model.model_fields_set}


def _plain(value: Any) -> Any:
    """A Python value as TOML would hold it: numbers of NumPy and torch, arrays, paths and the like."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, datetime.date | datetime.time):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that TOML holds")


def _not_plain(key: str, value: Any) -> InitErrorDetails:
    """Pydantic's description of an option that holds an object of another kind."""
    expected = "a number, a text, true or false, or a list or table of these"
    sentence = PydanticCustomError("not_plain", "Input should be " + expected)
    return InitErrorDetails(type=sentence, loc=(key,), input=value)


def problems_of(component: type, options: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a component's options, as (key, sentence) pairs."""
    try:
        validate(component, options)
    except ValidationError as error:
        return _explained(component, error)
    return []


def _explained(component: type, error: ValidationError) -> list[tuple[str, str]]:
    return explain(error, lambda _: list(schema(component).model_fields))


def component(cls: Class) -> Class:
    """Makes a class check the options that its constructor is given, and show them in its `repr`.

    Options from Python are then held against the constructor's signature as those of a recipe are, with the same
    sentences. The registry does it to every component that it loads, so only those that are built without it need it.

    Args:
        cls: A class whose constructor has annotated keyword-only arguments. It is changed in place; a `__repr__` of its
            own is kept.

    Returns:
        The class.

    Raises:
        OptionsError: From the constructor, listing every option that is unknown, missing or of another type or range.

    Example:
        >>> @fsseg.component
        ... class Constant:
        ...     def __init__(self, *, prior: Annotated[float, Field(gt=0, lt=1)] = 0.5) -> None:
        ...         self.prior = prior
        >>> Constant(prior=0.2)
        Constant(prior=0.2)
        >>> Constant(prior=2)
        Traceback (most recent call last):
        fsseg.errors.OptionsError: Constant: prior: expected less than 1, got 2
    """
    if not checks_options(cls):
        cls.__init__ = _checking(cls, cls.__init__)
    if not _has_its_own_repr(cls):
        cls.__repr__ = _showing(cls.__repr__)
    return cls


def checks_options(cls: type) -> bool:
    """True for a class whose constructor checks the options that it is given: see `component`."""
    return hasattr(cls.__init__, "checks_options")


def _checking(owner: type, constructor: Callable[..., None]) -> Callable[..., None]:
    """The constructor behind a check of its options."""

    @functools.wraps(constructor)
    def __init__(self: Any, /, *positional: Any, **options: Any) -> None:
        # Else it is called by the constructor of a subclass, which was given the options that count.
        is_outermost = type(self).__init__ is __init__
        cls = type(self) if is_outermost else owner
        if positional:
            raise OptionsError(cls, [_by_name(cls, positional[0])])
        try:
            checked = validate(cls, options)
        except ValidationError as error:
            raise OptionsError(cls, _explained(cls, error)) from None
        if is_outermost:
            with suppress(AttributeError):  # a class with __slots__
                object.__setattr__(self, "_given_options", checked)
        constructor(self, **checked)

    __init__.checks_options = True
    return __init__


def _by_name(cls: type, value: Any) -> tuple[str, str]:
    names = list(schema(cls).model_fields)
    if not names:
        return "", f"it has no options, got {value!r}; leave it out"
    return names[0], f"expected options by name, such as {cls.__name__}({names[0]}={value!r})"


def _has_its_own_repr(cls: type) -> bool:
    """Not that of every object, nor torch's, which lists the modules within."""
    definer = next(base for base in cls.__mro__ if "__repr__" in vars(base))
    return definer is not object and not definer.__module__.startswith("torch.")


def _showing(otherwise: Callable[[Any], str]) -> Callable[[Any], str]:
    """A `repr` of the class and all its options, such as `EmGmm(count=5, iterations=100)`."""

    def __repr__(self: Any) -> str:
        given = getattr(self, "_given_options", None)
        if given is None or not checks_options(type(self)):
            return otherwise(self)
        fields = schema(type(self)).model_fields
        options = {name: given.get(name, field.default) for name, field in fields.items()}
        shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{type(self).__name__}({shown})"

    return __repr__


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


def explained(sentence: str) -> PydanticCustomError:
    """An error for validators to raise, whose message is a finished sentence."""
    return PydanticCustomError(EXPLAINED, "{sentence}", {"sentence": sentence})


def refusal(problems: list[tuple[str, str]]) -> ValidationError:
    """What `explain` said, as an error of pydantic again, so that a validator can raise it for a part of a table."""
    details = [
        InitErrorDetails(type=explained(sentence), loc=tuple(key.split(".")), input=None)
        for key, sentence in problems
    ]
    return ValidationError.from_exception_data("options", details)


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
    if detail["type"] == EXPLAINED:
        return detail["msg"]
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
