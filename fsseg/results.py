"""Results of a run: scores as a data frame, and the table of means that people read."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsseg.records import CaseScore, read_lines

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas


@dataclass(frozen=True)
class Results:
    """What a run found.

    Attributes:
        path: The run directory.
        scores: One record per fold, case, class and variant.
        classes: Names of the classes, in order.
        about: Dataset, protocol, its hash, folds and seed.
    """

    path: Path
    scores: list[CaseScore]
    classes: list[str]
    about: dict[str, Any]

    @cached_property
    def frame(self) -> "pandas.DataFrame":
        """One row per fold, case, class and variant: voxel counts and Dice in [0, 1]."""
        import pandas

        return pandas.DataFrame([vars(score) | {"dice": score.dice} for score in self.scores])

    def table(self) -> "pandas.DataFrame":
        """Mean Dice in percent: a row per variant, a column per class, their mean, and the spread over cases.

        A case without the class in truth and prediction is left out of the mean. The mean over classes is taken last.
        The spread is the standard deviation over cases of a case's mean over classes (NaN for a single case).
        """
        frame = self.frame
        by_class = frame.groupby(["variant", "class_name"], sort=False)["dice"].mean().unstack()
        table = 100 * by_class.reindex(index=self.variants, columns=self.classes)
        table["mean"] = table[self.classes].mean(axis=1, skipna=False)
        cases = frame.groupby(["variant", "fold", "case"], sort=False)["dice"].mean()
        table["spread"] = 100 * cases.groupby("variant").std().reindex(self.variants)
        return table

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
        """The table as plain values."""
        rows = [
            {"variant": name, "oracle": name in self.oracles, **{key: _plain(value) for key, value in row.items()}}
            for name, row in self.table().iterrows()
        ]
        return {**self.about, "cases": self.cases, "unit": "Dice, percent", "path": str(self.path), "rows": rows}


def load_results(path: str | Path) -> Results:
    """The results in a run directory."""
    path = Path(path)
    about = json.loads((path / "run.json").read_text(encoding="utf-8"))
    scores = [
        CaseScore(**{**line, "support_slices": tuple(line["support_slices"])})
        for line in read_lines(path / "scores.jsonl")
    ]
    return Results(path, scores, about["classes"], about)


def _plain(value: float) -> float | None:
    return None if value != value else round(float(value), 2)
