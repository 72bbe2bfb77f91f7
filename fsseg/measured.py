"""What a finished run did not measure, measured later: from the label maps that it kept and the scans' own labels."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Bool, Float, Integer

from fsseg.data.cache import cached, content_key
from fsseg.errors import FssegError
from fsseg.fold_run import LABELS
from fsseg.interfaces import Metric
from fsseg.measures import facts_of
from fsseg.progress import Progress, Silent
from fsseg.recipe import ComponentTable
from fsseg.records import CaseScore
from fsseg.results import Results
from fsseg.run_data import RunData, at_once
from fsseg.stages import component_identity
from fsseg.volumes import Volume

MEASURES = ("iou", "hd95", "assd", "nsd", "volume_error")
"""What stands beside Dice in a table of every score."""


def with_measures(
    results: Results, metrics: Iterable[ComponentTable | str] = MEASURES, progress: Progress | None = None
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
    found = cache(lambda: _measure(results, built, progress or Silent()))  # all of them in one pass over the scans
    kept_by = [results.about["data"], [_place(score) for score in results.scores]]
    columns: dict[str, np.ndarray] = {}
    for table in tables:
        key = content_key(component_identity("metric", table.name, table.options), *kept_by)
        columns[table.name] = cached("measures", key, lambda name=table.name: found()[name])
    scores = [
        replace(score, measures=score.measures | {name: _plain(values[number]) for name, values in columns.items()})
        for number, score in enumerate(results.scores)
    ]
    facts = {name: facts_of(metric) for name, metric in built.items()}
    return Results(
        results.path,
        scores,
        results.classes,
        results.about | {"metrics": results.about.get("metrics", {}) | facts},
    )


@dataclass(frozen=True)
class _LabelMap:
    """A label map of a run.

    Attributes:
        file: Its file.
        scores: The scores that were counted in it, by their number in the run.
        values: What the class of each of them is called there.
        slices: The slices that were segmented and counted; None for all.
    """

    file: Path
    scores: dict[int, CaseScore]
    values: list[int]
    slices: tuple[int, ...] | None


def _measure(
    results: Results, metrics: Mapping[str, Metric], progress: Progress
) -> dict[str, Float[np.ndarray, "score"]]:
    """Each metric of every score, NaN where it is undefined."""
    data = RunData(results.recipe, progress)
    data.require_evaluated(results.about["data"], results.path)
    by_case = _label_maps(results, data)
    values = {name: np.full(len(results.scores), math.nan) for name in metrics}
    numbers = {name: value for value, name in data.classes.items()}

    def of_case(case: str) -> list[tuple[int, dict[str, float]]]:
        own = data.own[case]
        return [line for one in by_case[case] for line in _of_map(one, own, numbers, metrics)]

    for lines in at_once(of_case, list(by_case), progress, "measures"):
        for number, line in lines:
            for name, value in line.items():
                values[name][number] = value if math.isfinite(value) else math.nan
    return values


def _label_maps(results: Results, data: RunData) -> dict[str, list[_LabelMap]]:
    """The label maps of a run, by case."""
    together = data.protocol.together
    numbers = {name: value for value, name in data.classes.items()}
    segmented = _segmented_slices(results, data)
    groups: dict[tuple, dict[int, CaseScore]] = {}
    for number, score in enumerate(results.scores):
        place = _place(score)
        groups.setdefault(place[:-1] if together else place, {})[number] = score
    found: dict[str, list[_LabelMap]] = {}
    for scores in groups.values():
        first = next(iter(scores.values()))
        home = results.path if len(results.about["seeds"]) == 1 else results.path / f"seed{first.seed}"
        folder = home / f"fold{first.fold}" / LABELS
        values = [numbers[score.class_name] if len(scores) > 1 else 1 for score in scores.values()]
        file = folder / _file_name(list(scores.values()), in_turn=data.support == "each")
        found.setdefault(first.case, []).append(_LabelMap(file, scores, values, segmented[_place(first)[1:]]))
    return found


def _place(score: CaseScore) -> tuple[Any, ...]:
    """What tells a score from all others of its run: the variant first, the class last."""
    slices = tuple(score.support_slices)
    return score.variant, score.fold, score.seed, score.case, score.support_case, slices, score.class_name


def _segmented_slices(results: Results, data: RunData) -> dict[tuple, tuple[int, ...] | None]:
    """By `_place` without the variant, the slices of the query that were segmented; None for all."""
    parts: dict[tuple, list] = {}
    for seed in results.about["seeds"]:
        for fold in data.folds:
            for choice in data.choices(fold, seed):
                for _, name in choice.classes:
                    key = fold.index, seed, choice.query_case, choice.support_case, name
                    parts.setdefault(key, []).append(choice)
    found = {}
    for (fold, seed, query, support, name), choices in parts.items():
        supports = tuple(number for choice in choices for number in choice.support_slices)
        whole = any(choice.query_slices is None for choice in choices)
        slices = None if whole else tuple(number for choice in choices for number in choice.query_slices or ())
        found[fold, seed, query, support, supports, name] = slices
    return found


def _file_name(scores: list[CaseScore], *, in_turn: bool) -> Path:
    """Where a run's folder of label maps has that of these scores, as `label_maps.write_labels` names it."""
    first, single = scores[0], len(scores) == 1
    folder = "".join(letter if letter.isalnum() else "_" for letter in first.variant).strip("_")
    parts = [first.case, *([first.class_name] if single else [])]
    parts += [f"from_{first.support_case}"] if in_turn or not single else []
    return Path(folder) / f"{'_'.join(parts)}.nii.gz"


def _of_map(
    one: _LabelMap, own: Volume, numbers: Mapping[str, int], metrics: Mapping[str, Metric]
) -> list[tuple[int, dict[str, float]]]:
    """The number of each score of a label map, with its values by metric."""
    labels, chosen = _read(one.file, own), np.zeros(len(own.image), dtype=bool)
    chosen[slice(None) if one.slices is None else list(one.slices)] = True
    lines = []
    for value, (number, score) in zip(one.values, one.scores.items()):
        predicted = labels == value
        actual = (own.labels == numbers[score.class_name]) & chosen[:, None, None]
        _require_counted(one.file, score, predicted, actual)
        lines.append(
            (number, {name: float(metric(predicted, actual, own.spacing)) for name, metric in metrics.items()})
        )
    return lines


def _read(file: Path, own: Volume) -> Integer[np.ndarray, "slice height width"]:
    """A label map, slices first, as far as the volume reaches."""
    if not file.is_file():
        raise FssegError(
            f"{file}: there is no label map, expected it for distances that the run did not measure; run the recipe again "
            "with protocol.save_labels, or with these metrics"
        )
    labels = own.grid.from_file(np.asanyarray(nibabel.load(file).dataobj))
    return labels[tuple(slice(length) for length in own.image.shape)]


def _require_counted(
    file: Path,
    score: CaseScore,
    predicted: Bool[np.ndarray, "slice height width"],
    actual: Bool[np.ndarray, "slice height width"],
) -> None:
    """Raises FssegError for a label map that is not the one that was counted."""
    counts = int((predicted & actual).sum()), int(predicted.sum()), int(actual.sum())
    expected = score.intersection, score.predicted, score.actual
    if counts != expected:
        raise FssegError(
            f"{file}: has {counts[1]} voxels of {score.class_name}, {counts[0]} of them right, expected {expected[1]} and "
            f"{expected[0]} as the run counted; it was changed since, run the recipe again"
        )


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
