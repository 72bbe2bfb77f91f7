"""Runs side by side: means with their spreads, differences from a baseline, and paired tests."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsseg.analysis.drawing import draw
from fsseg.analysis.side_by_side import check_alike, distinct_names, joined, notes_of
from fsseg.analysis.statistics import FEWEST, holm, paired_test, verdict
from fsseg.analysis.tables import (
    NOTHING,
    as_latex,
    as_markdown,
    interval,
    number,
    p_value,
    records,
    starred,
)
from fsseg.errors import FssegError
from fsseg.plugins.options import nearest
from fsseg.runs.results import Results, load_results
from fsseg.system.progress import Progress, Silent

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """The scores of several runs, and how their variants differ from one of them, as `fsseg.compare` returns it.

    Attributes:
        runs: The runs.
        baseline: The variant that the others are compared with.
        metric: What is compared: "dice", or another metric.
        progress: Follows what is measured later.

    Example:
        A line per variant, with its difference from the baseline, an interval and a corrected p-value:

            comparison = fsseg.compare(["runs/table1-20261123-120000"], baseline="ADNet")
            comparison.table()
    """

    runs: list[Results]
    baseline: str
    metric: str = "dice"
    progress: Progress = field(default_factory=Silent, repr=False, compare=False)

    @cached_property
    def frame(self) -> "pandas.DataFrame":
        """One row per run, fold, seed, case, class, support and variant: what `to_csv` writes.

        Voxels `predicted`, `actual` and in both (`intersection`), `dice`, `iou`, `hd95` and `assd` in mm, `nsd`,
        `volume_error` in ml, and other metrics of the recipes; shares are in [0, 1], NaN is undefined. A variant that
        several runs have is told apart by the run's name.

        What a run did not measure is measured from its label maps when this is first asked for, and kept; where that
        cannot be (they or the scans are gone) a warning says so, and the columns are NaN.
        """
        from fsseg.analysis.later_metrics import with_measures_if_possible

        return joined([with_measures_if_possible(run, self.progress) for run in self.runs])

    @cached_property
    def _scores(self) -> "pandas.DataFrame":
        """The frame with what is there already."""
        return joined(self.runs)

    @property
    def variants(self) -> list[str]:
        """The names of the variants of all runs, in order."""
        return list(dict.fromkeys(self._scores["variant"]))

    @property
    def classes(self) -> list[str]:
        """The classes of the runs."""
        names: dict[str, None] = {}
        for run in self.runs:
            names |= dict.fromkeys(run.classes)
        return list(names)

    @property
    def unit(self) -> str:
        """The metric's unit; "%" where its values are shares."""
        return self.runs[0].unit(self.metric)

    @property
    def oracles(self) -> set[str]:
        """The names of the variants that used the ground truth."""
        told_apart = zip(self.runs, distinct_names(self.runs))
        return {names[name] for run, names in told_apart for name in run.oracles}

    @property
    def notes(self) -> list[str]:
        """Sentences for a reader of the table: runs whose means are over other folds or seeds than the first one's."""
        return list(notes_of(self.runs))

    @cached_property
    def cases(self) -> "pandas.DataFrame":
        """The unit of every test: a scan's value by variant, class and their mean, averaged over folds, seeds and supports.

        Rows are by variant, dataset and case. In percent for metrics that are shares; NaN where it is undefined.
        """
        factor = 100 if self.unit == "%" else 1
        keys = ["variant", "dataset", "case", "class_name"]
        means = self._scores.groupby(keys, sort=False)[self.metric].mean()
        by_class = factor * means.unstack()
        values = by_class.reindex(columns=self.classes)
        values["mean"] = values.mean(axis=1, skipna=False)
        return values

    def table(self) -> "pandas.DataFrame":
        """The line of each variant: means by class and their mean, spreads over cases, folds and seeds, the paired test.

        Means and spreads are those of `Results.table`. Of the mean over classes: `difference` from the baseline with
        its 95 % interval (`low`, `high`), `p` corrected by Holm, and the `verdict`.
        """
        import pandas

        tables = []
        for run, names in zip(self.runs, distinct_names(self.runs)):
            tables.append(run.table(self.metric).rename(index=names))
        means = pandas.concat(tables)
        tests = self.tests()
        of_means = tests[tests.index.get_level_values("class") == "mean"].droplevel("class")
        tested = of_means[["pairs", "difference", "low", "high", "p", "verdict"]]
        return means.join(tested).reindex(self.variants)

    def tests(self) -> "pandas.DataFrame":
        """The test of each variant against the baseline, by class and for the mean over classes, on the scans of both.

        Columns: `pairs`, the mean `difference` with its 95 % bootstrap interval `low` to `high` (BCa, 10,000 resamples
        of the scans, always the same), in how many pairs it is `higher`, `p_raw` of Wilcoxon's signed-rank test, `p`
        corrected by Holm over all tests of this table, and the `verdict`: "better" or "worse" where p is below 0.05,
        "no difference shown" elsewhere, "too few for a test" with fewer than six pairs. Of a metric whose best value is
        neither its lowest nor its highest (a signed error), the distances from it are compared.
        """
        import pandas

        facts = self.runs[0].facts(self.metric)
        values = self.cases
        if facts["better"] == "nearer":
            values = (values - facts["best"]).abs()
        tests = {}
        for variant in self.variants:
            if variant == self.baseline:
                continue
            differences = values.loc[variant] - values.loc[self.baseline]
            for name in [*self.classes, "mean"]:
                of_both = differences[name].dropna()
                tests[variant, name] = paired_test(of_both.to_numpy())
        columns = list(paired_test(np.zeros(0)))
        variants = [variant for variant, _ in tests]
        classes = [name for _, name in tests]
        index = pandas.MultiIndex.from_arrays([variants, classes], names=["variant", "class"])
        table = pandas.DataFrame(list(tests.values()), index, columns)
        table["p"] = holm(table["p_raw"].to_numpy(dtype=float))
        verdicts = []
        for pairs, difference, p in zip(table["pairs"], table["difference"], table["p"]):
            verdicts.append(verdict(pairs, difference, p, facts["better"]))
        table["verdict"] = verdicts
        return table

    def shown(self) -> "pandas.DataFrame":
        """The table as text: a column for the difference and its interval, one for the test."""
        table = self.table()
        shown = table[[*self.classes, "mean"]].map(number)
        for column in table.columns:
            if str(column).startswith("sd_"):
                shown[f"± {column.removeprefix('sd_')}"] = table[column].map(number)
        differences = []
        verdicts = []
        for name, test in table.to_dict("index").items():
            is_baseline = name == self.baseline
            differences.append(NOTHING if is_baseline else interval(test))
            verdicts.append(NOTHING if is_baseline else _verdict_with_p(test))
        shown[f"difference from {self.baseline}"] = differences
        shown["verdict"] = verdicts
        shown.index = starred(shown.index, self.oracles)
        shown.index.name = "variant"
        return shown

    def shown_tests(self) -> "pandas.DataFrame":
        """The tests as text, a line per variant and class."""
        tests = self.tests()
        names = [f"{variant}, {name}" for variant, name in tests.index]
        shown = tests[["pairs"]].map(str)
        shown["difference"] = [interval(test) for test in tests.to_dict("records")]
        shown["p, corrected"] = tests["p"].map(_p_alone)
        shown["verdict"] = tests["verdict"]
        shown = shown.set_axis(names)
        shown.index.name = "variant, class"
        return shown

    def to_csv(self) -> str:
        """The frame as CSV: every score, for one's own analysis."""
        return self.frame.to_csv(index=False)

    def to_markdown(self) -> str:
        """The table in Markdown, as people read it."""
        return as_markdown(self.shown())

    def to_latex(self) -> str:
        """The table in LaTeX (booktabs), as people read it."""
        return as_latex(self.shown())

    def dumps(self) -> dict[str, Any]:
        """The table and all tests as plain values."""
        return {
            "baseline": self.baseline,
            "metric": self.metric,
            "unit": self.unit,
            "rows": records(self.table().rename_axis("variant")),
            "tests": records(self.tests()),
        }

    def plot(self) -> "Figure":
        """A figure: every scan's mean over classes as a dot, by variant, with the mean as a bar; needs matplotlib."""
        return draw("comparison", self)


def compare(
    sources: Iterable[Results | Any],
    baseline: str | None = None,
    *,
    metric: str = "dice",
    across_protocols: bool = False,
    progress: Progress | None = None,
    **how: Any,
) -> Comparison:
    """Puts runs side by side and tests their variants against one of them.

    Args:
        sources: Results, run directories, recipes, or recipe files; recipes are run, and stages that they share once.
        baseline: The name of a variant; the first one when omitted.
        metric: What to compare: "dice", or a metric, which is measured from the label maps of runs that have it not.
        across_protocols: Take runs of different protocols or data; their difference is then not that of the methods alone.
        progress: Follows runs, and what is measured later; silent when omitted.
        how: For recipes that are run: the arguments of `fsseg.run`.

    Raises:
        FssegError: There is nothing to compare, no such variant or metric, or the runs were not evaluated alike.

    Example:
        comparison = fsseg.compare(["recipes/table1.toml"], baseline="ADNet", runs_dir="runs")
        print(comparison.to_markdown())
    """
    progress = progress or Silent()
    listed = [sources] if isinstance(sources, str | Path | Results) else sources
    runs = [_results(source, {"progress": progress} | how) for source in listed]
    if not runs:
        raise FssegError("compare: got no runs, expected run directories or recipes")
    if not across_protocols:
        check_alike(runs)
    measured_alike = len(runs) == 1 and metric in runs[0].metrics
    if metric != "dice" and not measured_alike:
        from fsseg.analysis.later_metrics import with_metric

        runs = with_metric(runs, metric, progress)
    comparison = Comparison(runs, baseline or "", metric, progress)
    names = comparison.variants
    chosen = names[0] if baseline is None else baseline
    if chosen not in names:
        raise FssegError(
            f"compare: there is no row {chosen!r} to compare with; {nearest(chosen, names)}"
        )
    return replace(comparison, baseline=chosen)


def _results(source: Any, how: dict[str, Any]) -> Results:
    """The results of whatever was given: recipes are run."""
    if isinstance(source, Results):
        return source
    is_path = isinstance(source, str | Path)
    if is_path and Path(source).suffix != ".toml":
        return load_results(source)
    from fsseg.recipe.reading import load_recipe
    from fsseg.runs.run import run  # a comparison of finished runs needs no torch

    if not is_path:
        return run(source, **how)
    how = {"name": Path(source).stem} | how
    return run(load_recipe(source), **how)


def _verdict_with_p(test: Mapping[str, Any]) -> str:
    if test["pairs"] < FEWEST:
        return test["verdict"]
    return f"{test['verdict']} (p {p_value(test['p'])})"


def _p_alone(p: float) -> str:
    return NOTHING if math.isnan(p) else p_value(p).removeprefix("= ")
