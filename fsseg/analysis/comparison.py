"""Comparing runs: one row per score, means with their spreads, and paired tests against a baseline."""

import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsseg.errors import FssegError
from fsseg.evaluation.scores import CaseScore
from fsseg.plugins.options import nearest
from fsseg.report.figures import panels
from fsseg.runs.results import Results, load_results
from fsseg.system.progress import Progress, Silent

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas

FEWEST = 6
"""Cases below which no two-sided signed-rank test can reach 0.05."""

RESAMPLES = 10_000
"""Of the bootstrap."""

LEVEL = 0.05
"""Below which a corrected p-value counts as a difference."""


@dataclass(frozen=True)
class Comparison:
    """The scores of several runs, and how their rows differ from one of them.

    Attributes:
        runs: The runs.
        baseline: The row that the others are compared with.
        metric: What is compared: "dice", or a metric.
        progress: Follows what is measured later.
    """

    runs: list[Results]
    baseline: str
    metric: str = "dice"
    progress: Progress = field(default_factory=Silent, repr=False, compare=False)

    @cached_property
    def frame(self) -> "pandas.DataFrame":
        """One row per run, fold, seed, case, class, support and variant: what `to_csv` writes.

        Voxels `predicted`, `actual` and in both (`intersection`), `dice`, `iou`, `hd95` and `assd` in mm, `nsd`, `volume_error`
        in ml, and other metrics of the recipes; shares are in [0, 1], NaN is undefined. A variant that several runs have
        is told apart by the run's name.

        What a run did not measure is measured from its label maps when this is first asked for, and kept; where that
        cannot be (they or the scans are gone) a warning says so, and the columns are NaN.
        """
        return self._joined([_measured_if_possible(run, self.progress) for run in self.runs])

    @cached_property
    def _scores(self) -> "pandas.DataFrame":
        """The frame with what is there already."""
        return self._joined(self.runs)

    def _joined(self, runs: list[Results]) -> "pandas.DataFrame":
        import pandas

        parts = []
        for run, names, dataset in zip(runs, _distinct(runs), _datasets(runs)):
            part = run.frame.assign(dataset=dataset, run=run.path.name)
            parts.append(part.assign(variant=part["variant"].map(names)))
        first = [
            "dataset",
            "run",
            "fold",
            "seed",
            "case",
            "class_name",
            "variant",
            "support_case",
            "support_slices",
        ]
        frame = pandas.concat(parts, ignore_index=True)
        return frame[[*first, *[column for column in frame.columns if column not in first]]]

    @property
    def variants(self) -> list[str]:
        """The rows of all runs, in order."""
        return list(dict.fromkeys(self._scores["variant"]))

    @property
    def classes(self) -> list[str]:
        """The classes of the runs."""
        return list(dict.fromkeys(name for run in self.runs for name in run.classes))

    @property
    def unit(self) -> str:
        """The metric's unit; "%" where its values are shares."""
        return self.runs[0].unit(self.metric)

    @cached_property
    def cases(self) -> "pandas.DataFrame":
        """The unit of every test: a scan's value by variant, class and their mean, averaged over folds, seeds and supports.

        Rows are by variant, dataset and case. In percent for metrics that are shares; NaN where it is undefined.
        """
        factor, keys = 100 if self.unit == "%" else 1, ["variant", "dataset", "case", "class_name"]
        values = factor * self._scores.groupby(keys, sort=False)[self.metric].mean().unstack()
        values = values.reindex(columns=self.classes)
        values["mean"] = values.mean(axis=1, skipna=False)
        return values

    def table(self) -> "pandas.DataFrame":
        """A line per variant: means by class and their mean, spreads over cases, folds and seeds, and the paired test.

        Means and spreads are those of `Results.table`. Of the mean over classes: `difference` from the baseline with
        its 95 % interval (`low`, `high`), `p` corrected by Holm, and the `verdict`.
        """
        import pandas

        tables = []
        for run, names in zip(self.runs, _distinct(self.runs)):
            table = run.table(self.metric)
            tables.append(table.rename(index=names))
        means = pandas.concat(tables)
        tests = self.tests().xs("mean", level="class")
        return means.join(tests[["pairs", "difference", "low", "high", "p", "verdict"]]).reindex(
            self.variants
        )

    def tests(self) -> "pandas.DataFrame":
        """Every variant against the baseline, by class and for the mean over classes, on the scans that both have.

        Columns: `pairs`, the mean `difference` with its 95 % paired-bootstrap interval `low` to `high` (percentiles of
        10,000 resamples of the scans, seed 0), in how many pairs it is `higher`, `p_raw` of Wilcoxon's signed-rank test,
        `p` corrected by Holm over all tests of this table, and the `verdict`: "better" or "worse" where p is below 0.05, "no
        difference shown" elsewhere, "too few for a test" with fewer than six pairs. Of a metric whose best value is neither
        its lowest nor its highest (a signed error), the distances from it are compared.
        """
        import pandas

        lines, values = {}, self.cases
        if self._better == "nearer":
            values = (values - self.runs[0].facts(self.metric)["best"]).abs()
        for variant in self.variants:
            if variant == self.baseline:
                continue
            differences = values.loc[variant] - values.loc[self.baseline]
            for name in [*self.classes, "mean"]:
                lines[variant, name] = _paired(differences[name].dropna().to_numpy())
        index = pandas.MultiIndex.from_tuples(list(lines), names=["variant", "class"])
        table = pandas.DataFrame(
            list(lines.values()), index=index, columns=list(_paired(np.zeros(0)))
        )
        table["p"] = _holm(table["p_raw"].to_numpy(dtype=float))
        table["verdict"] = [self._verdict(line) for _, line in table.iterrows()]
        return table

    @property
    def notes(self) -> list[str]:
        """What a reader of the table has to know: runs whose means are over other folds or seeds than those of the first."""
        if len(self.runs) == 1:
            return []
        first, *others = self.runs
        told = [
            f"{run.path.name} has {what} {_listed(run, what)}, {first.path.name} {_listed(first, what)}: means are over what each "
            "has, differences over the scans that both have"
            for run in others
            for what in ("folds", "seeds")
            if _listed(run, what) != _listed(first, what)
        ]
        return told

    def _verdict(self, line: "pandas.Series") -> str:
        if not line["pairs"]:
            return "no scan in common"
        if line["pairs"] < FEWEST:
            return "too few for a test"
        if not line["p"] < LEVEL:
            return "no difference shown"
        return "better" if (line["difference"] > 0) == (self._better == "higher") else "worse"

    @property
    def _better(self) -> str:
        return self.runs[0].facts(self.metric)["better"]

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
        rows = json.loads(self.table().reset_index(names="variant").to_json(orient="records"))
        tests = json.loads(self.tests().reset_index().to_json(orient="records"))
        return {
            "baseline": self.baseline,
            "metric": self.metric,
            "unit": self.unit,
            "rows": rows,
            "tests": tests,
        }

    def shown(self) -> "pandas.DataFrame":
        """The table as text: a column for the difference and its interval, one for the test."""
        table = self.table()
        shown = table[[*self.classes, "mean"]].map(_number)
        for column in [column for column in table.columns if str(column).startswith("sd_")]:
            shown[f"± {column.removeprefix('sd_')}"] = table[column].map(_number)
        against = [name == self.baseline for name in table.index]
        shown[f"difference from {self.baseline}"] = [
            "–" if own else _interval(line) for own, (_, line) in zip(against, table.iterrows())
        ]
        shown["verdict"] = [
            "–"
            if own
            else line["verdict"] + (f" (p {_p(line['p'])})" if line["pairs"] >= FEWEST else "")
            for own, (_, line) in zip(against, table.iterrows())
        ]
        shown.index = self._marked(shown.index)
        shown.index.name = "variant"
        return shown

    def _marked(self, variants: Iterable[str]) -> list[str]:
        """Names of rows, those that used the ground truth with an asterisk."""
        oracles = {
            names[name]
            for run, names in zip(self.runs, _distinct(self.runs))
            for name in run.oracles
        }
        return [f"{name} *" if name in oracles else name for name in variants]

    def shown_tests(self) -> "pandas.DataFrame":
        """The tests as text, a line per variant and class."""
        tests = self.tests()
        shown = (
            tests[["pairs"]]
            .map(str)
            .set_axis([f"{variant}, {name}" for variant, name in tests.index])
        )
        shown["difference"] = [_interval(line) for _, line in tests.iterrows()]
        shown["p, corrected"] = ["–" if p != p else _p(p).removeprefix("= ") for p in tests["p"]]
        shown["verdict"] = list(tests["verdict"])
        shown.index.name = "variant, class"
        return shown

    def plot(self) -> Any:
        """A figure: every scan's mean over classes as a dot, by variant, with the mean as a bar; needs matplotlib."""
        figure, axes = panels(1.5 + 1.1 * len(self.variants), 4.2)
        for place, variant in enumerate(self.variants):
            values = self.cases.loc[variant]["mean"].dropna().to_numpy()
            beside = place + np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [place]
            axes.plot(
                beside,
                values,
                "o",
                color="tab:blue" if variant != self.baseline else "tab:gray",
                alpha=0.6,
                ms=4,
            )
            axes.hlines(
                values.mean() if len(values) else math.nan, place - 0.3, place + 0.3, color="black"
            )
        axes.set_xticks(
            range(len(self.variants)), self._marked(self.variants), rotation=30, ha="right"
        )
        axes.set_ylabel(f"{self.metric}{f', {self.unit}' if self.unit else ''}, mean over classes")
        return figure


def compare(
    sources: Iterable[Results | Any],
    baseline: str | None = None,
    *,
    metric: str = "dice",
    across_protocols: bool = False,
    progress: Progress | None = None,
    **how: Any,
) -> Comparison:
    """Puts runs side by side and tests their rows against one of them.

    Args:
        sources: Results, run directories, recipes, or recipe files; recipes are run, and stages that they share once.
        baseline: The name of a variant; the first one when omitted.
        metric: What to compare: "dice", or a metric, which is measured from the label maps of runs that have it not.
        across_protocols: Take runs of different protocols or data; their difference is then not that of the methods alone.
        progress: Follows runs, and what is measured later; silent when omitted.
        how: For recipes that are run: the arguments of `fsseg.run`.

    Raises:
        FssegError: There is nothing to compare, no such row or metric, or the runs were not evaluated alike.
    """
    progress = progress or Silent()
    listed = [sources] if isinstance(sources, str | Path | Results) else sources
    runs = [_results(source, {"progress": progress} | how) for source in listed]
    if not runs:
        raise FssegError("compare: got no runs, expected run directories or recipes")
    if not across_protocols:
        _check_alike(runs)
    runs = _all_with(runs, metric, progress)
    comparison = Comparison(runs, baseline or "", metric, progress)
    names = comparison.variants
    found = names[0] if baseline is None else baseline
    if found not in names:
        raise FssegError(
            f"compare: there is no row {found!r} to compare with; {nearest(found, names)}"
        )
    return replace(comparison, baseline=found)


LATEX = {"±": r"$\pm$", "–": "--", "<": "$<$"}
"""Characters that LaTeX has other words for."""


def as_markdown(shown: "pandas.DataFrame") -> str:
    """A table of text in Markdown: names to the left, the rest to the right."""
    return shown.to_markdown(
        disable_numparse=True, colalign=("left", *["right"] * len(shown.columns))
    )


def as_latex(shown: "pandas.DataFrame") -> str:
    """A table of text in LaTeX; needs the packages booktabs and nothing else."""
    from pandas.io.formats.style import Styler

    style = (
        Styler(shown.reset_index())
        .format(escape="latex")
        .format_index(escape="latex", axis=1)
        .hide(axis="index")
    )
    columns = "l" + "r" * len(shown.columns)
    return style.to_latex(hrules=True, column_format=columns).translate(str.maketrans(LATEX))


def _all_with(runs: list[Results], metric: str, progress: Progress) -> list[Results]:
    """The runs with this metric, which those that have it not are measured for, all in the same way.

    Raises FssegError if there is no such metric, it cannot be measured, or runs measured it with different options.
    """
    if metric == "dice" or (len(runs) == 1 and metric in runs[0].metrics):
        return runs
    from fsseg.analysis.later_metrics import with_measures
    from fsseg.plugins.manager import registry
    from fsseg.recipe.tables import ComponentTable

    known = {"dice", *registry().names("metric"), *(name for run in runs for name in run.metrics)}
    if metric not in known:
        raise FssegError(
            f"compare: there is no metric {metric!r}; {nearest(metric, sorted(known))}"
        )
    ways = {str(run.path): _metric_options(run, metric) for run in runs if metric in run.metrics}
    options = next(iter(ways.values()), {})
    if any(other != options for other in ways.values()):
        told = ", ".join(f"{path} with {other}" for path, other in ways.items())
        raise FssegError(
            f"compare: the runs measured {metric} with different options, expected the same: {told}"
        )
    return [with_measures(run, [ComponentTable(name=metric, **options)], progress) for run in runs]


def _metric_options(run: Results, metric: str) -> dict[str, Any]:
    """The options with which a run measured something, with its defaults."""
    from fsseg.plugins.manager import registry
    from fsseg.plugins.options import schema

    [table] = [table for table in run.recipe.metrics if table.name == metric]
    return schema(registry().find("metric", metric).load())(**table.options).model_dump()


def _measured_if_possible(run: Results, progress: Progress) -> Results:
    """The run with everything that a tidy table holds; what it kept where that cannot be measured, which is told."""
    from fsseg.analysis.later_metrics import MEASURES, with_measures

    try:
        return with_measures(run, progress=progress)
    except FssegError as error:
        missing = [name for name in MEASURES if name not in run.metrics]
        warnings.warn(f"{run.path.name}: {', '.join(missing)} stay empty: {error}", stacklevel=2)
        return replace(
            run, scores=[replace(one, measures=_without_voxels(one, missing)) for one in run.scores]
        )


def _without_voxels(score: CaseScore, missing: list[str]) -> dict[str, float | None]:
    """What a score has, and of what is missing that which follows from its counts."""
    united = score.predicted + score.actual - score.intersection
    counted = {"iou": score.intersection / united if united else None}
    return {name: counted.get(name) for name in missing} | score.measures


def _results(source: Any, how: dict[str, Any]) -> Results:
    if isinstance(source, Results):
        return source
    if isinstance(source, str | Path) and Path(source).suffix != ".toml":
        return load_results(source)
    from fsseg.recipe.reading import load_recipe
    from fsseg.runs.run import run  # a comparison of finished runs needs no torch

    is_file = isinstance(source, str | Path)
    recipe = load_recipe(source) if is_file else source
    return run(recipe, **({"name": Path(source).stem} if is_file else {}) | how)


def _check_alike(runs: list[Results]) -> None:
    """Refuses runs whose numbers differ by more than their methods."""
    first = runs[0]
    for run in runs[1:]:
        one, other = first.about.get("protocol_hash"), run.about.get("protocol_hash")
        if one != other:
            raise _unlike(first, run, f"protocols, folds or classes ({one} and {other})")
        data, others = first.about.get("data", {}), run.about.get("data", {})
        shared = data.keys() & others.keys()
        if not shared:
            raise _unlike(
                first, run, f"folds ({', '.join(data) or 'none'} and {', '.join(others) or 'none'})"
            )
        strange = [fold for fold in sorted(shared) if data[fold] != others[fold]]
        if strange:
            raise _unlike(first, run, f"scans or a different grid in fold {strange[0]}")


def _unlike(one: Results, other: Results, what: str) -> FssegError:
    return FssegError(
        f"compare: {one.path} and {other.path} were evaluated with different {what}, so that their difference is not that of "
        "their methods; evaluate them alike, or show them side by side with --across-protocols (across_protocols=True)"
    )


def _distinct(runs: list[Results]) -> list[dict[str, str]]:
    """For each run, what its variants are called beside those of the others."""
    count: dict[str, int] = {}
    for run in runs:
        for name in run.variants:
            count[name] = count.get(name, 0) + 1
    return [
        {name: name if count[name] == 1 else f"{name} ({run.path.name})" for name in run.variants}
        for run in runs
    ]


def _datasets(runs: list[Results]) -> list[str]:
    """For each run, what its dataset is called: another name where an earlier run has other scans under the same ones."""
    names: list[str] = []
    scans: dict[str, dict[str, str]] = {}
    for run in runs:
        name, own = run.about.get("dataset", ""), _scans(run)
        if any(scans.get(name, {}).get(case, key) != key for case, key in own.items()):
            name = f"{name} ({run.path.name})"
        scans[name] = own | scans.get(name, {})
        names.append(name)
    return names


def _scans(run: Results) -> dict[str, str]:
    """What stands for the content of each of a run's scans, by case; empty where the run does not say."""
    file = run.folder.environment
    return json.loads(file.read_text(encoding="utf-8")).get("data", {}) if file.is_file() else {}


def _listed(run: Results, what: str) -> str:
    return ", ".join(map(str, run.about.get(what, [])))


def _paired(differences: np.ndarray) -> dict[str, Any]:
    """A line of `tests`, before the correction."""
    from scipy.stats import wilcoxon

    pairs = len(differences)
    low = high = math.nan
    if pairs > 1:
        drawn = np.random.default_rng(0).integers(pairs, size=(RESAMPLES, pairs))
        low, high = np.quantile(differences[drawn].mean(axis=1), [0.025, 0.975])
    p = math.nan
    if pairs >= FEWEST:
        p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return {
        "pairs": pairs,
        "difference": float(differences.mean()) if pairs else math.nan,
        "low": float(low),
        "high": float(high),
        "higher": int((differences > 0).sum()),
        "p_raw": p,
    }


def _holm(p: np.ndarray) -> np.ndarray:
    """p-values corrected by Holm's step-down method; NaN are no tests."""
    corrected = np.full(len(p), math.nan)
    order = [place for place in np.argsort(p) if not math.isnan(p[place])]
    highest = 0.0
    for done, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - done) * p[place]))
        corrected[place] = highest
    return corrected


def _interval(line: "pandas.Series") -> str:
    """The difference and its interval, as far as there are pairs."""
    if not line["pairs"]:
        return "–"
    interval = f" [{line['low']:+.1f}, {line['high']:+.1f}]" if line["pairs"] > 1 else ""
    return f"{line['difference']:+.1f}{interval}"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
