"""Results of a run: scores as a data frame, and the table of means that people read."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsseg.data.class_names import COLUMN, is_column
from fsseg.errors import FssegError
from fsseg.evaluation.scores import CaseScore, read_scores
from fsseg.plugins.options import nearest
from fsseg.runs.folder import RunFolder
from fsseg.runs.records import read_record, require_of_run

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas

    from fsseg.recipe.tables import Recipe

FACTS_OF_DICE = {"unit": "%", "best": 1.0, "better": "higher"}

SPREADS = {"case": "sd_cases", "fold": "sd_folds", "seed": "sd_seeds"}
"""The table's columns of standard deviations, by what they are taken over."""


@dataclass(frozen=True)
class Results:
    """What a run found.

    Attributes:
        path: The run directory.
        scores: One record per fold, case, class and variant.
        classes: Names of the classes, in order.
        about: Dataset, protocol, its hash, folds and seeds.
    """

    path: Path
    scores: list[CaseScore]
    classes: list[str]
    about: dict[str, Any]

    @property
    def folder(self) -> RunFolder:
        """The files of the run directory."""
        return RunFolder(self.path, tuple(self.about["seeds"]))

    @cached_property
    def frame(self) -> "pandas.DataFrame":
        """One row per fold, case, class and variant: voxel counts, Dice in [0, 1], and what else was measured."""
        import pandas

        rows = [vars(score) | {"dice": score.dice} | score.measures for score in self.scores]
        return (
            pandas.DataFrame(rows)
            .drop(columns="measures", errors="ignore")
            .astype(dict.fromkeys(self.metrics, float))
        )

    @property
    def metrics(self) -> list[str]:
        """What was measured besides Dice."""
        return list(dict.fromkeys(name for score in self.scores for name in score.measures))

    def table(self, metric: str = "dice") -> "pandas.DataFrame":
        """Mean Dice in percent: a row per variant, a column per class, their mean, and spreads of that mean.

        The same of another `metric` that was measured, in its unit. A case without the class in truth and prediction is left out of the mean. The mean over classes is taken last.
        The spreads are standard deviations: over cases of a case's mean over classes, and over folds and over seeds
        where there are several (NaN for a single case).

        Raises:
            FssegError: That was not measured.
        """
        measured = ["dice", *self.metrics]
        if metric not in measured:
            raise FssegError(
                f"there is no metric {metric!r} in {self.path}; {nearest(metric, measured)}"
            )
        frame, factor = self.frame, 100 if self.unit(metric) == "%" else 1
        by_class = frame.groupby(["variant", "class_name"], sort=False)[metric].mean().unstack()
        table = factor * by_class.reindex(index=self.variants, columns=self.classes)
        table["mean"] = table[self.classes].mean(axis=1, skipna=False)
        cases = frame.groupby(["variant", "fold", "case"], sort=False)[metric].mean()
        table[SPREADS["case"]] = factor * cases.groupby("variant").std()
        for part in ("fold", "seed"):
            if frame[part].nunique() > 1:
                means = (
                    frame.groupby(["variant", part, "class_name"])[metric]
                    .mean()
                    .groupby(["variant", part])
                    .mean()
                )
                table[SPREADS[part]] = factor * means.groupby("variant").std()
        return table

    def unit(self, metric: str) -> str:
        """The unit of a metric, for example "%" (whose values are shares) or "mm"."""
        return self.facts(metric)["unit"]

    def facts(self, metric: str) -> dict[str, Any]:
        """What is known of a metric: its `unit`, its `best` value, and whether "higher", "lower" or "nearer" to it is better."""
        return FACTS_OF_DICE if metric == "dice" else self.about["metrics"][metric]

    def compare(self, row: str, against: str) -> "pandas.DataFrame":
        """Whether a row's Dice differs from another's, by class and for the mean over classes.

        The older form of `fsseg.compare`, which has intervals and corrects for the number of tests. The same scans are
        paired: a scan's Dice is its mean over supports and seeds, and a scan that two folds share counts once in each.
        Scans where either row is undefined are left out.

        Args:
            row: The name of a row.
            against: The name of the row to compare with.

        Returns:
            A line per class and one for their mean, with the number of `pairs`, the mean `difference` in percentage
            points (positive where `row` is higher), in how many pairs it is `higher`, and `p`, the two-sided p-value
            of Wilcoxon's signed-rank test. It is not corrected for the number of tests.

        Raises:
            FssegError: There is no such row.
        """
        import pandas

        # Upwards: the one test of the project, for the older form of `fsseg.compare`.
        from fsseg.analysis.statistics import signed_rank

        strange = [name for name in (row, against) if name not in self.variants]
        if strange:
            raise FssegError(
                f"there is no row {strange[0]!r} in {self.path}; {nearest(strange[0], self.variants)}"
            )
        scans = (
            self.frame.groupby(["variant", "fold", "case", "class_name"])["dice"]
            .mean()
            .unstack()[self.classes]
        )
        scans["mean"] = scans.mean(axis=1, skipna=False)
        differences = 100 * (scans.loc[row] - scans.loc[against])
        lines = {}
        for name, column in differences.items():
            pairs = column.dropna()
            lines[name] = {
                "pairs": len(pairs),
                "difference": pairs.mean(),
                "higher": int((pairs > 0).sum()),
                "p": signed_rank(pairs.to_numpy()),
            }
        return pandas.DataFrame.from_dict(lines, orient="index")

    @cached_property
    def recipe(self) -> "Recipe":
        """The recipe as it was run, read from the run directory."""
        from fsseg.recipe.reading import parse_recipe, read_tables

        path = RunFolder(self.path).recipe
        return parse_recipe(read_tables(path), str(path))

    @property
    def variants(self) -> list[str]:
        """Names of the rows, in order."""
        return list(dict.fromkeys(score.variant for score in self.scores))

    @property
    def oracles(self) -> set[str]:
        """Names of the rows that used the ground truth."""
        return {score.variant for score in self.scores if score.oracle}

    @property
    def cases(self) -> int:
        """Number of scored scans (a scan that is a query of two folds counts twice)."""
        return len({(score.fold, score.case) for score in self.scores})

    def dumps(self) -> dict[str, Any]:
        """The table as plain values, and one for each further metric."""
        others = {
            name: {"unit": self.unit(name), "rows": self._rows(name)} for name in self.metrics
        }
        told = {
            "cases": self.cases,
            "unit": "Dice, percent",
            "path": str(self.path),
            "rows": self._rows("dice"),
        }
        return self.about | told | ({"metrics": others} if others else {})

    def _rows(self, metric: str) -> list[dict[str, Any]]:
        return [
            {
                "variant": name,
                "oracle": name in self.oracles,
                **{key: _plain(value) for key, value in row.items()},
            }
            for name, row in self.table(metric).iterrows()
        ]


def load_results(path: str | Path) -> Results:
    """The results in a run directory; raises FssegError if it is none."""
    folder = RunFolder(Path(path))
    if not folder.is_run:
        raise FssegError(
            f"{path}: there is no run, expected a run directory such as those below runs/"
        )
    folder.require_undamaged(folder.about, folder.scores)
    about = read_record(folder.about)
    classes = about["classes"]
    columns = [name for name in classes if is_column(name)]
    if columns:
        raise FssegError(
            f"{folder.about}: the class {columns[0]!r} {COLUMN}, under which one of both would be lost; rename it in the "
            "dataset, and run the recipe again"
        )
    scores = read_scores(folder.scores)
    require_of_run(folder.scores, scores, about)
    return Results(folder.path, scores, classes, about)


def _plain(value: float) -> float | None:
    return None if value != value else round(float(value), 2)
