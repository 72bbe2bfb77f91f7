"""Evaluation of a fold: the slices of every query scan are segmented from the supports that the protocol assigns."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from fsseg.data.folds import Fold
from fsseg.evaluation.assignments import Assignment, Task, tasks_of
from fsseg.evaluation.choices import Way
from fsseg.evaluation.features import SliceFeatures, SupportPrototypes
from fsseg.evaluation.metrics import Counts, asks_for_probabilities, count_overlaps, value_of
from fsseg.evaluation.scans import EvaluationScan
from fsseg.evaluation.scores import CaseScore
from fsseg.evaluation.segmentation import Decisions, QuerySegmentation
from fsseg.interfaces import Backbone, Metric
from fsseg.model.variants import Variant
from fsseg.system.progress import Progress, Silent


@dataclass(frozen=True)
class CaseResult:
    """A scan as one variant segmented it from one support, on the scan's own grid.

    Attributes:
        scores: The counts, one record per class.
        labels: 0 is background; a single class is 1, several have their values in the dataset.
        decisions: The margins and priors that decided it.
    """

    scores: list[CaseScore]
    labels: UInt8[np.ndarray, "slice height width"]
    decisions: Decisions


@torch.no_grad()
def evaluate(
    backbone: Backbone,
    variants: list[Variant],
    assignments: list[Assignment],
    scans: Mapping[str, EvaluationScan],
    fold: Fold,
    *,
    seed: int,
    device: torch.device,
    metrics: Mapping[str, Metric] | None = None,
    progress: Progress | None = None,
) -> Iterator[CaseResult]:
    """Segments what is assigned, with every variant, and counts voxels.

    Each distinct slice passes the backbone once. Prototypes are made once per support and kind of
    scoring, and logits once per query and kind of scoring, whatever the number of thresholds that
    decide on them.

    Args:
        backbone: The trained backbone, which the variants share.
        variants: The variants.
        assignments: The fold's assignments, by query.
        scans: The scans of supports and queries by case.
        fold: The fold, for the records.
        seed: The run's seed, for the records.
        device: Where to compute.
        metrics: Metrics that are measured beside the counts, by their names.
        progress: Follows the queries.

    Yields:
        For each query, task and variant the result, in this order.

    Raises:
        DataError: A support's mask has no foreground.
    """
    features = SliceFeatures(backbone, scans, assignments, device)
    prototypes = SupportPrototypes(features, variants, assignments, device)
    by_query = _tasks_by_query(assignments)
    progress = progress or Silent()
    metrics = metrics or {}
    probabilities = any(asks_for_probabilities(metric) for metric in metrics.values())
    for case in progress.track(by_query, "evaluation", len(by_query)):
        tasks = by_query[case]
        query = features.of_query(scans[case], tasks)
        for task in tasks:
            segmentation = QuerySegmentation(
                task, query, variants, prototypes, probabilities=probabilities
            )
            yield from _results(segmentation, variants, metrics, fold, seed)


def _tasks_by_query(assignments: Sequence[Assignment]) -> dict[str, list[Task]]:
    of_query: dict[str, list[Assignment]] = {}
    for assignment in assignments:
        of_query.setdefault(assignment.query_case, []).append(assignment)
    return {case: tasks_of(group) for case, group in of_query.items()}


def _results(
    segmentation: QuerySegmentation,
    variants: Sequence[Variant],
    metrics: Mapping[str, Metric],
    fold: Fold,
    seed: int,
) -> Iterator[CaseResult]:
    """The variants' results on one task."""
    task = segmentation.task
    truth = segmentation.truth
    counts = _count(segmentation.labels, truth)
    decisions = segmentation.decisions()
    for variant in variants:
        labels = segmentation.labels[variant.name]
        scores = []
        for way, (_, class_name) in enumerate(task.classes):
            predicted = labels == way + 1
            probability = None
            if variant.name in segmentation.probabilities:
                probability = segmentation.probabilities[variant.name][way]
            measures = _measure(metrics, predicted, truth[way], segmentation.spacing, probability)
            score = CaseScore(
                variant=variant.name,
                oracle=variant.segmenter.threshold.oracle,
                fold=fold.index,
                seed=seed,
                case=task.query_case,
                class_name=class_name,
                support_case=task.support_case,
                support_slices=task.support_slices,
                measures=measures,
                **counts[variant.name][way]._asdict(),
            )
            scores.append(score)
        with_values = _with_values(labels, task.classes)
        on_host = with_values.cpu().numpy()
        yield CaseResult(scores, on_host, decisions[variant.name])


def _count(
    labels: Mapping[str, UInt8[Tensor, "slice height width"]],
    truth: Sequence[Bool[Tensor, "slice height width"]],
) -> dict[str, list[Counts]]:
    """By variant, the voxel counts of each way; the host waits once for all of them."""

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for of_variant in labels.values():
            for way, actual in enumerate(truth, start=1):
                yield of_variant == way, actual

    counts = iter(count_overlaps(pairs()))
    return {variant: [next(counts) for _ in truth] for variant in labels}


def _measure(
    metrics: Mapping[str, Metric],
    predicted: Bool[Tensor, "slice height width"],
    actual: Bool[Tensor, "slice height width"],
    spacing: tuple[float, float, float],
    probability: Float[np.ndarray, "slice height width"] | None,
) -> dict[str, float | None]:
    """The values of the metrics; None where one is not defined."""
    if not metrics:
        return {}
    prediction = predicted.cpu().numpy()
    truth = actual.cpu().numpy()
    values = {}
    for name, metric in metrics.items():
        value = value_of(metric, prediction, truth, spacing, probability)
        values[name] = value if math.isfinite(value) else None
    return values


def _with_values(
    labels: UInt8[Tensor, "slice height width"],
    classes: Sequence[Way],
) -> UInt8[Tensor, "slice height width"]:
    """Ways as the dataset's class values; a single way stays 1."""
    if len(classes) == 1:
        return labels
    values = [value for value, _ in classes]
    by_way = labels.new_tensor([0, *values])
    return by_way[labels.long()]
