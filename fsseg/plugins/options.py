"""A component's constructor is its schema: options, their types, defaults and meanings come from its signature."""

import datetime
import difflib
import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model, field_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, PydanticUndefined

from fsseg.errors import OptionsError, PluginError
from fsseg.plugins.help import document
from fsseg.plugins.numbers import within_bounds
from fsseg.plugins.showing import has_its_own_repr, showing

Class = TypeVar("Class", bound=type)

Options = dict[str, Any]
"""Options of a component by name."""

Problems = list[tuple[str, str]]
"""Dotted keys with a sentence each."""

Location = tuple[int | str, ...]
"""The keys and numbers that lead to a value."""

EXPLAINED = "explained"
"""Pydantic's type of errors whose message is a finished sentence."""

CHECKING = "checks_options"
"""The attribute of constructors that check their options."""

LONGEST_SHOWN = 200
"""Characters of a value that are repeated in a message at most."""

TYPE_TAGS = ("str", "int", "float", "bool", "list", "dict")
TYPE_PREFIXES = ("literal[", "tuple[", "list[", "function-", "constrained-")


@dataclass(frozen=True)
class Option:
    """One option of a component, as it is shown to people."""

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
    _, *parameters = inspect.signature(component.__init__).parameters.values()
    for parameter in parameters:
        name = parameter.name
        if name not in hints:
            raise _no_schema(component, name, "unannotated")
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise _no_schema(component, name, "not keyword-only")
        is_required = parameter.default is inspect.Parameter.empty
        fields[name] = (hints[name], ... if is_required else parameter.default)
    config = ConfigDict(extra="forbid", protected_namespaces=())
    validators: dict[str, Any] = {"within_bounds": field_validator("*")(within_bounds)}
    return create_model(component.__name__, __config__=config, __validators__=validators, **fields)


def _no_schema(component: type, argument: str, fault: str) -> PluginError:
    return PluginError(
        f"{component.__module__}:{component.__qualname__}{_place(component)}: the constructor's argument {argument!r} "
        f"is {fault}, expected annotated keyword-only arguments; they are the component's recipe table, as in "
        "`def __init__(self, *, scale: float = 1.0)`"
    )


def _place(component: type) -> str:
    """File and line of a constructor that is written in Python."""
    code = getattr(inspect.unwrap(component.__init__), "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""


def options_of(component: type) -> list[Option]:
    """The options of a component, in the order of its constructor."""
    options = []
    for name, field in schema(component).model_fields.items():
        type_name = _type_name(field.annotation)
        meaning = field.description or ""
        options.append(Option(name, type_name, _default_text(field), meaning))
    return options


def validate(component: type, options: Options) -> dict[str, Any]:
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


def problems_of(component: type, options: Options, beside: Sequence[str] = ()) -> Problems:
    """The problems with a component's options: nothing if it can be built with them.

    Args:
        component: The component's class.
        options: Its options by name.
        beside: Further keys that stand beside the options in a table, and may have been meant.
    """
    try:
        validate(component, options)
    except ValidationError as error:
        return _explained(component, error, beside)
    return []


def _explained(component: type, error: ValidationError, beside: Sequence[str] = ()) -> Problems:
    return explain(error, lambda _: [*beside, *schema(component).model_fields])


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
    if not has_its_own_repr(cls):
        changed: Any = cls
        changed.__repr__ = showing(changed.__repr__, _defaults)
    return cls


def _defaults(cls: type) -> dict[str, Any] | None:
    """The defaults of a class's options; None for one that does not check them."""
    if not checks_options(cls):
        return None
    return {name: field.default for name, field in schema(cls).model_fields.items()}


def checks_options(cls: type) -> bool:
    """True for a class whose constructor checks the options that it is given: see `component`."""
    return hasattr(cls.__init__, CHECKING)


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

    setattr(__init__, CHECKING, True)
    document(__init__, constructor)
    return __init__


def _by_name(cls: type, value: Any) -> tuple[str, str]:
    names = list(schema(cls).model_fields)
    if not names:
        return "", f"it has no options, got {value!r}; leave it out"
    return names[0], f"expected options by name, such as {cls.__name__}({names[0]}={value!r})"


def explain(error: ValidationError, valid_at: Callable[[Location], list[str]]) -> Problems:
    """Pydantic's complaints in our words.

    Args:
        error: The complaints.
        valid_at: Gives the valid keys of the table at a location, with which an unknown key is compared.
    """
    sentences: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        key = ".".join(str(part) for part in location if not _is_type_tag(part))
        sentence = _sentence(detail, valid_at(location[:-1]))
        if key in sentences:  # the branches of a union complain one by one
            sentence = _join(sentences[key], sentence)
        sentences[key] = sentence
    return list(sentences.items())


def explained(sentence: str) -> PydanticCustomError:
    """An error for validators to raise, whose message is a finished sentence."""
    return PydanticCustomError(EXPLAINED, "{sentence}", {"sentence": sentence})


def refusal(problems: Problems) -> ValidationError:
    """The error of pydantic that stands for problems, so that a validator can raise them for a part of a table."""
    details = []
    for key, sentence in problems:
        location = tuple(key.split("."))
        detail = InitErrorDetails(type=explained(sentence), loc=location, input=None)
        details.append(detail)
    return ValidationError.from_exception_data("options", details)


def _join(first: str, second: str) -> str:
    """Two expectations of one value as one: "expected an integer or 'all', got 'x'"."""
    expected, _, _ = first.rpartition(", got ")
    return f"{expected} or {second.removeprefix('expected ')}"


def nearest(name: str, valid: list[str]) -> str:
    """A hint that names the closest valid name, or all of them."""
    close = [other for other in valid if other.lower() == name.lower()]
    close = close or difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid are {', '.join(valid)}" if valid else "there are no options"


def _sentence(detail: ErrorDetails, valid: list[str]) -> str:
    if detail["type"] == EXPLAINED:
        return detail["msg"]
    if detail["type"] == "extra_forbidden":
        key = str(detail["loc"][-1])
        return f"unknown key; {nearest(key, valid)}"
    if detail["type"] == "missing":
        return "is missing; give it a value"
    message = detail["msg"]
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return f"expected {message}, got {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    """A value as Python writes it, as far as a reader wants to see it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _is_type_tag(part: str | int) -> bool:
    """Pydantic names the branches of a union within an error's location; a reader of a recipe has no use for them."""
    if not isinstance(part, str):
        return False
    return part in TYPE_TAGS or part.startswith(TYPE_PREFIXES)


def _type_name(annotation: Any) -> str:
    """A type as a reader of a recipe would write it: `'a' | 'b'`, `list[int]`, `float | none`."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type_name, arguments))}]"
    if annotation in (None, type(None)):
        return "none"
    if annotation is Ellipsis:
        return "..."
    return getattr(annotation, "__name__", str(annotation))


def _default_text(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "none"
    return json.dumps(field.default)
