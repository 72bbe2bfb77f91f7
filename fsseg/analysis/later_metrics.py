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
from fsseg.evaluation.metrics import facts_of
from fsseg.evaluation.scores import CaseScore
from fsseg.interfaces import Metric
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
    wanted = [ComponentTable(name=one) if isinstance(one, str) else one for one in metrics]
    tables = [table for table in wanted if table.name not in results.metrics]
    if not tables or not results.scores:
        return results
    built = {table.name: table.build("metric") for table in tables}

    @cache
    def measured() -> dict[str, np.ndarray]:
        """All of them in one pass over the scans, if any is not kept."""
        return _measure(results, built, progress or Silent())

    depends_on = [results.about["data"], [_segmentation(score) for score in results.scores]]
    columns: dict[str, np.ndarray] = {}
    for table in tables:
        identity = component_identity("metric", table)
        key = content_key(identity, *depends_on)
        columns[table.name] = cached("measures", key, lambda name=table.name: measured()[name])
    scores = []
    for index, score in enumerate(results.scores):
        values = {name: _plain(column[index]) for name, column in columns.items()}
        scores.append(replace(score, measures=score.measures | values))
    facts = {name: facts_of(metric) for name, metric in built.items()}
    about = results.about | {"metrics": results.about.get("metrics", {}) | facts}
    return Results(results.path, scores, results.classes, about)


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


def with_metric(runs: list[Results], metric: str, progress: Progress) -> list[Results]:
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
    options_by_run = {run.path: _options(run, metric) for run in runs if metric in run.metrics}
    options = next(iter(options_by_run.values()), {})
    if any(other != options for other in options_by_run.values()):
        each = ", ".join(f"{path} with {other}" for path, other in options_by_run.items())
        raise FssegError(
            f"compare: the runs measured {metric} with different options, expected the same: {each}"
        )
    table = ComponentTable(name=metric, **options)
    return [with_measures(run, [table], progress) for run in runs]


def _options(run: Results, metric: str) -> dict[str, Any]:
    """The options with which a run measured something, with its defaults."""
    [table] = [table for table in run.recipe.metrics if table.name == metric]
    component = registry().find("metric", metric).load()
    return schema(component)(**table.options).model_dump()


def _measure(
    results: Results, metrics: Mapping[str, Metric], progress: Progress
) -> dict[str, Float[np.ndarray, "score"]]:
    """Each metric of every score, NaN where it is undefined."""

    def values_of(counted: Counted) -> list[float]:
        voxels = (counted.predicted, counted.actual, counted.spacing)
        values = [float(metric(*voxels)) for metric in metrics.values()]
        return [value if math.isfinite(value) else math.nan for value in values]

    lines = of_every_score(results, values_of, progress, "measures")
    return dict(zip(metrics, np.array(lines, dtype=float).T))


def _segmentation(score: CaseScore) -> tuple[Any, ...]:
    """The key of a score within its run: the variant first, the class last."""
    slices = tuple(score.support_slices)
    support = (score.support_case, slices)
    return (score.variant, score.fold, score.seed, score.case, *support, score.class_name)


def _iou(score: CaseScore) -> float | None:
    united = score.predicted + score.actual - score.intersection
    return score.intersection / united if united else None


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
