"""What whoever follows a run hears of a finished evaluation: its scores, and its label maps where somebody asks for them."""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from fsseg.data.volume import Volume
from fsseg.evaluation.choices import Way, segmented_slices
from fsseg.evaluation.files import LABELS, label_file, read_labels, stem
from fsseg.evaluation.scores import CaseScore
from fsseg.plugins.manager import hooks
from fsseg.runs.plan import FoldPlan


def tell_of_evaluation(
    plan: FoldPlan, names: Sequence[str], folder: Path, scores: list[CaseScore]
) -> None:
    """Tells of the cases and then of the scores of each variant.

    Args:
        plan: The fold.
        names: The variants.
        folder: The folder of the finished evaluation.
        scores: Its scores.
    """
    _tell_of_cases(plan, names, folder, scores)
    for name in names:
        of_variant = [score for score in scores if score.variant == name]
        hooks().variant_evaluated(
            variant=name, fold=plan.fold.index, seed=plan.seed, scores=of_variant
        )


def _tell_of_cases(
    plan: FoldPlan, names: Sequence[str], folder: Path, scores: list[CaseScore]
) -> None:
    """Tells of each label map; reads nothing where nobody listens."""
    if not hooks().case_evaluated.get_hookimpls():
        return
    if not plan.recipe.protocol.save_labels:
        plan.progress.note("trackers are shown no label maps, as protocol.save_labels is false")
        return
    by_key = {
        (score.variant, score.case, score.class_name, score.support_case): score for score in scores
    }
    segmentations = groupby(plan.data.choices(plan.seed), attrgetter("segmentation"))
    for (case, support, classes, _), parts in segmentations:
        slices = segmented_slices(parts)
        scan = plan.data.run.scans.original[case]
        truth = _truth(scan, classes, slices)
        for name in names:
            counted = [by_key[name, case, class_name, support] for _, class_name in classes]
            file = label_file(folder / LABELS, name, stem(counted, in_turn=plan.data.in_turn))
            hooks().case_evaluated(
                variant=name,
                fold=plan.fold.index,
                seed=plan.seed,
                case=case,
                support_case=support,
                classes=dict(classes),
                image=scan.image,
                labels=_with_values(read_labels(file, scan), classes),
                truth=truth,
                spacing=scan.spacing,
            )


def _truth(scan: Volume, classes: Sequence[Way], slices: tuple[int, ...] | None) -> np.ndarray:
    """The labels of these classes in the slices that are segmented, 0 elsewhere."""
    values = [value for value, _ in classes]
    truth = np.where(np.isin(scan.marked, values), scan.marked, 0)
    if slices is not None:
        others = np.ones(len(truth), dtype=bool)
        others[list(slices)] = False
        truth[others] = 0
    return truth


def _with_values(labels: np.ndarray, classes: Sequence[Way]) -> np.ndarray:
    """A label map with the dataset's values; one of a single class has 1 for it."""
    if len(classes) > 1:
        return labels
    [(value, _)] = classes
    return np.where(labels > 0, value, 0).astype(np.uint8)
