"""Every setting of a recipe with its meaning, its default and where its value comes from; and the schema of them all."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fsseg.plugins.manager import registry
from fsseg.plugins.options import schema
from fsseg.plugins.registry import KINDS, Component
from fsseg.recipe.components import DEFINITIONS, ComponentTable, Content
from fsseg.recipe.reading import change_tables
from fsseg.recipe.tables import Recipe

REFERENCE = "#/definitions/{model}"


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe.

    Attributes:
        table: Where it stands, such as `training.head`; empty at the top level.
        key: Its key.
        value: Its value; None for one that is left open.
        default: What it would be if nobody said anything; None if it is left open, or has to be said.
        source: "recipe", "command line" or "default".
        meaning: What it means.
    """

    table: str
    key: str
    value: Any
    default: Any
    source: str
    meaning: str


def settings(recipe: Recipe, written: dict[str, Any], overrides: dict[str, Any]) -> list[Setting]:
    """All settings of a recipe, in its order.

    Args:
        recipe: The recipe.
        written: Its tables as they stand in the file.
        overrides: What the command line changed, by dotted key.
    """
    sources = _Sources(written, change_tables(written, overrides), overrides)
    return list(_of_table(recipe, "", sources))


@dataclass(frozen=True)
class _Sources:
    """Tells where a value comes from: tables as written, the same after the changes, and the changes."""

    written: dict[str, Any]
    changed: dict[str, Any]
    overrides: dict[str, Any]

    def of(self, where: str) -> str:
        asked = where.removesuffix(".name")  # a component may be given by its name alone
        if any(key in (where, asked) or where.startswith(f"{key}.") for key in self.overrides):
            return "command line" if _present(self.changed, where) else "default"
        return "recipe" if _present(self.written, where) else "default"


def _present(tables: Any, where: str) -> bool:
    """Whether a dotted key is there; a component by its name alone is its table's name."""
    for part in where.split("."):
        if isinstance(tables, list) and part.isdigit() and int(part) < len(tables):
            tables = tables[int(part)]
        elif isinstance(tables, dict) and part in tables:
            tables = tables[part]
        else:
            return isinstance(tables, str) and part == "name"
    return True


def _of_table(table: BaseModel, where: str, sources: _Sources) -> Iterator[Setting]:
    """The settings of a table, then those of the tables in it."""
    inner: list[Iterator[Setting]] = []
    for key, field in type(table).model_fields.items():
        value = getattr(table, key)
        place = f"{where}.{key}" if where else key
        content = Content.of(field)
        if content.kind or content.table:
            inner.append(_of_content(content, value, place, sources))
        else:
            yield Setting(
                where, key, value, _default(field), sources.of(place), field.description or ""
            )
    for settings_of_table in inner:
        yield from settings_of_table


def _of_content(content: Content, value: Any, where: str, sources: _Sources) -> Iterator[Setting]:
    """The settings of a component or a table, or of each in a list."""
    if content.many:
        for number, item in enumerate(value):
            yield from _of_content(content.inner(number), item, f"{where}.{number}", sources)
    elif content.kind:
        yield from _of_component(content.kind, value, where, sources)
    elif content.partly:
        yield from _of_part(content.table.model_validate(value), list(value), where, sources)
    else:
        yield from _of_table(value, where, sources)


def _of_part(
    table: BaseModel, given: list[str], where: str, sources: _Sources
) -> Iterator[Setting]:
    """The settings under those keys of a table that are given."""
    wanted = tuple(f"{where}.{key}" for key in given)
    for setting in _of_table(table, where, sources):
        if f"{setting.table}.{setting.key}".startswith(wanted):
            yield setting


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.default


def _of_component(
    kind: str, table: ComponentTable, where: str, sources: _Sources
) -> Iterator[Setting]:
    component = registry().find(kind, table.name).load()
    name_source = sources.of(f"{where}.name")
    yield Setting(where, "name", table.name, None, name_source, _first_line(component))
    for key, field in schema(component).model_fields.items():
        default = _default(field)
        value = table.options.get(key, default)
        source = sources.of(f"{where}.{key}")
        yield Setting(where, key, value, default, source, field.description or "")


def _first_line(component: type) -> str:
    return (component.__doc__ or "").strip().partition("\n")[0]


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of recipes, with the components and options of every plugin that is loaded."""
    schema_of_tables = Recipe.model_json_schema(ref_template=REFERENCE)
    text = json.dumps(schema_of_tables)
    tables = json.loads(text.replace(DEFINITIONS, "#/definitions/"))
    definitions = tables.pop("$defs")
    definitions.pop("ComponentTable", None)
    for kind in KINDS:
        definitions[kind] = _schema_of_kind(kind, definitions)
    about = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return about | tables | {"title": "fsseg recipe", "definitions": definitions}


def _schema_of_kind(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A component's name, or its table."""
    components = [component for component in registry() if component.kind == kind]
    names = {"enum": [component.name for component in components]}
    return {"anyOf": [names, *(_schema_of(each, definitions) for each in components)]}


def _schema_of(component: Component, definitions: dict[str, Any]) -> dict[str, Any]:
    """A component's table; what its options refer to is added to the definitions."""
    options = schema(component.load()).model_json_schema(ref_template=REFERENCE)
    definitions |= options.pop("$defs", {})
    name = {"const": component.name, "description": f"from {component.distribution}"}
    return options | {
        "title": component.name,
        "description": _first_line(component.load()),
        "properties": {"name": name} | options.get("properties", {}),
        "required": ["name", *options.get("required", [])],
    }
