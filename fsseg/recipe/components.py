"""Tables that name components, and the marks by which a recipe's fields say what they hold."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic import GetJsonSchemaHandler as Handler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from fsseg.plugins.manager import registry
from fsseg.plugins.options import explain, refusal

DEFINITIONS = "https://fsseg.invalid/definitions/"
"""Where a JSON schema has the components of each kind, until those are added; pydantic follows no reference to the web."""


class Table(BaseModel):
    """A table of a recipe with fixed keys; assigning to a field checks the value."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class ComponentTable(BaseModel):
    """A table that names a component; the other keys are the component's options."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The component's options as written."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """The name, with the options as written."""
        options = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name

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

    def check(self, value: Any, context: dict[str, Any]) -> None:
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
        """The component's table."""
        return by_name(value)

    def check(self, value: ComponentTable, context: dict[str, Any]) -> None:
        """Raises ValidationError for a name or for options that the registry does not know."""
        problems = registry().problems(self.name, value.name, value.options)
        if problems:
            raise refusal(problems)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Handler) -> JsonSchemaValue:
        return {"allOf": [{"$ref": DEFINITIONS + self.name}]}


@dataclass(frozen=True)
class Part(Mark):
    """Marks a field that holds some keys of a table, those that are to differ from it."""

    table: type[Table]

    def check(self, value: dict[str, Any], context: dict[str, Any]) -> None:
        """Raises ValidationError for keys that the table does not have, or not with these values."""
        try:
            self.table.model_validate_json(json.dumps(value), strict=True, context=context)
        except ValidationError as error:
            raise refusal(explain(error, lambda _: list(self.table.model_fields))) from None

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Handler) -> JsonSchemaValue:
        return handler(self.table.__pydantic_core_schema__)


@dataclass(frozen=True)
class OneOrMany(Mark):
    """Marks a list of components that is also given by its only one; the component `none` is left out."""

    def prepare(self, value: Any) -> list[Any]:
        """The list."""
        values = value if isinstance(value, list) else [value]
        return [each for each in values if by_name(each) != {"name": "none"}]

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Handler) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


@dataclass(frozen=True)
class Content:
    """What a field of a table holds, as its annotation says.

    Attributes:
        kind: The kind of component, if it holds a component.
        table: The table with fixed keys, if it holds one.
        partly: Some of the table's keys are given, those that differ from the table of this name elsewhere.
        many: It is a list of those.
        default: The component's name that it has if nothing is said.
    """

    kind: str | None = None
    table: type[BaseModel] | None = None
    partly: bool = False
    many: bool = False
    default: str | None = None

    @classmethod
    def of(cls, field: FieldInfo) -> "Content":
        """The content of a field."""
        if get_origin(field.annotation) is list:
            [item] = get_args(field.annotation)
            return replace(cls.of(FieldInfo.from_annotation(item)), many=True)
        default = field.default.name if isinstance(field.default, ComponentTable) else None
        for mark in field.metadata:
            if isinstance(mark, Kind):
                return cls(kind=mark.name, default=default)
            if isinstance(mark, Part):
                return cls(table=mark.table, partly=True)
        is_class = isinstance(field.annotation, type)
        if is_class and issubclass(field.annotation, BaseModel):
            return cls(table=field.annotation)
        return cls()

    def inner(self, part: int | str) -> "Content":
        """What lies behind a key, or in the list at a number; nothing behind a key that there is not."""
        if self.many:
            return replace(self, many=False)
        fields = self.table.model_fields if self.table else {}
        return Content.of(fields[part]) if part in fields else Content()

    def at(self, location: Iterable[int | str]) -> "Content":
        """What lies some steps further down."""
        content = self
        for part in location:
            content = content.inner(part)
        return content

    @property
    def keys(self) -> list[str]:
        """The fixed keys of its table."""
        return list(self.table.model_fields) if self.table and not self.many else []
