"""Recipes from TOML files and plain tables, changed by dotted keys and checked."""

import copy
import os
from pathlib import Path
from typing import Any

from fsseg.errors import RecipeError
from fsseg.recipe.components import Content, PlainTable, by_name
from fsseg.recipe.tables import Recipe, TrainingTable, checked
from fsseg.recipe.updates import replaced_keys
from fsseg.system.text import read_toml


def load_recipe(path: str | Path, overrides: PlainTable | None = None) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: A TOML file.
        overrides: Values by dotted key. Naming another component drops the options of the one it replaces; an optimiser
            or a schedule replaces the numbers of the published ones.

    Returns:
        The recipe, with every default filled in.

    Raises:
        RecipeError: The file cannot be read; or all unknown keys, wrong types and unknown components at once, each
            with its table, what was expected and the nearest valid name.

    Example:
        >>> path = "recipes/tpm_mp5_linest.toml"
        >>> recipe = fsseg.load_recipe(path, {"training.steps": 500, "variants.0.threshold": "ocp"})
        >>> recipe.training.steps
        500
    """
    tables = change_tables(read_tables(path), overrides or {})
    return parse_recipe(tables, str(path))


def change_tables(tables: PlainTable, overrides: PlainTable) -> PlainTable:
    """The tables with values by dotted key put in; raises RecipeError for a key that leads nowhere."""
    changed = copy.deepcopy(tables)
    for key, value in overrides.items():
        _override(changed, key, value)
    for key in overrides:
        _drop_replaced(changed, key, overrides)
    return changed


def _drop_replaced(tables: PlainTable, key: str, overrides: PlainTable) -> None:
    """Drops what an optimiser or a schedule of the command line takes the place of, unless that was given there too."""
    content = Content(table=Recipe)
    table: Any = tables
    where = ""
    for part in key.split("."):
        if content.table is TrainingTable and part in ("optimiser", "schedule"):
            for replaced in replaced_keys(table.get("optimiser"), table.get("schedule")):
                if f"{where}{replaced}" not in overrides:
                    table.pop(replaced, None)
            return
        content = content.inner(part)
        table = table[int(part)] if isinstance(table, list) else table[part]
        where += f"{part}."
        if not isinstance(table, dict | list):
            return


def parse_recipe(tables: PlainTable, source: str = "recipe") -> Recipe:
    """A checked recipe from plain tables; raises RecipeError as `load_recipe`."""
    return checked(tables, source)


def read_tables(path: str | Path) -> PlainTable:
    """A recipe's tables as written; raises RecipeError for a file that is no TOML."""
    path = Path(path)
    if not os.path.lexists(path):
        raise RecipeError(
            f"{path}: there is no such recipe; expected a TOML file, such as those in recipes/"
        )
    return read_toml(path, RecipeError)


def _override(tables: PlainTable, key: str, value: Any) -> None:
    """Puts a value in at its dotted key."""
    *parents, last = key.split(".")
    table: Any = tables
    content = Content(table=Recipe)
    for part in parents:
        content = content.inner(part)
        table = _step_into(table, part, content.default, key)
    if not isinstance(table, dict):
        raise RecipeError(
            f"--set {key}: {'.'.join(parents)} holds no keys; expected table.key=value"
        )
    if last == "name" and table.get("name") != value:
        # The options were those of the component that is replaced.
        if content.kind:
            table.clear()
        elif content.inner("options").options_of:
            table.pop("options", None)
    table[last] = value


def _step_into(table: Any, part: str, default: str | None, key: str) -> Any:
    """The table one step down a dotted key; a component given by its name alone becomes a table.

    Args:
        table: Where the step begins.
        part: The next part of the key.
        default: The component that is meant where there is none yet.
        key: The whole key.
    """
    if isinstance(table, list):
        if not part.isdigit() or int(part) >= len(table):
            raise RecipeError(
                f"--set {key}: expected a number from 0 to {len(table) - 1}, got {part!r}; rows count from 0"
            )
        index: Any = int(part)
    elif isinstance(table, dict):
        index = part
        table.setdefault(part, {"name": default} if default else {})
    else:
        raise RecipeError(
            f"--set {key}: {part!r} is not a key of a table; expected table.key=value"
        )
    table[index] = by_name(table[index])
    return table[index]
