"""Every setting of a recipe with its meaning, its default and where its value comes from; and the schema of them all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fsseg.plugins.manager import registry
from fsseg.plugins.options import schema
from fsseg.recipe.reading import change_tables
from fsseg.recipe.tables import (
    COMPONENTS,
    LISTS,
    ROW_LISTS,
    ComponentTable,
    Recipe,
    TrainingTable,
    VariantTable,
)


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
    return list(_of_table("", recipe, "", sources))


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


def _of_table(kind: str, table: BaseModel, where: str, sources: _Sources) -> Iterator[Setting]:
    """The settings of a table, then those of the tables in it. `kind` is what COMPONENTS calls the table."""
    inner: list[Iterator[Setting]] = []
    for key, field in type(table).model_fields.items():
        value, place = getattr(table, key), f"{where}.{key}" if where else key
        if key in COMPONENTS.get(kind, ()):
            inner.append(_of_component(key, value, place, sources))
        elif isinstance(value, list) and key in LISTS | ROW_LISTS:
            of = (LISTS | ROW_LISTS)[key]
            inner += [
                _of_component(of, one, f"{place}.{n}", sources) for n, one in enumerate(value)
            ]
        elif isinstance(value, list) and value and isinstance(value[0], VariantTable):
            inner += [
                _of_table("variants", row, f"{place}.{n}", sources) for n, row in enumerate(value)
            ]
        elif isinstance(value, BaseModel):
            inner.append(_of_table(key, value, place, sources))
        elif kind == "variants" and key == "training":
            inner.append(_of_own_training(value, place, sources))
        else:
            default = None if field.is_required() else field.default
            yield Setting(where, key, value, default, sources.of(place), field.description or "")
    for settings_of_table in inner:
        yield from settings_of_table


def _of_own_training(given: dict[str, Any], where: str, sources: _Sources) -> Iterator[Setting]:
    """A row's own training has only what differs."""
    table = TrainingTable.model_validate(given)
    wanted = tuple(f"{where}.{key}" for key in given)
    for setting in _of_table("training", table, where, sources):
        if f"{setting.table}.{setting.key}".startswith(wanted):
            yield setting


def _of_component(
    kind: str, table: ComponentTable, where: str, sources: _Sources
) -> Iterator[Setting]:
    component = registry().find(kind, table.name)
    meaning = (component.load().__doc__ or "").strip().splitlines()
    yield Setting(
        where, "name", table.name, None, sources.of(f"{where}.name"), meaning[0] if meaning else ""
    )
    for key, field in schema(component.load()).model_fields.items():
        default = None if field.is_required() else field.default
        value = table.options.get(key, default)
        yield Setting(
            where, key, value, default, sources.of(f"{where}.{key}"), field.description or ""
        )


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of recipes, with the components and options of every plugin that is loaded."""
    made = Recipe.model_json_schema(ref_template="#/definitions/{model}")
    definitions = made.pop("$defs")
    definitions.pop("ComponentTable", None)
    for kind in (
        *COMPONENTS[""],
        *COMPONENTS["training"],
        *COMPONENTS["variants"],
        *(LISTS | ROW_LISTS).values(),
    ):
        definitions[kind] = _component_schema(kind, definitions)
    tables = {
        "": made,
        "training": definitions["TrainingTable"],
        "variants": definitions["VariantTable"],
    }
    for of, keys in COMPONENTS.items():
        for key in keys:
            tables[of]["properties"][key] = _refer(key, tables[of]["properties"][key])
    for key, kind in LISTS.items():
        made["properties"][key]["items"] = {"$ref": f"#/definitions/{kind}"}
    for key, kind in ROW_LISTS.items():
        one = {"$ref": f"#/definitions/{kind}"}
        described = {"description": tables["variants"]["properties"][key]["description"]}
        tables["variants"]["properties"][key] = {
            "anyOf": [one, {"type": "array", "items": one}],
            **described,
        }
    definitions["VariantTable"]["properties"]["training"] = {"$ref": "#/definitions/TrainingTable"}
    about = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "fsseg recipe"}
    return (
        about
        | {key: value for key, value in made.items() if key != "title"}
        | {"definitions": definitions}
    )


def _refer(kind: str, present: dict[str, Any]) -> dict[str, Any]:
    kept = {key: present[key] for key in ("description", "default") if key in present}
    return {"allOf": [{"$ref": f"#/definitions/{kind}"}], **kept}


def _component_schema(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A component's name, or its table."""
    found = [component for component in registry() if component.kind == kind]
    tables = []
    for component in found:
        options = schema(component.load()).model_json_schema(ref_template="#/definitions/{model}")
        definitions |= options.pop("$defs", {})
        name = {"const": component.name, "description": f"from {component.distribution}"}
        tables.append(
            options
            | {
                "title": component.name,
                "description": (component.load().__doc__ or "").strip().partition("\n")[0],
                "properties": {"name": name} | options.get("properties", {}),
                "required": ["name", *options.get("required", [])],
            }
        )
    return {"anyOf": [{"enum": [component.name for component in found]}, *tables]}
