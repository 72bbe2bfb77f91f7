"""Where the lost Dice is: the wrong voxels of a finished run by kind, and the Dice points that each kind costs."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from fsseg.analysis.comparison import as_latex, as_markdown
from fsseg.analysis.label_maps import Counted, of_every_score
from fsseg.evaluation.scores import CaseScore
from fsseg.report.figures import COLOURS, panels
from fsseg.runs.results import Results, load_results
from fsseg.system.progress import Progress

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas

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
"""What is told of each kind."""

LEGEND = (
    "Dice points lost to each kind of wrong voxels, which add up to 100 with Dice; in brackets the points that repairing this "
    "kind alone would gain. The end slices are the first and the last fifth of those that show the organ."
)

SHADES = {
    "fp_without": COLOURS[1],
    "fp_with": COLOURS[4],
    "fn_ends": COLOURS[0],
    "fn_inside": COLOURS[5],
}
"""Warm for what is too much, cool for what is missing."""


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
        """What a kind comes to.

        Returns:
            `voxels`; their `share` of the organ's true voxels in percent; the Dice points `lost` to them, which for the
            four kinds and Dice add up to 100; and the `gain` in Dice points if this kind alone were repaired. Share and
            gain are NaN where the organ is not in the truth, `lost` where it is not in the prediction either.
        """
        score, voxels = self.score, getattr(self, kind)
        total = score.predicted + score.actual
        share = lost = gain = math.nan
        if total:
            lost = 100 * voxels / total
        if score.actual:
            right, both = (score.intersection, total - voxels) if kind in ("fp_without", "fp_with") else (
                score.intersection + voxels, total + voxels
            )  # fmt: skip
            share, gain = 100 * voxels / score.actual, 100 * (2 * right / both - score.dice)
        return {"voxels": voxels, "share": share, "lost": lost, "gain": gain}


def count_wrong(
    predicted: Bool[np.ndarray, "slice height width"],
    actual: Bool[np.ndarray, "slice height width"],
) -> dict[str, int]:
    """The number of wrong voxels of each kind."""
    extra = (predicted & ~actual).sum(axis=(1, 2))
    missed = (actual & ~predicted).sum(axis=(1, 2))
    shown = actual.any(axis=(1, 2))
    ends = end_slices(shown)
    return {
        "fp_without": int(extra[~shown].sum()),
        "fp_with": int(extra[shown].sum()),
        "fn_ends": int(missed[ends].sum()),
        "fn_inside": int(missed[shown & ~ends].sum()),
    }


def end_slices(shown: Bool[np.ndarray, "slice"]) -> Bool[np.ndarray, "slice"]:
    """Of the slices that show an organ, the first and the last fifth: rounded down, but at least one each."""
    numbers, ends = np.flatnonzero(shown), np.zeros_like(shown)
    of_each = max(1, len(numbers) // ENDS)
    ends[numbers[:of_each]] = ends[numbers[-of_each:]] = True
    return ends


@dataclass(frozen=True)
class ErrorTable:
    """Where a run's lost Dice is.

    Attributes:
        results: The run.
        wrong: The wrong voxels of each of its scores.
    """

    results: Results
    wrong: list[WrongVoxels]

    @cached_property
    def frame(self) -> "pandas.DataFrame":
        """One row per score and kind: what the score is of, its counts and Dice in [0, 1], and `WrongVoxels.measures`."""
        import pandas

        rows = [
            vars(one.score) | {"dice": one.score.dice, "kind": kind} | one.measures(kind)
            for one in self.wrong
            for kind in KINDS
        ]
        columns = [name for name in CaseScore.__dataclass_fields__ if name != "measures"]
        return pandas.DataFrame(rows, columns=[*columns, "dice", "kind", *MEASURES])

    def table(self) -> "pandas.DataFrame":
        """Means by variant, class and kind, and of classes where there are several: Dice in percent, and `WrongVoxels.measures`.

        Means are over all scores, as in `Results.table`, whose Dice is this one; what is undefined is left out.
        """
        import pandas

        told = ["dice", *MEASURES]
        means = self.frame.groupby(["variant", "class_name", "kind"], sort=False)[told].mean()
        means["dice"] *= 100
        classes = self.results.classes
        if len(classes) > 1:
            of_classes = means.groupby(["variant", "kind"], sort=False)[told].agg(
                lambda one: one.mean(skipna=False)
            )
            means = pandas.concat([means, of_classes.assign(class_name="mean").set_index("class_name", append=True)
                                   .reorder_levels(means.index.names)])  # fmt: skip
        order = [self.results.variants, classes + ["mean"] * (len(classes) > 1), list(KINDS)]
        return means.reindex(
            pandas.MultiIndex.from_product(order, names=["variant", "class", "kind"])
        )

    def shown(self) -> "pandas.DataFrame":
        """The table as text, a line per variant and class; `LEGEND` says what its numbers are."""
        import pandas

        table, oracles = self.table(), self.results.oracles
        dice = table["dice"].groupby(level=["variant", "class"], sort=False).first().map(_number)
        cells = [
            f"{_number(line['lost'])} ({_number(line['gain'], '+')})"
            for _, line in table.iterrows()
        ]
        kinds = (
            pandas.Series(cells, table.index)
            .unstack()
            .reindex(index=dice.index, columns=list(KINDS))
        )
        shown = kinds.rename(columns=KINDS)
        shown.insert(0, "Dice", dice)
        shown.index = [f"{name}{' *' if name in oracles else ''}, {of}" for name, of in dice.index]
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
        rows = json.loads(self.table().reset_index().to_json(orient="records"))
        return {"run": str(self.results.path), "rows": rows}

    def plot(self) -> Any:
        """A figure: for each class and variant a bar of the Dice points lost, in parts by kind; needs matplotlib."""
        lost, dice = (
            self.table()[column].unstack("kind", sort=False) for column in ("lost", "dice")
        )
        classes, longest = lost.index.unique("class"), lost.sum(axis=1).max()
        variants = [
            f"{name} *" if name in self.results.oracles else name for name in self.results.variants
        ]
        wide = len(classes) > 2  # enough for a legend in one line
        size = max(4.6, 1.4 + 1.6 * len(classes)), (1.25 if wide else 1.75) + 0.24 * len(variants)
        figure, row = panels(*size, len(classes), sharey=True)
        for axes, name in zip(np.atleast_1d(row), classes):
            _draw_bars(axes, lost.xs(name, level="class"), dice.xs(name, level="class").iloc[:, 0])
            axes.set_title(name.replace("_", " "), fontsize=9)
            axes.tick_params(labelsize=8)
            axes.set_yticks(range(len(variants)), variants)
            axes.set_xlim(0, max(1.3 * longest, 1))
        axes.set_ylim(len(variants) - 0.4, -0.6)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(KINDS) if wide else 1,
            frameon=False, fontsize=8, handlelength=1,
        )  # fmt: skip
        figure.supxlabel(
            "Dice points lost; beside each bar the Dice that is left, in percent", fontsize=8
        )
        return figure


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


def _draw_bars(axes: Any, lost: "pandas.DataFrame", dice: "pandas.Series") -> None:
    """A bar for each variant, with a part for each kind, and the Dice beside it."""
    places, ends = range(len(lost)), np.zeros(len(lost))
    for kind, told in KINDS.items():
        told = told.replace("FP", "false positives").replace("FN", "false negatives")
        parts = lost[kind].fillna(0).to_numpy()
        axes.barh(
            places,
            parts,
            left=ends,
            height=0.72,
            color=SHADES[kind],
            edgecolor="white",
            linewidth=0.4,
            label=told,
        )
        ends += parts
    for place, end, value in zip(places, ends, dice):
        axes.annotate(
            _number(value),
            (end, place),
            (3, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=7,
            color="#404040",
        )


def _number(value: float, sign: str = "") -> str:
    return "–" if value != value else f"{value:{sign}.1f}"
