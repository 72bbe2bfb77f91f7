"""The names that a recipe gives to rows, and those of its metrics: both name rows, columns and files of the results."""

from fsseg.plugins.options import explained
from fsseg.recipe.components import ComponentTable, Mark, PlainTable
from fsseg.system.names import alike, problem_of, told

SCORE_COLUMNS = {
    *("run", "dataset", "variant", "oracle", "fold", "seed", "case", "class_name", "dice"),
    *("support_case", "support_slices", "intersection", "predicted", "actual", "measures"),
}
"""The columns of the table of scores that are no metrics."""


class NewName(Mark):
    """Marks the name of a row, which looks like that of no row before it."""

    def check(self, value: str, context: PlainTable) -> None:
        """Raises an error for a name that cannot be used, or looks like that of a row that was read before."""
        problem = problem_of(value)
        if problem is not None:
            raise explained(f"{told(value)} {problem}; give the row another name")
        names = context.setdefault("names of rows", {})
        before = names.get(alike(value))
        if before is None:
            names[alike(value)] = value
        elif before == value:
            raise explained(f"{told(value)} is used twice; give each row a name of its own")
        else:
            raise explained(
                f"{told(value)} differs from {told(before)} in nothing but capitals, spaces or the way that accents "
                "are stored; give each row a name of its own"
            )


class NewMetric(Mark):
    """Marks a metric, whose name becomes a column of the table of scores."""

    def check(self, value: ComponentTable, context: PlainTable) -> None:
        """Raises an error for a metric that was read before, or has the name of another column."""
        if value.name in SCORE_COLUMNS:
            raise explained(
                f"{value.name!r} is the name of another column of the table of scores; rename the metric"
            )
        names = context.setdefault("names of metrics", set())
        if value.name in names:
            raise explained(
                f"{value.name!r} is used twice, expected each metric once; leave one out"
            )
        names.add(value.name)
