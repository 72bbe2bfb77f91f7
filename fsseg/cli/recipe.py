"""The commands around recipes: `fsseg explain`, `fsseg schema`."""

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fsseg.cli.console import new_table, styled, wide_console
from fsseg.cli.options import AsJson, Changes, LeftOut, PluginFiles, RecipeFile, parse_changes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsseg.recipe.settings import Setting

WIDTHS = (18, 14, 12)
"""The least widths of the columns before the meaning, so that the tables of a recipe are aligned."""


def explain_command(
    recipe: RecipeFile,
    changes: Changes = None,
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
    as_json: AsJson = False,
) -> None:
    """Print every setting of a recipe: its value, where that comes from, its default and its meaning."""
    from fsseg.recipe.reading import load_recipe, read_tables
    from fsseg.recipe.settings import settings

    overrides = parse_changes(changes)
    of_recipe = settings(load_recipe(recipe, overrides), read_tables(recipe), overrides)
    if as_json:
        print(json.dumps([vars(setting) for setting in of_recipe], indent=2))
        return
    console = wide_console()
    for name, of_table in groupby(of_recipe, key=lambda setting: setting.table):
        console.print(styled(f"[{name}]" if name else "top level", "bold"))
        console.print(_table_of_settings(of_table))
        console.print()


def _table_of_settings(of_table: "Iterable[Setting]") -> Table:
    """Settings with a bold value and their default where it was changed."""
    table = new_table()
    table.show_header = False
    for width in WIDTHS:
        table.add_column(min_width=width)
    table.add_column()
    for setting in of_table:
        style = "bold"
        default = f" [default: {_as_json(setting.default)}]"
        if setting.source == "default":
            style = "dim"
            default = ""
        if setting.key == "name":
            default = ""
        value = styled(_as_json(setting.value), style)
        meaning = styled(setting.meaning, "") + styled(default, "dim")
        table.add_row(setting.key, value, setting.source, meaning)
    return table


def _as_json(value: Any) -> str:
    return "–" if value is None else json.dumps(value, default=str, ensure_ascii=False)


def schema_command(plugin: PluginFiles = None, no_plugin: LeftOut = None) -> None:
    """Print the JSON Schema of recipes, installed plugins included, with which editors complete and check a TOML.

    In VS Code with the extension Even Better TOML: fsseg schema > fsseg.schema.json, and as the first line of a recipe
    `#:schema ../fsseg.schema.json`, the path seen from the recipe.
    """
    from fsseg.recipe.settings import recipe_schema

    print(json.dumps(recipe_schema(), indent=2))
