"""Every setting of a recipe with its meaning, its default and the source of its value; and the schema of them all."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import create_model
from pydantic.fields import FieldInfo

from fsseg.plugins.manager import registry
from fsseg.plugins.options import schema
from fsseg.plugins.registry import KINDS, Component
from fsseg.recipe.components import (
    DEFINITIONS,
    ComponentTable,
    Content,
    PlainTable,
    Table,
    own_keys_of,
)
from fsseg.recipe.reading import change_tables
from fsseg.recipe.tables import Recipe

REFERENCE = "#/definitions/{model}"


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe.

    Attributes:
        table: The table that it stands in, such as `training.head`; empty at the top level.
        key: Its key.
        value: Its value; None for one that is left open.
        default: Its value if nobody says anything; None if it is left open, or has to be said.
        source: "recipe", "command line" or "default".
        meaning: A sentence or a part of one, for people.
    """

    table: str
    key: str
    value: Any
    default: Any
    source: str
    meaning: str


Settings = Iterator[Setting]


def settings(recipe: Recipe, written: PlainTable, overrides: PlainTable) -> list[Setting]:
    """All settings of a recipe, in its order.

    Args:
        recipe: The recipe.
        written: Its tables as they stand in the file.
        overrides: The values that the command line changed, by dotted key.
    """
    changed = change_tables(written, overrides)
    walk = _Walk(written, changed, overrides)
    return list(walk.table("", recipe))


@dataclass(frozen=True)
class _Walk:
    """Goes through a recipe and tells where each value comes from.

    Attributes:
        written: The recipe's tables as written.
        changed: The same after the changes of the command line.
        overrides: Those changes, by dotted key.
    """

    written: PlainTable
    changed: PlainTable
    overrides: PlainTable

    def table(self, where: str, table: Table) -> Settings:
        """The settings of a table, then those of the tables in it."""
        fields = type(table).model_fields
        inner: list[Settings] = []
        for key, field in fields.items():
            if key in table.unused:
                continue
            value = table.in_full(key)
            content = Content.of(field)
            if content.options_of:
                place = _join(where, key)
                inner.append(self.options(place, content.options_of, vars(table)["name"], value))
            elif (content.kind or content.table) and value is not None:
                place = _join(where, key)
                inner.append(self.content(place, content, value))
            else:
                yield self.setting(where, key, value, field)
        for of_content in inner:
            yield from of_content

    def content(self, where: str, content: Content, value: Any) -> Settings:
        """The settings of a component or a table, or of each in a list."""
        if content.many:
            for number, item in enumerate(value):
                place = f"{where}.{number}"
                yield from self.content(place, content.inner(number), item)
        elif content.kind:
            yield from self.component(where, content.kind, value)
        elif content.table and content.partly:
            yield from self.part(where, content.table, value)
        else:
            yield from self.table(where, value)

    def part(self, where: str, table: type[Table], given: PlainTable) -> Settings:
        """The settings under those keys of a table that are given."""
        wanted = tuple(f"{where}.{key}" for key in given)
        for setting in self.table(where, table.model_validate(given)):
            place = _join(setting.table, setting.key)
            if place.startswith(wanted):
                yield setting

    def component(self, where: str, kind: str, table: ComponentTable) -> Settings:
        """The name of a component, and its options."""
        component = registry().find(kind, table.name).load()
        meaning = _first_line(component)
        source = self.source_of(f"{where}.name")
        yield Setting(where, "name", table.name, None, source, meaning)
        for key, field in table.own_keys().items():
            yield self.setting(where, key, getattr(table, key), field)
        yield from self.options(where, kind, table.name, table.options)

    def options(self, where: str, kind: str, name: str, given: PlainTable) -> Settings:
        """The options of a component, which is named elsewhere."""
        component = registry().find(kind, name).load()
        fields = schema(component).model_fields
        for key, field in fields.items():
            value = given.get(key, _default(field))
            yield self.setting(where, key, value, field)

    def setting(self, table: str, key: str, value: Any, field: FieldInfo) -> Setting:
        """The setting of a field in a table."""
        source = self.source_of(_join(table, key))
        meaning = field.description or ""
        return Setting(table, key, value, _default(field), source, meaning)

    def source_of(self, where: str) -> str:
        """The source of the value at a dotted key."""
        if self.is_overridden(where):
            return "command line" if _is_there(self.changed, where) else "default"
        return "recipe" if _is_there(self.written, where) else "default"

    def is_overridden(self, where: str) -> bool:
        """True if the command line changed the value, or a table that holds it."""
        return any(f"{where}.".startswith(f"{key}.") for key in self.overrides)


def _join(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.default


def _is_there(tables: Any, where: str) -> bool:
    """True if a dotted key is there; a component by its name alone is its table's name."""
    for part in where.split("."):
        if isinstance(tables, list) and part.isdigit() and int(part) < len(tables):
            tables = tables[int(part)]
        elif isinstance(tables, dict) and part in tables:
            tables = tables[part]
        else:
            return isinstance(tables, str) and part == "name"
    return True


def _first_line(component: type) -> str:
    docstring = component.__doc__ or ""
    return docstring.strip().partition("\n")[0]


def recipe_schema() -> PlainTable:
    """The JSON Schema of recipes, with the components and options of every plugin that is loaded."""
    text = json.dumps(Recipe.model_json_schema(ref_template=REFERENCE))
    text = text.replace(DEFINITIONS, "#/definitions/")
    tables = json.loads(text)
    definitions = tables.pop("$defs")
    of_components: list[type] = [ComponentTable, *ComponentTable.__subclasses__()]
    for table in of_components:
        definitions.pop(table.__name__, None)
    for kind in KINDS:
        definitions[kind] = _schema_of_kind(kind, definitions)
    about = {"$schema": "http://json-schema.org/draft-07/schema#"}
    about["description"] = _first_line(Recipe)
    return tables | about | {"title": "fsseg recipe", "definitions": definitions}


def _schema_of_kind(kind: str, definitions: PlainTable) -> PlainTable:
    """The schema of a component's name, or of its table."""
    tables = []
    for component in registry():
        if component.kind == kind:
            tables.append(_schema_of(component, definitions))
    names = {"enum": registry().names(kind)}
    return {"anyOf": [names, *tables]}


def _schema_of(component: Component, definitions: PlainTable) -> PlainTable:
    """The schema of a component's table; what its options refer to is added to the definitions."""
    options = schema(component.load()).model_json_schema(ref_template=REFERENCE)
    definitions |= options.pop("$defs", {})
    name = {
        "const": component.name,
        "description": f"from {component.distribution}",
    }
    options["title"] = component.name
    options["description"] = _first_line(component.load())
    own = _schema_of_own_keys(component.kind)
    options["properties"] = {"name": name} | own | options.get("properties", {})
    options["required"] = ["name", *options.get("required", [])]
    return options


def _schema_of_own_keys(kind: str) -> PlainTable:
    """The schema of the keys that tables of this kind have besides the component's options."""
    fields: dict[str, Any] = {
        key: (field.annotation, field) for key, field in own_keys_of(kind).items()
    }
    return create_model("own", **fields).model_json_schema().get("properties", {})
