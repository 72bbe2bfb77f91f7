"""Ablations from Python: a recipe with every combination of some settings, as a grid and a plot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsseg.analysis.comparison import Comparison, compare
from fsseg.analysis.drawing import draw
from fsseg.errors import FssegError
from fsseg.recipe.reading import change_tables, load_recipe, parse_recipe
from fsseg.recipe.sweep import TABLES_OF_A_VARIANT, change_variant, combinations, variant_name
from fsseg.recipe.tables import Recipe

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sweep:
    """The variants of a sweep with their settings, as `fsseg.sweep` returns them.

    Attributes:
        comparison: All variants, compared with one of them.
        settings: By variant, the value of each key.

    Example:
        The mean over classes, prototypes down and thresholds across:

            grid = {"prototypes.count": [1, 3], "threshold.name": ["ce_t", "lin_est"]}
            fsseg.sweep("recipes/tpm_mp5_linest.toml", grid).grid()
    """

    comparison: Comparison
    settings: dict[str, dict[str, Any]]

    def table(self) -> "pandas.DataFrame":
        """The line of each combination: its values, and the means and spreads of `Comparison.table`."""
        import pandas

        means = self.comparison.table()
        values = pandas.DataFrame.from_dict(self.settings, orient="index")
        return pandas.concat([values.reindex(means.index), means], axis=1)

    def grid(self) -> "pandas.DataFrame":
        """The mean over classes: the first key's values down, the others' across."""
        table = self.table()
        keys = list(next(iter(self.settings.values())))
        for key in keys:
            table[key] = table[key].map(str)
        means = table.set_index(keys)["mean"]
        first, *others = keys
        if not others:
            return means.to_frame()
        order = table[first].unique()
        return means.unstack(others, sort=False).reindex(order)

    def plot(self) -> "Figure":
        """A figure: the mean over classes by the first key's values, a line for each combination of the others."""
        return draw("sweep", self)


def sweep(
    recipe: Recipe | str | Path,
    grid: Mapping[str, list[Any]] | None = None,
    *,
    row: str | None = None,
    baseline: str | None = None,
    metric: str = "dice",
    **how: Any,
) -> Sweep:
    """Runs a recipe with every combination of values.

    Settings of a variant (`prototypes`, `head`, `threshold`, `training`) become variants of one run, which share what they
    have in common: thresholds and prototypes share a training and the features, trainings the scans. Others, such as
    `backbone.strides`, become runs of their own.

    Args:
        recipe: The recipe, or its file.
        grid: Values by dotted key, for example `{"prototypes.count": [1, 3, 5], "threshold.name": ["ce_t", "lin_est"]}`;
            the recipe's own `[sweep]` when omitted.
        row: The variant to begin with; the first one when omitted.
        baseline: The combination that the others are compared with, for example "count=1, threshold=ce_t"; the first one
            when omitted.
        metric: What the grid shows.
        how: The arguments of `fsseg.run`.

    Raises:
        FssegError: There is nothing to sweep over, no such variant, or a value does not fit.
    """
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    if grid is None:
        grid = recipe.sweep
    names = [variant.name for variant in recipe.variants]
    if not grid or (row is not None and row not in names):
        raise FssegError(
            f"sweep: expected values by key and a row of the recipe, got {dict(grid)} and {row!r}; "
            f"rows are {names}"
        )
    start = names[0] if row is None else row
    recipes, settings = _written_out(recipe, grid, start)
    how = {"name": "sweep"} | how
    compared = compare(recipes, baseline, metric=metric, across_protocols=True, **how)
    return Sweep(compared, settings)


def _written_out(
    recipe: Recipe,
    grid: Mapping[str, list[Any]],
    start: str,
) -> tuple[list[Recipe], dict[str, dict[str, Any]]]:
    """A recipe for each combination of what is no setting of a variant, and the values of every variant in them."""
    within: dict[str, list[Any]] = {}
    around: dict[str, list[Any]] = {}
    for key, values in grid.items():
        table, _, _ = key.partition(".")
        of_kind = within if table in TABLES_OF_A_VARIANT else around
        of_kind[key] = list(values)
    tables = recipe.dumps()
    tables.pop("sweep", None)
    tables["variants"] = [table for table in tables["variants"] if table["name"] == start]
    recipes, settings = [], {}
    for outer in combinations(around):
        changed = change_tables(tables, outer)
        [variant] = changed["variants"]
        variants = []
        for inner in combinations(within):
            chosen = outer | inner
            of_variant = {key: chosen[key] for key in grid}
            name = variant_name(of_variant)
            settings[name] = of_variant
            variants.append(change_variant(variant, inner) | {"name": name})
        recipes.append(parse_recipe(changed | {"variants": variants}, "sweep"))
    return recipes, settings
