"""Evaluation of a fold: the slices of every query scan are segmented from the support that the protocol assigns."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from fsseg.data.folds import Fold
from fsseg.evaluation.assignments import Assignment
from fsseg.evaluation.metrics import Counts, count_overlaps
from fsseg.evaluation.scans import EvaluationScan
from fsseg.evaluation.scores import CaseScore
from fsseg.interfaces import Metric
from fsseg.model.ops import per_way, restore_labels
from fsseg.model.segmenter import encode_in_parts, require_foreground, room_for
from fsseg.model.variants import Variant, by_scoring
from fsseg.system.progress import Progress, Silent
from fsseg.types import Prototypes, Query, Segmentation


@dataclass(frozen=True)
class Decisions:
    """What decided the slices of a scan, so that they can be decided again under other priors.

    Attributes:
        scoring: What made the margins: prototypes and head, which variants share; or a variant's own refiners.
        slices: The numbers of the slices.
        margins: Each way's logit minus the background's, at feature resolution and an even prior; refined ones are what
            refiners made of those under the threshold's prior.
        priors: Log-odds of the prior that the threshold chose; 0 where the margins are refined.
    """

    scoring: str
    slices: Int[np.ndarray, "slice"]
    margins: Float[np.ndarray, "slice way h w"]
    priors: Float[np.ndarray, "slice way"]


@dataclass(frozen=True)
class CaseResult:
    """A scan as one variant segmented it from one support, on the scan's own grid.

    Attributes:
        scores: The counts, one record per class.
        labels: 0 is background; a single class is 1, several have their values in the dataset.
        decisions: What decided it.
    """

    scores: list[CaseScore]
    labels: UInt8[np.ndarray, "slice height width"]
    decisions: Decisions


@dataclass(frozen=True)
class _Segmented:
    """A scan as all variants segmented it from one support: labels by variant, and what decided them."""

    labels: dict[str, UInt8[Tensor, "slice own_height own_width"]]
    decisions: dict[str, Decisions]


@torch.no_grad()
def evaluate(
    backbone: nn.Module,
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
    """Segments what is assigned, with every variant, and counts; `metrics` are measured as well, by their names.

    Each distinct slice passes the backbone once. Prototypes are made once per support and kind of scoring, and logits
    once per query and kind of scoring, whatever the number of thresholds that decide on them.
    """
    features = SliceFeatures(backbone, scans, assignments, device)
    prototypes = _all_prototypes(features, variants, assignments, device)
    by_query = [(case, list(group)) for case, group in groupby(assignments, lambda a: a.query_case)]
    for case, assigned in (progress or Silent()).track(by_query, "evaluation", len(by_query)):
        scan = scans[case]
        query = scan.query.to(device)
        needed = _needed(assigned, len(scan.images))
        encoded, row = (
            features.of_query(case, query.images, needed),
            {number: row for row, number in enumerate(needed)},
        )
        labels, truth = scan.labels.to(device), scan.truth.to(device)
        for _, parts in groupby(assigned, lambda a: (a.support_case, a.classes, a.turn)):
            parts = list(parts)
            target = _number_ways(labels, parts[0])
            made = _segment_parts(variants, parts, prototypes, query, encoded, row, target, scan)
            counts = _count(list(made.labels.values()), parts, truth)
            for variant, counted in zip(variants, counts):
                scores = _score(variant, parts, counted, fold, seed)
                if metrics:
                    scores = _measure(
                        metrics, scores, made.labels[variant.name], truth, parts, scan.spacing
                    )
                labelled = _with_values(made.labels[variant.name], parts[0]).cpu().numpy()
                yield CaseResult(scores, labelled, made.decisions[variant.name])


class SliceFeatures:
    """Features of a fold's slices, each of which passes the backbone once.

    Those of the support slices are kept, because a protocol may have the support's case be a query too.
    """

    def __init__(
        self,
        backbone: nn.Module,
        scans: Mapping[str, EvaluationScan],
        assignments: list[Assignment],
        device: torch.device,
    ) -> None:
        self._backbone, self._device = backbone, device
        self._kept: dict[tuple[str, int], Float[Tensor, "channel h w"]] = {}
        support_slices = {
            (a.support_case, number) for a in assignments for number in a.support_slices
        }
        for case, group in groupby(sorted(support_slices), lambda place: place[0]):
            numbers = [number for _, number in group]
            encoded = self._encode(scans[case].images, numbers)
            self._kept |= {(case, number): one for number, one in zip(numbers, encoded)}

    def of_support(self, case: str, numbers: Sequence[int]) -> Float[Tensor, "slice channel h w"]:
        """The features of support slices of a case."""
        features = room_for(self._kept[case, numbers[0]], len(numbers))
        for row, number in enumerate(numbers):
            features[row] = self._kept[case, number]
        return features

    def of_query(
        self, case: str, images: Float[Tensor, "slice height width"], numbers: Sequence[int]
    ) -> Float[Tensor, "needed channel h w"]:
        """The features of these slices of a case, whose images these are."""
        known = [row for row, number in enumerate(numbers) if (case, number) in self._kept]
        missing = [row for row, number in enumerate(numbers) if (case, number) not in self._kept]
        if not known:
            return self._encode(images, numbers)
        kept = self.of_support(case, [numbers[row] for row in known])
        features = room_for(kept[0], len(numbers))
        features[known] = kept
        if missing:
            features[missing] = self._encode(images, [numbers[row] for row in missing])
        return features

    def _encode(
        self, images: Float[Tensor, "slice height width"], numbers: Sequence[int]
    ) -> Float[Tensor, "needed channel h w"]:
        return encode_in_parts(self._backbone, images[list(numbers)].to(self._device))


def _needed(assigned: list[Assignment], slices: int) -> list[int]:
    """The slices of a query that are segmented."""
    if any(part.query_slices is None for part in assigned):
        return list(range(slices))
    return sorted({number for part in assigned for number in part.query_slices})


def _all_prototypes(
    features: SliceFeatures,
    variants: list[Variant],
    assignments: list[Assignment],
    device: torch.device,
) -> dict[tuple[int, str], Prototypes]:
    """Prototypes by support and kind of scoring: they depend on nothing else."""
    made = {}
    for assignment in {id(assignment.support): assignment for assignment in assignments}.values():
        support = assignment.support
        require_foreground(support)
        there = support.to(device)
        spread = there.spread(
            features.of_support(assignment.support_case, assignment.support_slices)
        )
        for scoring, group in by_scoring(variants).items():
            segmenter = group[0].segmenter
            made[id(support), scoring] = segmenter.prototypes(
                spread, there.masks, segmenter.head.sigma
            )
    return made


def _segment_parts(
    variants: list[Variant],
    parts: list[Assignment],
    prototypes: dict[tuple[int, str], Prototypes],
    query: Query,
    features: Float[Tensor, "needed channel h w"],
    row: dict[int, int],
    target: Int[Tensor, "slice height width"],
    scan: EvaluationScan,
) -> _Segmented:
    """The labels by variant on the scan's own grid, background where no part is segmented.

    `row` is where the features have each slice.
    """
    labels = {
        v.name: torch.zeros(scan.truth.shape, dtype=torch.uint8, device=target.device)
        for v in variants
    }
    margins: dict[str, list[Tensor]] = {v.name: [] for v in variants}
    priors: dict[str, list[Tensor]] = {v.name: [] for v in variants}
    for part in parts:
        support = part.support.to(target.device)
        everything, numbers = part.query_slices is None, list(part.query_slices or ())
        at, rows = (
            (slice(None), slice(None))
            if everything
            else (numbers, [row[number] for number in numbers])
        )
        piece = query.part(at)
        for scoring, group in by_scoring(variants).items():
            segmenter = group[0].segmenter
            scored = segmenter.logits(
                support, prototypes[id(part.support), scoring], piece, features[rows]
            )
            even = scored.coarse[:, 1:] - scored.coarse[:, :1]
            for variant in group:
                # Only an oracle looks at the target; the segmenter hands it to no other policy.
                settled = variant.segmenter.decide(scored, target[at])
                labels[variant.name][at] = _on_own_grid(settled, scan)
                prior = per_way(settled.prior, len(part.classes))
                refined = settled.refined is not None
                margins[variant.name].append(settled.refined if refined else even)
                priors[variant.name].append(torch.zeros_like(prior) if refined else prior)
    return _Segmented(labels, _decisions(variants, parts, len(scan.images), margins, priors))


def _decisions(
    variants: list[Variant],
    parts: list[Assignment],
    slices: int,
    margins: dict[str, list[Tensor]],
    priors: dict[str, list[Tensor]],
) -> dict[str, Decisions]:
    """By variant, what decided the slices of all parts."""
    numbers = np.concatenate(
        [np.arange(slices) if p.query_slices is None else p.query_slices for p in parts]
    )
    made = {v.margins: v.name for v in variants}  # variants of one scoring share them
    joined = {
        key: torch.cat(margins[name]).detach().float().cpu().numpy() for key, name in made.items()
    }
    return {
        v.name: Decisions(
            v.margins,
            numbers,
            joined[v.margins],
            torch.cat(priors[v.name]).detach().float().cpu().numpy(),
        )
        for v in variants
    }


def _number_ways(
    labels: UInt8[Tensor, "slice height width"], assignment: Assignment
) -> Int[Tensor, "slice height width"]:
    """Ground truth in the numbers of the support's ways: way k is k + 1, other classes are background."""
    numbered = torch.zeros_like(labels, dtype=torch.int16)
    for way, (value, _) in enumerate(assignment.classes):
        numbered[labels == value] = way + 1
    return numbered


def _on_own_grid(result: Segmentation, scan: EvaluationScan) -> UInt8[Tensor, "slice height width"]:
    return (
        result.labels
        if scan.working.is_own
        else restore_labels(result.log_probabilities, scan.working)
    )


def _count(
    made: list[UInt8[Tensor, "slice height width"]],
    parts: list[Assignment],
    truth: UInt8[Tensor, "slice height width"],
) -> list[list[Counts]]:
    """The voxel counts of each labelling and class; slices that no part segments do not count."""
    chosen = _segmented(parts, len(truth), truth.device)
    actual = [(truth == value) & chosen for value, _ in parts[0].classes]
    pairs = ((labels == way, shown) for labels in made for way, shown in enumerate(actual, start=1))
    counts = count_overlaps(pairs)
    return [counts[first : first + len(actual)] for first in range(0, len(counts), len(actual))]


def _score(
    variant: Variant, parts: list[Assignment], counts: list[Counts], fold: Fold, seed: int
) -> list[CaseScore]:
    """What a variant's counts are of."""
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
            **counted._asdict(),
        )
        for (_, name), counted in zip(parts[0].classes, counts)
    ]


def _measure(
    metrics: Mapping[str, Metric],
    scores: list[CaseScore],
    made: UInt8[Tensor, "slice height width"],
    truth: UInt8[Tensor, "slice height width"],
    parts: list[Assignment],
    spacing: tuple[float, float, float],
) -> list[CaseScore]:
    """The scores with what the metrics say; slices that no part segments are empty in prediction and truth."""
    chosen, measured = _segmented(parts, len(truth), truth.device), []
    for way, (score, (value, _)) in enumerate(zip(scores, parts[0].classes), start=1):
        predicted, actual = (made == way).cpu().numpy(), ((truth == value) & chosen).cpu().numpy()
        values = {
            name: float(metric(predicted, actual, spacing)) for name, metric in metrics.items()
        }
        values = {name: value if math.isfinite(value) else None for name, value in values.items()}
        measured.append(replace(score, measures=values))
    return measured


def _segmented(
    parts: list[Assignment], slices: int, device: torch.device
) -> Bool[Tensor, "slice 1 1"]:
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
