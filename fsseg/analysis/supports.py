"""How much a result depends on which slice was labelled: every slice of a fold that could be the support."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsseg.analysis.drawing import draw
from fsseg.analysis.tables import as_latex, as_markdown, number, records
from fsseg.errors import FssegError
from fsseg.evaluation.evaluate import evaluate
from fsseg.evaluation.scores import CaseScore
from fsseg.prediction.predictor import load_variants
from fsseg.runs.data import RunData
from fsseg.runs.results import Results, load_results
from fsseg.system.devices import pick_device
from fsseg.system.progress import Progress, Silent

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas
    from matplotlib.figure import Figure

QUANTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}
"""The columns of a table that are quantiles."""


@dataclass(frozen=True)
class Sensitivity:
    """The Dice of a run's variants under every support, as `fsseg.support_sensitivity` returns it.

    Attributes:
        results: The run.
        scores: One record per fold, seed, variant, class, query case and support slice.

    Example:
        sensitivity = fsseg.support_sensitivity("runs/table1-20261123-120000")
        sensitivity.table()  # how the Dice of the supports spreads
    """

    results: Results
    scores: list[CaseScore]

    @cached_property
    def frame(self) -> "pandas.DataFrame":
        """One row per score; `support_slice` is the number of the one slice, `dice` is in [0, 1]."""
        import pandas

        rows = []
        for score in self.scores:
            [slice_number] = score.support_slices
            rows.append(vars(score) | {"dice": score.dice, "support_slice": slice_number})
        return pandas.DataFrame(rows).drop(columns=["measures", "support_slices"])

    @cached_property
    def supports(self) -> "pandas.DataFrame":
        """The Dice of each support in percent: its mean over the scans that it segments, by variant and class."""
        keys = ["variant", "class_name", "fold", "seed", "support_case", "support_slice"]
        means = self.frame.groupby(keys, sort=False)["dice"].mean()
        return (100 * means).reset_index()

    def table(self) -> "pandas.DataFrame":
        """The line of each variant and class: the number of supports, and the spread of their Dice in percent.

        `as run` is the table's number, from the support that the protocol chose.
        """
        import pandas

        as_run = self.results.table()
        by_class = self.supports.groupby(["variant", "class_name"], sort=False)
        lines = {}
        for (variant, name), group in by_class:
            dice = group["dice"].dropna()
            line = {
                "supports": len(dice),
                "as run": as_run.loc[variant, name],
                "mean": dice.mean(),
                "sd": dice.std(),
                "min": dice.min(),
            }
            for label, share in QUANTILES.items():
                line[label] = dice.quantile(share)
            line["max"] = dice.max()
            lines[variant, name] = line
        index = pandas.MultiIndex.from_tuples(list(lines), names=["variant", "class"])
        return pandas.DataFrame(list(lines.values()), index=index)

    def shown(self) -> "pandas.DataFrame":
        """The table as text."""
        table = self.table()
        shown = table.drop(columns="supports").map(number)
        shown.insert(0, "supports", table["supports"].map(str))
        shown.index = [f"{variant}, {name}" for variant, name in table.index]
        shown.index.name = "variant, class"
        return shown

    def to_markdown(self) -> str:
        """The table in Markdown, as people read it."""
        return as_markdown(self.shown())

    def to_latex(self) -> str:
        """The table in LaTeX (booktabs), as people read it."""
        return as_latex(self.shown())

    def dumps(self) -> dict[str, Any]:
        """The table as plain values."""
        return {"run": str(self.results.path), "rows": records(self.table())}

    def plot(self) -> "Figure":
        """A figure: for each class and variant a box of the supports' Dice with a dot for each; needs matplotlib.

        The run's own number is a bar.
        """
        return draw("supports", self)


def support_sensitivity(
    run: Results | str | Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Sensitivity:
    """Segments a run's scans again from every slice of their fold that shows the class, each by itself.

    Every case of a fold gives supports, also its queries, and segments all others. Nothing is trained. Variants with an
    oracle are left out. Classes that the protocol segments together are those that the slice shows.

    Args:
        run: A finished run, whose checkpoints and scans are still there.
        device: As of `fsseg.run`.
        progress: Follows the scans.

    Raises:
        FssegError: They are not there, or all variants decide with an oracle.
    """
    results = run if isinstance(run, Results) else load_results(run)
    progress = progress or Silent()
    where = pick_device(device)
    data = RunData(results.recipe, progress)
    data.require_evaluated(results.about["data"], results.path)
    scores: list[CaseScore] = []
    for seed in results.about["seeds"]:
        for fold in data.folds:
            of_fold = data.of(fold)
            for variants in load_variants(results, fold.index, seed, where):
                evaluated = evaluate(
                    variants[0].segmenter.backbone,
                    variants,
                    of_fold.every_support(),
                    of_fold.scans,
                    fold,
                    seed=seed,
                    device=where,
                    progress=progress,
                )
                for result in evaluated:
                    scores += result.scores
    if not scores:
        raise FssegError(
            f"{results.path}: all rows decide with an oracle, "
            "expected one that needs no ground truth"
        )
    return Sensitivity(results, scores)
