"""Tables that name components, and the marks by which a recipe's fields say what they hold."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, field_validator
from pydantic import GetJsonSchemaHandler as Handler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from fsseg.errors import RecipeError
from fsseg.plugins.manager import registry
from fsseg.plugins.numbers import within_bounds
from fsseg.plugins.options import explain, explained, refusal

PlainTable = dict[str, Any]
"""A table of a recipe as plain values, as TOML has it."""

DEFINITIONS = "https://fsseg.invalid/definitions/"
"""Where a JSON schema has the components of each kind, until those are added; pydantic follows no reference to the web."""

PARTLY = "partly"
"""In the context of a check: some keys of a table are given, and others will join them."""


class Table(BaseModel):
    """A table of a recipe with fixed keys; assigning to a field checks the value."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
    _numbers = field_validator("*")(within_bounds)

    def in_full(self, key: str) -> Any:
        """The value of a key as it is used: with what other keys of the table say of it."""
        return getattr(self, key)

    @property
    def unused(self) -> tuple[str, ...]:
        """The keys that say nothing, because another stands in their place."""
        return ()


class ComponentTable(BaseModel):
    """A table that names a component; the other keys are the component's options.

    A subclass for the components of one kind may have further keys of its own, which no component of the kind can have
    as an option.
    """

    model_config = ConfigDict(extra="allow", validate_assignment=True)
    kind: ClassVar[str | None] = None
    name: str

    @classmethod
    def own_keys(cls) -> dict[str, FieldInfo]:
        """The keys that say how the component is used, besides its name."""
        return {key: field for key, field in cls.model_fields.items() if key != "name"}

    @property
    def options(self) -> PlainTable:
        """The component's options as written."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """The name, with the options as written."""
        options = [f"{key} {value}" for key, value in self.options.items()]
        return f"{self.name} ({', '.join(options)})" if options else self.name

    def build(self, kind: str) -> Any:
        """An instance of the component, of this kind, with these options."""
        return registry().build(kind, self.name, self.options)


def by_name(value: Any) -> Any:
    """A component's table, also where it is given by its name alone."""
    return {"name": value} if isinstance(value, str) else value


class Mark:
    """A mark in a field's annotation, which pydantic asks what to do with the field's value."""

    def prepare(self, value: Any) -> Any:
        """The value as it is read, from the one that was given."""
        return value

    def check(self, value: Any, context: PlainTable) -> None:
        """Raises ValidationError for a value that no recipe may have; assigning to a field does not come here."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        prepared = core_schema.no_info_before_validator_function(self.prepare, handler(source))
        return core_schema.with_info_after_validator_function(self._checked, prepared)

    def _checked(self, value: Any, info: Any) -> Any:
        if info.context is not None:
            self.check(value, info.context)
        return value


@dataclass(frozen=True)
class Kind(Mark):
    """Marks a field that holds a component of this kind, by its table or by its name alone."""

    name: str

    def prepare(self, value: Any) -> Any:
        """The component's table, also where its name alone is given."""
        return by_name(value)

    def check(self, value: ComponentTable | None, context: PlainTable) -> None:
        """Raises ValidationError for a name or for options that the registry does not know."""
        if value is None:  # a component that need not be named
            return
        beside = list(value.own_keys())
        problems = registry().problems(self.name, value.name, value.options, beside)
        if problems:
            raise refusal(problems)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Handler) -> JsonSchemaValue:
        return {"allOf": [{"$ref": DEFINITIONS + self.name}]}


@dataclass(frozen=True)
class Named(Mark):
    """Marks a field that holds the name of a component of this kind alone; another field holds its options."""

    name: str

    def check(self, value: str, context: PlainTable) -> None:
        """Raises ValidationError for a name that the registry does not know."""
        try:
            registry().find(self.name, value)
        except RecipeError as error:
            raise explained(str(error)) from None

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Handler) -> JsonSchemaValue:
        return handler(schema) | {"enum": registry().names(self.name)}


@dataclass(frozen=True)
class OptionsOf(Mark):
    """Marks a field that holds the options of the component of this kind that the field `name` beside it names."""

    kind: str


@dataclass(frozen=True)
class Part(Mark):
    """Marks a field that holds some keys of a table, those that are to differ from it."""

    table: type[Table]

    def check(self, value: PlainTable, context: PlainTable) -> None:
        """Raises ValidationError for keys that the table does not have, or not with these values."""
        keys = list(self.table.model_fields)
        context = {**context, PARTLY: True}
        try:
            self.table.model_validate_json(json.dumps(value), strict=True, context=context)
        except ValidationError as error:
            problems = explain(error, lambda _: keys)
            raise refusal(problems) from None

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Handler) -> JsonSchemaValue:
        return handler(self.table.__pydantic_core_schema__)


@dataclass(frozen=True)
class OneOrMany(Mark):
    """Marks a list of components that is also given by its only one.

    Attributes:
        drops_none: The component `none` is left out.
    """

    drops_none: bool = True

    def prepare(self, value: Any) -> list[Any]:
        """The components in a list, without those that are `none` if these are left out."""
        values = value if isinstance(value, list) else [value]
        if not self.drops_none:
            return values
        return [each for each in values if by_name(each) != {"name": "none"}]

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Handler) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


@dataclass(frozen=True)
class Content:
    """The component or the table that a field of a recipe holds, as its annotation says.

    Attributes:
        kind: The kind of the component, if it holds one.
        table: The table with fixed keys, if it holds one.
        options_of: The kind of the component whose options it holds, if it does; the field `name` beside it names it.
        partly: Some of the table's keys are given, those that differ from the table of this name elsewhere.
        many: It holds a list of those.
        default: The name of the component if nothing is said.
    """

    kind: str | None = None
    table: type[Table] | None = None
    options_of: str | None = None
    partly: bool = False
    many: bool = False
    default: str | None = None

    @classmethod
    def of(cls, field: FieldInfo) -> "Content":
        """The content of a field."""
        annotation = field.annotation
        if get_origin(annotation) is list:
            [item] = get_args(annotation)
            return replace(cls.of(FieldInfo.from_annotation(item)), many=True)
        for mark in field.metadata:
            if isinstance(mark, Kind):
                return cls(kind=mark.name, default=_default_name(field))
            if isinstance(mark, OptionsOf):
                return cls(options_of=mark.kind)
            if isinstance(mark, Part):
                return cls(table=mark.table, partly=True)
        if isinstance(annotation, type) and issubclass(annotation, Table):
            return cls(table=annotation)
        return cls()

    def inner(self, part: int | str) -> "Content":
        """The content behind a key, or in the list at a number; nothing behind a key that there is not."""
        if self.many:
            return replace(self, many=False)
        if self.table is None or part not in self.table.model_fields:
            return Content()
        return Content.of(self.table.model_fields[str(part)])

    def at(self, location: Iterable[int | str]) -> "Content":
        """The content some steps further down."""
        content = self
        for part in location:
            content = content.inner(part)
        return content

    @property
    def keys(self) -> list[str]:
        """The fixed keys of its table."""
        if self.table is None or self.many:
            return []
        return list(self.table.model_fields)


def _default_name(field: FieldInfo) -> str | None:
    return field.default.name if isinstance(field.default, ComponentTable) else None


def own_keys_of(kind: str) -> dict[str, FieldInfo]:
    """The keys that tables of a kind have besides the component's name and options."""
    for table in ComponentTable.__subclasses__():
        if table.kind == kind:
            return table.own_keys()
    return {}
