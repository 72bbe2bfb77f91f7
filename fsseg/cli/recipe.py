"""The shell's commands around recipes: `fsseg explain`, `fsseg schema`."""

import json
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fsseg.cli.console import LeftOut, PluginFiles, parse_change, plain, wide_console

RecipeFile = Annotated[
    Path,
    typer.Argument(help="A recipe, for example recipes/tpm_mp5_linest.toml.", metavar="RECIPE"),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="TABLE.KEY=VALUE", help="Change a value of the recipe; may be given again."
    ),
]


def explain_command(
    recipe: RecipeFile,
    changes: Changes = None,
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print every setting of a recipe: its value, where that comes from, its default and its meaning."""
    from fsseg.recipe.reading import load_recipe, read_tables
    from fsseg.recipe.settings import settings

    overrides = dict(parse_change(change) for change in changes or [])
    found = settings(load_recipe(recipe, overrides), read_tables(recipe), overrides)
    if as_json:
        print(json.dumps([vars(setting) for setting in found], indent=2))
        return
    console = wide_console()
    for table, group in groupby(found, key=lambda setting: setting.table):
        shown = Table(box=None, pad_edge=False, show_header=False)
        shown.add_column(min_width=18)
        shown.add_column(min_width=14)
        shown.add_column(min_width=12)
        shown.add_column()
        for setting in group:
            default = (
                ""
                if setting.source == "default"
                else f" \\[default: {plain(_told(setting.default))}]"
            )
            colour = "dim" if setting.source == "default" else "bold"
            meaning = f"{plain(setting.meaning)}[dim]{default if setting.key != 'name' else ''}[/]"
            shown.add_row(
                setting.key, f"[{colour}]{plain(_told(setting.value))}[/]", setting.source, meaning
            )
        console.print(f"[bold]{plain(f'[{table}]') if table else 'top level'}[/]")
        console.print(shown)
        console.print()


def _told(value: Any) -> str:
    return "–" if value is None else json.dumps(value, default=str, ensure_ascii=False)


def schema_command(plugin: PluginFiles = None, no_plugin: LeftOut = None) -> None:
    """Print the JSON Schema of recipes, installed plugins included, with which editors complete and check a TOML.

    In VS Code with the extension Even Better TOML: fsseg schema > fsseg.schema.json, and as the first line of a recipe
    `#:schema ../fsseg.schema.json`, the path seen from the recipe.
    """
    from fsseg.recipe.settings import recipe_schema

    print(json.dumps(recipe_schema(), indent=2))
