"""The label maps that a finished run kept, beside the scans' own labels: what each score counted, voxel by voxel."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Shaped

from fsseg.data.datasets.nifti import read_nifti
from fsseg.data.volume import Volume
from fsseg.errors import FssegError
from fsseg.evaluation.choices import Choice
from fsseg.evaluation.files import label_file
from fsseg.evaluation.scores import CaseScore
from fsseg.runs.data import RunData
from fsseg.runs.results import Results
from fsseg.system.parallel import at_once
from fsseg.system.progress import Progress, Silent

Made = TypeVar("Made")


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
        scores: The scores that were counted in it, by the value of their class in the ground truth.
        slices: The slices that were segmented; None for all.
    """

    file: Path
    scores: dict[int, CaseScore]
    slices: tuple[int, ...] | None


def of_every_score(
    results: Results,
    make: Callable[[Counted], Made],
    progress: Progress | None = None,
    what: str = "label maps",
) -> list[Made]:
    """What is made of the voxels of each score of a finished run, in the order of its scores.

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
            f"{results.path}: it kept no label maps (protocol.save_labels = false), expected them to look at its voxels; run "
            "the recipe again with protocol.save_labels = true, which takes its trainings as they are"
        )
    data = RunData(results.recipe, progress or Silent())
    data.require_evaluated(results.about["data"], results.path)
    by_case: dict[str, list[_LabelMap]] = {}
    for case, found in _label_maps(results, data):
        by_case.setdefault(case, []).append(found)

    def of_case(case: str) -> list[tuple[CaseScore, Made]]:
        own = data.scans.original[case]
        return [
            (counted.score, make(counted))
            for one in by_case[case]
            for counted in _counted(one, own)
        ]

    made = {}
    for pairs in at_once(of_case, list(by_case), progress or Silent(), what):
        made |= {_place(score): one for score, one in pairs}
    return [made[_place(score)] for score in results.scores]


def _label_maps(results: Results, data: RunData) -> Iterator[tuple[str, _LabelMap]]:
    """The label maps of a run, with their cases: one for each variant and segmentation that the protocol asks for."""
    scores = {_place(score): score for score in results.scores}
    seeds = results.about["seeds"]
    for seed in seeds:
        for fold in data.folds:
            folder = results.folder.fold(seed, fold.index).labels
            # As in the evaluation: the parts of one segmentation follow each other.
            together = attrgetter("query_case", "support_case", "classes", "turn")
            for (case, support, classes, _), parts in groupby(
                data.of(fold).choices(seed), together
            ):
                slices = _slices(parts)
                for variant in results.variants:
                    own = {
                        value: scores[variant, fold.index, seed, case, name, support]
                        for value, name in classes
                    }
                    file = label_file(
                        folder, list(own.values()), in_turn=data.setup.support == "each"
                    )
                    yield case, _LabelMap(file, own, slices)


def _place(score: CaseScore) -> tuple[str, int, int, str, str, str]:
    """What tells a score from all others of its run."""
    return score.variant, score.fold, score.seed, score.case, score.class_name, score.support_case


def _slices(parts: Iterable[Choice]) -> tuple[int, ...] | None:
    """The slices that any part of a segmentation segments; None for all."""
    found = [part.query_slices for part in parts]
    return None if None in found else tuple(number for numbers in found for number in numbers)


def _counted(one: _LabelMap, own: Volume) -> Iterator[Counted]:
    """What the scores of a label map counted; raises FssegError where it is not the map that they were counted in."""
    labels, chosen = _read(one.file, own), np.zeros((len(own.image), 1, 1), dtype=bool)
    chosen[slice(None) if one.slices is None else list(one.slices)] = True
    for value, score in one.scores.items():
        # A single class is 1 in a label map, several have their values in the dataset.
        predicted = (labels == (value if len(one.scores) > 1 else 1)) & chosen
        actual = (own.labels == value) & chosen
        _require_counted(one.file, score, predicted, actual)
        yield Counted(score, predicted, actual, own.spacing)


def _read(file: Path, own: Volume) -> Shaped[np.ndarray, "slice height width"]:
    """A label map, slices first, as far as the volume reaches."""
    if not file.is_file():
        raise FssegError(
            f"{file}: there is no label map, expected the one that the run kept; put it back, or run the recipe again with "
            "--fresh"
        )
    labels = own.grid.from_file(read_nifti(file).voxels)[
        tuple(slice(length) for length in own.image.shape)
    ]
    if labels.shape != own.image.shape:
        raise FssegError(
            f"{file}: has {_told(labels.shape)} voxels, expected {_told(own.image.shape)} like its scan; it was changed since "
            "the run, put it back, or run the recipe again with --fresh"
        )
    return labels


def _require_counted(
    file: Path,
    score: CaseScore,
    predicted: Bool[np.ndarray, "slice height width"],
    actual: Bool[np.ndarray, "slice height width"],
) -> None:
    """Raises FssegError for a label map that is not the one that was counted."""
    counts = int((predicted & actual).sum()), int(predicted.sum()), int(actual.sum())
    if counts != (score.intersection, score.predicted, score.actual):
        raise FssegError(
            f"{file}: has {counts[1]} voxels of {score.class_name}, {counts[0]} of them right, expected {score.predicted} and "
            f"{score.intersection} as the run counted; it was changed since, put it back, or run the recipe again with --fresh"
        )


def _told(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
