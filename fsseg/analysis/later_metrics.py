"""What a finished run did not measure, measured later: from the label maps that it kept and the scans' own labels."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from fsseg.analysis.label_maps import Counted, of_every_score
from fsseg.data.cache import cached, content_key
from fsseg.evaluation.metrics import facts_of
from fsseg.evaluation.scores import CaseScore
from fsseg.interfaces import Metric
from fsseg.recipe.tables import ComponentTable
from fsseg.runs.identity import component_identity
from fsseg.runs.results import Results
from fsseg.system.progress import Progress, Silent

MEASURES = ("iou", "hd95", "assd", "nsd", "volume_error")
"""What stands beside Dice in a table of every score."""


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
    asked = [ComponentTable(name=one) if isinstance(one, str) else one for one in metrics]
    tables = [table for table in asked if table.name not in results.metrics]
    if not tables or not results.scores:
        return results
    built = {table.name: table.build("metric") for table in tables}
    found = cache(
        lambda: _measure(results, built, progress or Silent())
    )  # all of them in one pass over the scans
    kept_by = [results.about["data"], [_place(score) for score in results.scores]]
    columns: dict[str, np.ndarray] = {}
    for table in tables:
        key = content_key(component_identity("metric", table), *kept_by)
        columns[table.name] = cached("measures", key, lambda name=table.name: found()[name])
    scores = [
        replace(
            score,
            measures=score.measures
            | {name: _plain(values[number]) for name, values in columns.items()},
        )
        for number, score in enumerate(results.scores)
    ]
    facts = {name: facts_of(metric) for name, metric in built.items()}
    return Results(
        results.path,
        scores,
        results.classes,
        results.about | {"metrics": results.about.get("metrics", {}) | facts},
    )


def _measure(
    results: Results, metrics: Mapping[str, Metric], progress: Progress
) -> dict[str, Float[np.ndarray, "score"]]:
    """Each metric of every score, NaN where it is undefined."""

    def values(counted: Counted) -> list[float]:
        found = [
            float(metric(counted.predicted, counted.actual, counted.spacing))
            for metric in metrics.values()
        ]
        return [value if math.isfinite(value) else math.nan for value in found]

    lines = of_every_score(results, values, progress, "measures")
    return dict(zip(metrics, np.array(lines, dtype=float).T))


def _place(score: CaseScore) -> tuple[Any, ...]:
    """What tells a score from all others of its run: the variant first, the class last."""
    slices = tuple(score.support_slices)
    return (
        score.variant,
        score.fold,
        score.seed,
        score.case,
        score.support_case,
        slices,
        score.class_name,
    )


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
