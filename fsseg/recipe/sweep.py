"""Sweeps: every combination of some settings as a row of one table, so that they share all they have in common."""

import itertools
from typing import Any

from fsseg.errors import RecipeError
from fsseg.recipe.reading import change_tables, parse_recipe
from fsseg.recipe.tables import Recipe

OF_A_ROW = ("prototypes", "head", "threshold", "refiners", "training")
"""Tables of a row, in which its settings lie."""


def expand(recipe: Recipe) -> Recipe:
    """The recipe with its `[sweep]` written out: every row once for each combination of values.

    Raises RecipeError for a key that is no setting of a row, a value that does not fit, or nothing to sweep over.
    """
    if not recipe.sweep:
        return recipe
    _check(recipe.sweep)
    tables = recipe.dumps()
    del tables["sweep"]
    rows = tables.pop("variants")
    made = [
        change_row(row, chosen) | {"name": row_name(chosen, row["name"] if len(rows) > 1 else None)}
        for row in rows
        for chosen in combinations(recipe.sweep)
    ]
    return parse_recipe(tables | {"variants": made}, "sweep")


def combinations(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values, by key; the last key changes fastest."""
    return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]


def row_name(chosen: dict[str, Any], base: str | None = None) -> str:
    """What the row of a combination is called: the last words of its keys with their values."""
    told = ", ".join(f"{_short(key)}={_told(value)}" for key, value in chosen.items())
    return f"{base}: {told}" if base else told


def _told(value: Any) -> Any:
    """A value in a row's name: of components in a list, their names."""
    if not isinstance(value, list):
        return value
    return "+".join(one["name"] if isinstance(one, dict) else str(one) for one in value) or "none"


def _short(key: str) -> str:
    *tables, last = key.split(".")
    return tables[-1] if last == "name" else last


def change_row(row: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """A row with other settings."""
    # Names first: naming another component drops the options of the one it replaces.
    order = sorted(chosen, key=lambda key: not key.endswith(".name"))
    return change_tables({"variants": [row]}, {f"variants.0.{key}": chosen[key] for key in order})[
        "variants"
    ][0]


def _check(grid: dict[str, list[Any]]) -> None:
    for key, values in grid.items():
        if key.split(".")[0] not in OF_A_ROW or ("." not in key and key != "refiners"):
            raise RecipeError(
                f"[sweep]: {key}: expected a setting of a row, in {', '.join(OF_A_ROW)}, such as prototypes.count; "
                "for others use fsseg.sweep from Python, which makes a run for each value"
            )
        if not isinstance(values, list) or not values:
            raise RecipeError(f"[sweep]: {key}: expected a list of values, got {values!r}")
