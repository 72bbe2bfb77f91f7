"""Ablations from Python: a recipe with every combination of some settings, as a grid and a plot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsseg.analysis.comparison import Comparison, compare
from fsseg.errors import FssegError
from fsseg.recipe.reading import change_tables, load_recipe, parse_recipe
from fsseg.recipe.sweep import OF_A_ROW, change_row, combinations, row_name
from fsseg.recipe.tables import Recipe
from fsseg.report.figures import panels

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        comparison: All rows, to be compared with one of them.
        settings: By row, the value of each key.
    """

    comparison: Comparison
    settings: dict[str, dict[str, Any]]

    def table(self) -> "pandas.DataFrame":
        """A line per combination: its values, and the means and spreads of `Comparison.table`."""
        import pandas

        means = self.comparison.table()
        values = pandas.DataFrame.from_dict(self.settings, orient="index").reindex(means.index)
        return pandas.concat([values, means], axis=1)

    def grid(self) -> "pandas.DataFrame":
        """The mean over classes: the first key's values down, the others' across."""
        table = self.table()
        first, *others = next(iter(self.settings.values()))
        table = table.assign(**{key: table[key].map(str) for key in (first, *others)})
        grid = table.set_index([first, *others])["mean"]
        order = list(dict.fromkeys(table[first]))
        return grid.unstack(others, sort=False).reindex(order) if others else grid.to_frame()

    def plot(self) -> Any:
        """A figure: the mean over classes by the first key's values, a line for each combination of the others."""
        grid = self.grid()
        figure, axes = panels(6, 4)
        for name in grid.columns:
            label = ", ".join(name) if isinstance(name, tuple) else str(name)
            axes.plot(list(grid.index), grid[name].to_numpy(), "o-", label=label)
        unit = self.comparison.unit
        axes.set_xlabel(grid.index.name)
        axes.set_ylabel(f"{self.comparison.metric}{f', {unit}' if unit else ''}, mean over classes")
        if len(grid.columns) > 1:
            axes.legend(frameon=False)
        return figure


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

    Settings of a row (`prototypes`, `head`, `threshold`, `training`) become rows of one run, which share what they have in
    common: thresholds and prototypes share a training and the features, trainings the scans. Others, such as
    `backbone.strides`, become runs of their own.

    Args:
        recipe: The recipe, or its file.
        grid: Values by dotted key, for example `{"prototypes.count": [1, 3, 5], "threshold.name": ["ce_t", "lin_est"]}`; the
            recipe's own `[sweep]` when omitted.
        row: The variant to begin with; the first one when omitted.
        baseline: The combination that the others are compared with, for example "count=1, threshold=ce_t"; the first one
            when omitted.
        metric: What the grid shows.
        how: The arguments of `fsseg.run`.

    Raises:
        FssegError: There is nothing to sweep over, no such row, or a value does not fit.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str | Path) else recipe
    grid = recipe.sweep if grid is None else grid
    names = [variant.name for variant in recipe.variants]
    if not grid or (row is not None and row not in names):
        raise FssegError(
            f"sweep: expected values by key and a row of the recipe, got {dict(grid)} and {row!r}; rows are {names}"
        )
    inner = {key: list(values) for key, values in grid.items() if key.split(".")[0] in OF_A_ROW}
    outer = {key: list(values) for key, values in grid.items() if key not in inner}
    tables = {key: value for key, value in recipe.dumps().items() if key != "sweep"}
    tables["variants"] = [tables["variants"][names.index(row) if row is not None else 0]]
    recipes, settings = [], {}
    for around in combinations(outer):
        changed = change_tables(tables, around)
        rows = []
        for chosen in combinations(inner):
            values = {key: (around | chosen)[key] for key in grid}
            settings[row_name(values)] = values
            rows.append(change_row(changed["variants"][0], chosen) | {"name": row_name(values)})
        recipes.append(parse_recipe(changed | {"variants": rows}, "sweep"))
    found = compare(
        recipes, baseline, metric=metric, across_protocols=True, **{"name": "sweep"} | how
    )
    return Sweep(found, settings)
