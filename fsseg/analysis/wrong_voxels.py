"""Where the lost Dice is: the wrong voxels of a finished run by kind, and the Dice points that each kind costs."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from fsseg.analysis.drawing import draw
from fsseg.analysis.label_maps import Counted, of_every_score
from fsseg.analysis.tables import as_latex, as_markdown, number, records, starred
from fsseg.evaluation.scores import CaseScore
from fsseg.runs.results import Results, load_results
from fsseg.system.progress import Progress

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas
    from matplotlib.figure import Figure

KINDS = {
    "fp_without": "FP, slices without organ",
    "fp_with": "FP, slices with organ",
    "fn_ends": "FN, end slices",
    "fn_inside": "FN, inner slices",
}
"""The four kinds of wrong voxels, and what tables call them (FP and FN are false positives and negatives)."""

ENDS = 5
"""The ends of an organ are the first and the last of so many parts of its slices."""

MEASURES = ["voxels", "share", "lost", "gain"]
"""The numbers of each kind: see `WrongVoxels.measures`."""

LEGEND = (
    "Dice points lost to each kind of wrong voxels, which add up to 100 with Dice; in brackets the "
    "points that repairing this kind alone would gain. The end slices are the first and the last "
    "fifth of those that show the organ."
)


@dataclass(frozen=True)
class WrongVoxels:
    """The wrong voxels of a score by kind: together they are predicted + actual - 2 intersection.

    Attributes:
        score: The score.
        fp_without: False positives in slices without the organ.
        fp_with: False positives in slices that show it.
        fn_ends: False negatives in the first and the last fifth (at least one slice each) of the slices that show it.
        fn_inside: False negatives in the other ones.
    """

    score: CaseScore
    fp_without: int
    fp_with: int
    fn_ends: int
    fn_inside: int

    def measures(self, kind: str) -> dict[str, float]:
        """The numbers of a kind.

        Returns:
            `voxels`; their `share` of the organ's true voxels in percent; the Dice points `lost` to them, which for the
            four kinds and Dice add up to 100; and the `gain` in Dice points if this kind alone were repaired. Share and
            gain are NaN where the organ is not in the truth, `lost` where it is not in the prediction either.
        """
        score = self.score
        voxels = getattr(self, kind)
        total = score.predicted + score.actual
        share = lost = gain = math.nan
        if total:
            lost = 100 * voxels / total
        if score.actual:
            share = 100 * voxels / score.actual
            gain = 100 * (self._dice_without(kind) - score.dice)
        return {"voxels": voxels, "share": share, "lost": lost, "gain": gain}

    def _dice_without(self, kind: str) -> float:
        """The Dice if this kind alone were repaired."""
        score = self.score
        voxels = getattr(self, kind)
        total = score.predicted + score.actual
        if kind in ("fp_without", "fp_with"):
            return 2 * score.intersection / (total - voxels)
        return 2 * (score.intersection + voxels) / (total + voxels)


def count_wrong(
    predicted: Bool[np.ndarray, "slice height width"],
    actual: Bool[np.ndarray, "slice height width"],
) -> dict[str, int]:
    """Counts the wrong voxels of each kind."""
    extra = (predicted & ~actual).sum(axis=(1, 2))
    missed = (actual & ~predicted).sum(axis=(1, 2))
    shown = actual.any(axis=(1, 2))
    ends = end_slices(np.asarray(shown))
    return {
        "fp_without": int(extra[~shown].sum()),
        "fp_with": int(extra[shown].sum()),
        "fn_ends": int(missed[ends].sum()),
        "fn_inside": int(missed[shown & ~ends].sum()),
    }


def end_slices(shown: Bool[np.ndarray, "slice"]) -> Bool[np.ndarray, "slice"]:
    """The first and the last fifth of the slices that show an organ: rounded down, but at least one each."""
    numbers = np.flatnonzero(shown)
    of_each = max(1, len(numbers) // ENDS)
    ends = np.zeros_like(shown)
    ends[numbers[:of_each]] = True
    ends[numbers[-of_each:]] = True
    return ends


@dataclass(frozen=True)
class ErrorTable:
    """The wrong voxels of a run by kind, with the Dice points that they cost, as `fsseg.error_table` returns them.

    Attributes:
        results: The run.
        wrong: The wrong voxels of each of its scores.

    Example:
        errors = fsseg.error_table("runs/table1-20261123-120000")
        print(errors.to_markdown())
    """

    results: Results
    wrong: list[WrongVoxels]

    @cached_property
    def frame(self) -> "pandas.DataFrame":
        """One row per score and kind, with what the score is of, its counts, Dice in [0, 1], and `WrongVoxels.measures`."""
        import pandas

        rows = []
        for wrong in self.wrong:
            of_score = vars(wrong.score) | {"dice": wrong.score.dice}
            for kind in KINDS:
                rows.append(of_score | {"kind": kind} | wrong.measures(kind))
        fields = [name for name in CaseScore.__dataclass_fields__ if name != "measures"]
        columns = [*fields, "dice", "kind", *MEASURES]
        return pandas.DataFrame(rows, columns=columns)

    def table(self) -> "pandas.DataFrame":
        """Means by variant, class and kind: Dice in percent, and `WrongVoxels.measures`.

        Where there are several classes, their mean is one of them. Means are over all scores, as in `Results.table`, whose
        Dice is this one; what is undefined is left out.
        """
        import pandas

        columns = ["dice", *MEASURES]
        keys = ["variant", "class_name", "kind"]
        by_kind = self.frame.groupby(keys, sort=False)
        means = by_kind[columns].mean()
        means["dice"] *= 100
        classes = list(self.results.classes)
        if len(classes) > 1:
            by_variant = means.groupby(["variant", "kind"], sort=False)[columns]
            of_classes = by_variant.agg(lambda values: values.mean(skipna=False))
            of_classes = of_classes.assign(class_name="mean").set_index("class_name", append=True)
            means = pandas.concat([means, of_classes.reorder_levels(keys)])
            classes.append("mean")
        order = [self.results.variants, classes, list(KINDS)]
        names = ["variant", "class", "kind"]
        return means.reindex(pandas.MultiIndex.from_product(order, names=names))

    def shown(self) -> "pandas.DataFrame":
        """The table as text, a line per variant and class; `LEGEND` says what its numbers are."""
        table = self.table()
        by_class = table["dice"].groupby(level=["variant", "class"], sort=False)
        dice = by_class.first()
        lost = table["lost"].map(number)
        gain = table["gain"].map(_gain)
        cells = lost + " (" + gain + ")"
        shown = cells.unstack().reindex(index=dice.index, columns=list(KINDS))
        shown = shown.rename(columns=KINDS)
        shown.insert(0, "Dice", dice.map(number))
        variants = starred(dice.index.get_level_values("variant"), self.results.oracles)
        classes = dice.index.get_level_values("class")
        shown.index = [f"{variant}, {name}" for variant, name in zip(variants, classes)]
        shown.index.name = "variant, class"
        shown.columns.name = None
        return shown

    def to_markdown(self) -> str:
        """The table in Markdown, as people read it."""
        return f"{as_markdown(self.shown())}\n\n{LEGEND}"

    def to_latex(self) -> str:
        """The table in LaTeX (booktabs), as people read it."""
        return f"% {LEGEND}\n{as_latex(self.shown())}"

    def to_csv(self) -> str:
        """The frame as CSV: every score and kind, for one's own analysis."""
        return self.frame.to_csv(index=False)

    def dumps(self) -> dict[str, Any]:
        """The table as plain values."""
        return {"run": str(self.results.path), "rows": records(self.table())}

    def plot(self) -> "Figure":
        """A figure: for each class and variant a bar of the Dice points lost, in parts by kind; needs matplotlib."""
        return draw("lost_dice", self)


def error_table(run: Results | str | Path, *, progress: Progress | None = None) -> ErrorTable:
    """Counts a run's wrong voxels by kind, in its label maps and the scans' own labels. Nothing is segmented again.

    Only slices that the protocol segments are looked at.

    Args:
        run: A finished run, whose label maps and scans are still there.
        progress: Follows the scans.

    Raises:
        FssegError: They are not there, or not what was counted.
    """
    results = run if isinstance(run, Results) else load_results(run)

    def count(counted: Counted) -> WrongVoxels:
        return WrongVoxels(counted.score, **count_wrong(counted.predicted, counted.actual))

    return ErrorTable(results, of_every_score(results, count, progress, "wrong voxels"))


def _gain(points: float) -> str:
    return number(points, "+")
