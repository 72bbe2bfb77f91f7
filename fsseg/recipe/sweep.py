"""Sweeps: every combination of some settings as a variant of one run, so that they share all they have in common."""

import itertools
import math
from typing import Any

from fsseg.errors import RecipeError
from fsseg.recipe.components import ComponentTable, PlainTable
from fsseg.recipe.reading import change_tables, parse_recipe
from fsseg.recipe.tables import Recipe, VariantTable

Grid = dict[str, list[Any]]
"""Values by dotted key of a variant."""

MOST_ROWS = 1000
"""Rows that a sweep makes at most."""

TABLES_OF_A_VARIANT = [key for key in VariantTable.model_fields if key != "name"]
"""Keys of a variant under which its settings lie."""


def expand(recipe: Recipe) -> Recipe:
    """The recipe with its `[sweep]` written out: every variant once for each combination of values.

    Args:
        recipe: The recipe; it is not changed.

    Raises:
        RecipeError: A key is no setting of a variant, a value does not fit, or there is nothing to sweep over.
    """
    if not recipe.sweep:
        return recipe
    _check(recipe.sweep)
    _require_few(recipe)
    tables = recipe.dumps()
    del tables["sweep"]
    swept = []
    for variant in tables.pop("variants"):
        base = variant["name"] if len(recipe.variants) > 1 else None
        for chosen in combinations(recipe.sweep):
            name = variant_name(chosen, base)
            swept.append(change_variant(variant, chosen) | {"name": name})
    return parse_recipe(tables | {"variants": swept}, "sweep")


def combinations(grid: Grid) -> list[PlainTable]:
    """Every combination of the values, by key; the last key changes fastest."""
    products = itertools.product(*grid.values())
    return [dict(zip(grid, values)) for values in products]


def variant_name(chosen: PlainTable, base: str | None = None) -> str:
    """The name of a combination's variant: the last words of its keys with their values.

    Args:
        chosen: The values by dotted key.
        base: The name of the variant that is changed, where there are several.
    """
    words = []
    for key, value in chosen.items():
        words.append(f"{_short(key)}={_shown(value)}")
    name = ", ".join(words)
    return f"{base}: {name}" if base else name


def _shown(value: Any) -> Any:
    """A value in a variant's name; of a component its name and options, of several in a list their names."""
    if isinstance(value, dict) and "name" in value:
        return ComponentTable(**value).label
    if not isinstance(value, list):
        return value
    names = []
    for item in value:
        name = item["name"] if isinstance(item, dict) else item
        names.append(str(name))
    return "+".join(names) or "none"


def _short(key: str) -> str:
    *tables, last = key.split(".")
    return tables[-1] if last == "name" else last


def change_variant(variant: PlainTable, chosen: PlainTable) -> PlainTable:
    """A variant's table with other settings, by dotted key."""
    # Names first: naming another component drops the options of the one it replaces.
    order = sorted(chosen, key=lambda key: not key.endswith(".name"))
    overrides = {f"variants.0.{key}": chosen[key] for key in order}
    tables = change_tables({"variants": [variant]}, overrides)
    return tables["variants"][0]


def _check(grid: Grid) -> None:
    for key, values in grid.items():
        if not _is_of_a_variant(key):
            raise RecipeError(
                f"[sweep]: {key}: expected a setting of a row, in {', '.join(TABLES_OF_A_VARIANT)}, such as "
                "prototypes.count; for others use fsseg.sweep from Python, which makes a run for each value"
            )
        if not isinstance(values, list) or not values:
            raise RecipeError(f"[sweep]: {key}: expected a list of values, got {values!r}")


def _require_few(recipe: Recipe) -> None:
    """Raises RecipeError for a sweep of more rows than a table is read with, before the first is made."""
    counts = [len(values) for values in recipe.sweep.values()]
    rows = math.prod(counts) * len(recipe.variants)
    if rows > MOST_ROWS:
        product = " x ".join(str(count) for count in [len(recipe.variants), *counts])
        raise RecipeError(
            f"[sweep]: makes {rows} rows ({product}), expected at most {MOST_ROWS}; sweep over fewer values, or over one "
            "setting after the other"
        )


def _is_of_a_variant(key: str) -> bool:
    table, _, setting = key.partition(".")
    return table in TABLES_OF_A_VARIANT and (bool(setting) or table == "refiners")
