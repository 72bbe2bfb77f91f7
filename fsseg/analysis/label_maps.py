"""The label maps that a finished run kept, beside the scans' own labels: what each score counted, voxel by voxel."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool

from fsseg.data.volume import Volume
from fsseg.errors import FssegError
from fsseg.evaluation.choices import segmented_slices
from fsseg.evaluation.files import (
    earlier_label_file,
    earlier_row_folder,
    label_file,
    read_labels,
    stem,
)
from fsseg.evaluation.scores import CaseScore
from fsseg.runs.data import RunData
from fsseg.runs.results import Results
from fsseg.system.parallel import at_once
from fsseg.system.progress import Progress, Silent

Made = TypeVar("Made")

Key = tuple[str, int, int, str, str, str]
"""Variant, fold, seed, case, class and support case of a score."""


@dataclass(frozen=True)
class Counted:
    """The voxels that a score counted, on the scan's own grid; slices that the protocol does not segment are empty in both.

    Attributes:
        score: The score.
        predicted: What was predicted as the class.
        actual: What is the class.
        spacing: Voxel size in mm along (slice, height, width).
    """

    score: CaseScore
    predicted: Bool[np.ndarray, "slice height width"]
    actual: Bool[np.ndarray, "slice height width"]
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class _LabelMap:
    """A label map of a run.

    Attributes:
        file: Its file.
        case: The scan.
        scores: The scores that were counted in it, by the value of their class in the ground truth.
        slices: The slices that were segmented; None for all.
    """

    file: Path
    case: str
    scores: dict[int, CaseScore]
    slices: tuple[int, ...] | None


def of_every_score(
    results: Results,
    make: Callable[[Counted], Made],
    progress: Progress | None = None,
    what: str = "label maps",
) -> list[Made]:
    """Makes something of the voxels of each score of a finished run, in the order of its scores.

    Args:
        results: The run.
        make: Makes it; several threads call it at a time.
        progress: Follows the scans.
        what: What to call this there.

    Raises:
        FssegError: The run kept no label maps, or they or the scans are not there any more or not what was counted.
    """
    if not results.recipe.protocol.save_labels:
        raise FssegError(
            f"{results.path}: it kept no label maps (protocol.save_labels = false), expected them to "
            "look at its voxels; run the recipe again with protocol.save_labels = true, which takes "
            "its trainings as they are"
        )
    progress = progress or Silent()
    data = RunData(results.recipe, progress)
    data.require_evaluated(results.about["data"], results.path)
    by_case: dict[str, list[_LabelMap]] = {}
    for label_map in _label_maps(results, data):
        by_case.setdefault(label_map.case, []).append(label_map)

    def of_case(case: str) -> dict[Key, Made]:
        scan = data.scans.original[case]
        made = {}
        for label_map in by_case[case]:
            for counted in _counted(label_map, scan):
                made[_key(counted.score)] = make(counted)
        return made

    made: dict[Key, Made] = {}
    for of_one in at_once(of_case, list(by_case), progress, what):
        made |= of_one
    return [made[_key(score)] for score in results.scores]


def _label_maps(results: Results, data: RunData) -> Iterator[_LabelMap]:
    """The label maps of a run: one for each variant and segmentation that the protocol asks for."""
    scores = {_key(score): score for score in results.scores}
    for seed in results.about["seeds"]:
        for fold in data.folds:
            of_fold = data.of(fold)
            folder = results.folder.fold(seed, fold.index).labels
            # As in the evaluation: the parts of one segmentation follow each other.
            segmentations = groupby(of_fold.choices(seed), attrgetter("segmentation"))
            for (case, support, classes, _), parts in segmentations:
                slices = segmented_slices(parts)
                for variant in results.variants:
                    counted = {}
                    for value, name in classes:
                        key = (variant, fold.index, seed, case, name, support)
                        if key not in scores:
                            raise FssegError(
                                f"{results.path}: {data.setup.origin} segments {name} of case {case} from case {support} "
                                "now, of which the run has no score, expected the choices that were counted; run it with "
                                "the protocol as it was, or run the recipe again"
                            )
                        counted[value] = scores[key]
                    file = _file_of(folder, list(counted.values()), results, of_fold.in_turn)
                    yield _LabelMap(file, case, counted, slices)


def _file_of(folder: Path, scores: list[CaseScore], results: Results, in_turn: bool) -> Path:
    """The label map of these scores, also where an earlier version named it."""
    variant = scores[0].variant
    file = label_file(folder, variant, stem(scores, in_turn=in_turn))
    if file.is_file():
        return file
    earlier = earlier_label_file(folder, scores, in_turn=in_turn)
    if not earlier.is_file():
        return file
    row = earlier_row_folder(variant)
    sharing = [other for other in results.variants if earlier_row_folder(other) == row]
    if len(sharing) > 1:
        raise FssegError(
            f"{earlier.parent}: holds the label maps of one of {', '.join(map(repr, sharing))}, which an earlier "
            "version wrote over each other, expected a folder for each; run the recipe again with --fresh"
        )
    return earlier


def _key(score: CaseScore) -> Key:
    """The key of a score within its run."""
    return score.variant, score.fold, score.seed, score.case, score.class_name, score.support_case


def _counted(label_map: _LabelMap, scan: Volume) -> Iterator[Counted]:
    """The voxels that the scores of a label map counted; raises FssegError where it is not the map of the run."""
    labels = read_labels(label_map.file, scan)
    segmented = np.zeros((len(scan.image), 1, 1), dtype=bool)
    segmented[slice(None) if label_map.slices is None else list(label_map.slices)] = True
    several = len(label_map.scores) > 1
    for value, score in label_map.scores.items():
        # A single class is 1 in a label map, several have their values in the dataset.
        predicted = (labels == (value if several else 1)) & segmented
        actual = (scan.labels == value) & segmented
        _require_counted(label_map.file, score, predicted, actual)
        yield Counted(score, predicted, actual, scan.spacing)


def _require_counted(
    file: Path,
    score: CaseScore,
    predicted: Bool[np.ndarray, "slice height width"],
    actual: Bool[np.ndarray, "slice height width"],
) -> None:
    """Raises FssegError for a label map that is not the one that was counted."""
    right = int((predicted & actual).sum())
    voxels = int(predicted.sum())
    expected = (score.intersection, score.predicted, score.actual)
    if (right, voxels, int(actual.sum())) != expected:
        raise FssegError(
            f"{file}: has {voxels} voxels of {score.class_name}, {right} of them right, expected "
            f"{score.predicted} and {score.intersection} as the run counted; it was changed since, put "
            "it back, or run the recipe again with --fresh"
        )
