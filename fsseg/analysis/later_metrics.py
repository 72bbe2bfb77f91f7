"""Metrics that a finished run did not measure, from the label maps that it kept and the scans' own labels."""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from fsseg.analysis.label_maps import Counted, of_every_score
from fsseg.data.cache import cached, content_key
from fsseg.errors import FssegError
from fsseg.evaluation.metrics import asks_for_probabilities, facts_of
from fsseg.evaluation.scores import CaseScore
from fsseg.interfaces import Metric
from fsseg.plugins.blame import described
from fsseg.plugins.manager import registry
from fsseg.plugins.options import nearest, schema
from fsseg.recipe.tables import ComponentTable
from fsseg.runs.identity import component_identity
from fsseg.runs.results import Results
from fsseg.system.progress import Progress, Silent

MEASURES = ("iou", "hd95", "assd", "nsd", "volume_error")
"""The metrics that stand beside Dice in a table of every score."""


def with_measures(
    results: Results,
    metrics: Iterable[ComponentTable | str] = MEASURES,
    progress: Progress | None = None,
) -> Results:
    """The results with these metrics, as if the recipe had asked for them; what the run measured stays as it is.

    What was measured once is kept in the user's cache folder, so that neither scans nor label maps are needed again.

    Args:
        results: A finished run.
        metrics: Names of metrics, or tables with their options.
        progress: Follows the scans.

    Raises:
        FssegError: There is no such metric, or the label maps or scans are not there any more or not what was counted.
    """
    tables = []
    for metric in metrics:
        table = ComponentTable(name=metric) if isinstance(metric, str) else metric
        if table.name not in results.metrics:
            tables.append(table)
    if not tables or not results.scores:
        return results
    built = {table.name: table.build("metric") for table in tables}
    for name, metric in built.items():
        if asks_for_probabilities(metric):
            raise FssegError(
                f"{results.path}: {described('metric', metric)} asks for probabilities, of which a run keeps none, expected "
                f'metrics of label maps; add "{name}" to the metrics of the recipe and run it again, which takes its '
                "trainings as they are"
            )

    @cache
    def measured() -> dict[str, np.ndarray]:
        """All of them in one pass over the scans, if any is not kept."""
        return _measure(results, built, progress or Silent())

    keys = [_key(score) for score in results.scores]
    columns: dict[str, np.ndarray] = {}
    for table in tables:
        identity = component_identity("metric", table)
        key = content_key(identity, results.about["data"], keys)

        def column(name: str = table.name) -> np.ndarray:
            return measured()[name]

        columns[table.name] = cached("measures", key, column)
    scores = []
    for index, score in enumerate(results.scores):
        measures = dict(score.measures)
        for name, values in columns.items():
            measures[name] = _plain(values[index])
        scores.append(replace(score, measures=measures))
    facts = dict(results.about.get("metrics", {}))
    for name, metric in built.items():
        facts[name] = facts_of(metric)
    about = results.about | {"metrics": facts}
    return replace(results, scores=scores, about=about)


def with_measures_if_possible(results: Results, progress: Progress) -> Results:
    """The results with everything that a table of every score holds.

    Where that cannot be measured a warning says why, and what follows from the counts of the scores is all that is added.
    """
    try:
        return with_measures(results, progress=progress)
    except FssegError as error:
        missing = [name for name in MEASURES if name not in results.metrics]
        empty = ", ".join(missing)
        warnings.warn(f"{results.path.name}: {empty} stay empty: {error}", stacklevel=2)
        scores = []
        for score in results.scores:
            unknown: dict[str, float | None] = dict.fromkeys(missing)
            if "iou" in unknown:
                unknown["iou"] = _iou(score)
            scores.append(replace(score, measures=unknown | score.measures))
        return replace(results, scores=scores)


def with_metric(
    runs: list[Results],
    metric: str,
    progress: Progress,
) -> list[Results]:
    """The runs with this metric, which those that have it not are measured for, all in the same way.

    Raises:
        FssegError: There is no such metric, it cannot be measured, or runs measured it with different options.
    """
    measured = {name for run in runs for name in run.metrics}
    known = {"dice", *registry().names("metric"), *measured}
    if metric not in known:
        raise FssegError(
            f"compare: there is no metric {metric!r}; {nearest(metric, sorted(known))}"
        )
    having = [run for run in runs if metric in run.metrics]
    options = [_options(run, metric) for run in having]
    if any(other != options[0] for other in options):
        each = [f"{run.path} with {other}" for run, other in zip(having, options)]
        raise FssegError(
            f"compare: the runs measured {metric} with different options, expected the same: "
            f"{', '.join(each)}"
        )
    chosen = options[0] if options else {}
    table = ComponentTable(name=metric, **chosen)
    return [with_measures(run, [table], progress) for run in runs]


def _options(run: Results, metric: str) -> dict[str, Any]:
    """The options with which a run measured something, with its defaults."""
    tables = {table.name: table for table in run.recipe.metrics}
    component = registry().find("metric", metric).load()
    return schema(component)(**tables[metric].options).model_dump()


def _measure(
    results: Results, metrics: Mapping[str, Metric], progress: Progress
) -> dict[str, Float[np.ndarray, "score"]]:
    """Each metric of every score, NaN where it is undefined."""

    def values_of(counted: Counted) -> list[float]:
        voxels = (counted.predicted, counted.actual, counted.spacing)
        values = [float(metric(*voxels)) for metric in metrics.values()]
        return [value if math.isfinite(value) else math.nan for value in values]

    lines = of_every_score(results, values_of, progress, "measures")
    columns = np.array(lines, dtype=float).T
    return dict(zip(metrics, columns))


def _key(score: CaseScore) -> tuple[Any, ...]:
    """The key of a score within its run: the variant first, the class last."""
    case = (score.variant, score.fold, score.seed, score.case)
    support = (score.support_case, tuple(score.support_slices))
    return (*case, *support, score.class_name)


def _iou(score: CaseScore) -> float | None:
    united = score.predicted + score.actual - score.intersection
    return score.intersection / united if united else None


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
