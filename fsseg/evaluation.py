"""Evaluation of a fold: the slices of every query scan are segmented from the support that the protocol assigns."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from fsseg.assignments import Assignment
from fsseg.data.scans import EvaluationScan
from fsseg.metrics import count_overlap
from fsseg.ops import restore_labels
from fsseg.progress import Progress, Silent
from fsseg.protocols import Fold
from fsseg.records import CaseScore
from fsseg.segmenter import encode, encode_support, require_foreground
from fsseg.types import Prototypes, Query, Segmentation
from fsseg.variants import Variant, by_scoring

SLICES_AT_ONCE = 16
"""Slices per pass of the backbone."""


@dataclass(frozen=True)
class CaseResult:
    """A scan as one variant segmented it from one support, on the scan's own grid.

    Attributes:
        scores: The counts, one record per class.
        labels: 0 is background; a single class is 1, several have their values in the dataset.
    """

    scores: list[CaseScore]
    labels: UInt8[np.ndarray, "slice height width"]


@torch.no_grad()
def evaluate(
    backbone: nn.Module,
    variants: list[Variant],
    assignments: list[Assignment],
    scans: dict[str, EvaluationScan],
    fold: Fold,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Iterator[CaseResult]:
    """Segments what is assigned, with every variant.

    Each slice of a query passes the backbone once; prototypes are made once per support and kind of scoring.
    """
    prototypes = _all_prototypes(backbone, variants, assignments, device)
    by_query = [(case, list(group)) for case, group in groupby(assignments, lambda a: a.query_case)]
    for case, assigned in (progress or Silent()).track(by_query, "evaluation", len(by_query)):
        scan = scans[case]
        query = Query(scan.images, scan.location).to(device)
        features = encode_in_parts(backbone, query.images)
        for _, parts in groupby(assigned, lambda a: (a.support_case, a.classes)):
            parts = list(parts)
            target = _number_ways(scan.labels.to(device), parts[0])
            truth = _number_ways(scan.truth.to(device), parts[0])
            for variant in variants:
                labels = torch.zeros_like(truth, dtype=torch.uint8)
                for part in parts:
                    made = prototypes[id(part.support), variant.scoring]
                    at = slice(None) if part.query_slices is None else list(part.query_slices)
                    piece = Query(query.images[at], query.location[at])
                    # Only an oracle looks at the target; the segmenter hands it to no other policy.
                    support = part.support.to(device)
                    result = variant.segmenter.segment(support, made, piece, features[at], target[at])
                    labels[at] = _on_own_grid(result, scan)
                scores = _count(variant, parts, labels, truth, fold, seed)
                yield CaseResult(scores, _with_values(labels, parts[0]).cpu().numpy())


def encode_in_parts(
    backbone: nn.Module, images: Float[Tensor, "slice height width"]
) -> Float[Tensor, "slice channel h w"]:
    """Features of a whole scan, a few slices at a time."""
    return torch.cat([encode(backbone, part) for part in images.split(SLICES_AT_ONCE)])


def _all_prototypes(
    backbone: nn.Module, variants: list[Variant], assignments: list[Assignment], device: torch.device
) -> dict[tuple[int, str], Prototypes]:
    """Prototypes by support and kind of scoring: they depend on nothing else."""
    made = {}
    for support in {id(assignment.support): assignment.support for assignment in assignments}.values():
        require_foreground(support)
        there = support.to(device)
        features = encode_support(backbone, there)
        for scoring, group in by_scoring(variants).items():
            segmenter = group[0].segmenter
            made[id(support), scoring] = segmenter.prototypes(features, there.masks, segmenter.head.sigma)
    return made


def _number_ways(
    labels: UInt8[Tensor, "slice height width"], assignment: Assignment
) -> Int[Tensor, "slice height width"]:
    """Ground truth in the numbers of the support's ways: way k is k + 1, other classes are background."""
    numbered = torch.zeros_like(labels, dtype=torch.int64)
    for way, (value, _) in enumerate(assignment.classes):
        numbered[labels == value] = way + 1
    return numbered


def _on_own_grid(result: Segmentation, scan: EvaluationScan) -> UInt8[Tensor, "slice height width"]:
    return result.labels if scan.working.is_own else restore_labels(result.scores, scan.working)


def _count(
    variant: Variant,
    parts: list[Assignment],
    labels: UInt8[Tensor, "slice height width"],
    truth: Int[Tensor, "slice height width"],
    fold: Fold,
    seed: int,
) -> list[CaseScore]:
    """The voxel counts of each class; slices that no part segments do not count."""
    chosen = _segmented(parts, len(labels), labels.device)
    return [
        CaseScore(
            variant=variant.name,
            oracle=variant.segmenter.threshold.oracle,
            fold=fold.index,
            seed=seed,
            case=parts[0].query_case,
            class_name=name,
            support_case=parts[0].support_case,
            support_slices=tuple(number for part in parts for number in part.support_slices),
            **count_overlap((labels == way) & chosen, (truth == way) & chosen)._asdict(),
        )
        for way, (_, name) in enumerate(parts[0].classes, start=1)
    ]


def _segmented(parts: list[Assignment], slices: int, device: torch.device) -> Bool[Tensor, "slice 1 1"]:
    chosen = torch.zeros(slices, 1, 1, dtype=torch.bool, device=device)
    for part in parts:
        chosen[slice(None) if part.query_slices is None else list(part.query_slices)] = True
    return chosen


def _with_values(
    labels: UInt8[Tensor, "slice height width"], assignment: Assignment
) -> UInt8[Tensor, "slice height width"]:
    """Ways as the dataset's class values; a single way stays 1."""
    if len(assignment.classes) == 1:
        return labels
    values = labels.new_tensor([0, *(value for value, _ in assignment.classes)])
    return values[labels.long()]
