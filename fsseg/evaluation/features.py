"""The work that an evaluation does once: features of slices, and the prototypes of supports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fsseg.evaluation.assignments import Assignment, Task
from fsseg.evaluation.choices import Way
from fsseg.evaluation.scans import EvaluationScan
from fsseg.interfaces import Backbone
from fsseg.model.contracts import require_foreground
from fsseg.model.inputs import context_of, with_context
from fsseg.model.scoring import is_per_query, prototypes_of
from fsseg.model.segmenter import Segmenter, encode_in_parts, room_for
from fsseg.model.variants import Variant, by_scoring
from fsseg.types import Prototypes, Query, Support


@dataclass(frozen=True)
class EncodedQuery:
    """A query scan on the device, with the features of those of its slices that are segmented.

    Attributes:
        scan: The scan, where it was.
        query: Its slices.
        labels: Class values on the working grid, for oracles.
        truth: Class values on the scan's own grid, where predictions are scored.
        features: Features of the slices that are segmented.
        rows: The place of each of these slices among the features.
    """

    scan: EvaluationScan
    query: Query
    labels: UInt8[Tensor, "slice height width"]
    truth: UInt8[Tensor, "slice own_height own_width"]
    features: Float[Tensor, "needed channel h w"]
    rows: dict[int, int]

    def features_of(self, part: Assignment) -> Float[Tensor, "part channel h w"]:
        """The features of the slices that an assignment segments."""
        if part.query_slices is None:
            return self.features
        rows = [self.rows[number] for number in part.query_slices]
        return self.features[rows]

    def target(self, classes: Sequence[Way]) -> Int[Tensor, "slice height width"]:
        """The labels in the numbers of ways: way k is k + 1, other classes are background."""
        target = torch.zeros_like(self.labels, dtype=torch.int16)
        for number, (value, _) in enumerate(classes, start=1):
            target[self.labels == value] = number
        return target


class SliceFeatures:
    """Features of a fold's slices, each of which passes the backbone once.

    Those of the support slices are kept, because a protocol may have the support's case be a query
    too.
    """

    def __init__(
        self,
        backbone: Backbone,
        scans: Mapping[str, EvaluationScan],
        assignments: Sequence[Assignment],
        device: torch.device,
    ) -> None:
        """Encodes the slices of all supports."""
        self._backbone = backbone
        self._device = device
        self._kept: dict[str, dict[int, Float[Tensor, "channel h w"]]] = {}
        labelled: dict[str, set[int]] = {}
        for part in assignments:
            for case, slices in part.supports:
                labelled.setdefault(case, set()).update(slices)
        for case in sorted(labelled):
            numbers = sorted(labelled[case])
            encoded = self._encode(scans[case].images, numbers)
            self._kept[case] = dict(zip(numbers, encoded))

    def of_shots(self, part: Assignment) -> Float[Tensor, "slice channel h w"]:
        """The features of a support's slices, those of one case after the other's."""
        of_cases = [self.of_support(case, slices) for case, slices in part.supports]
        return of_cases[0] if len(of_cases) == 1 else torch.cat(of_cases)

    def of_support(
        self,
        case: str,
        numbers: Sequence[int],
    ) -> Float[Tensor, "slice channel h w"]:
        """The features of support slices of a case."""
        kept = [self._kept[case][number] for number in numbers]
        features = room_for(kept[0], len(kept))
        for row, of_slice in enumerate(kept):
            features[row] = of_slice
        return features

    def of_query(self, scan: EvaluationScan, tasks: Sequence[Task]) -> EncodedQuery:
        """A query on the device, with the features of the slices that the tasks segment."""
        query = scan.query.to(self._device)
        count = len(scan.images)
        segmented: set[int] = set()
        for task in tasks:
            segmented.update(task.query_slices(count).tolist())
        numbers = sorted(segmented)
        features = self._encode_missing(scan.case, query.images, numbers)
        return EncodedQuery(
            scan=scan,
            query=query,
            labels=scan.labels.to(self._device),
            truth=scan.truth.to(self._device),
            features=features,
            rows={number: row for row, number in enumerate(numbers)},
        )

    def _encode_missing(
        self,
        case: str,
        images: Float[Tensor, "slice *channel height width"],
        numbers: Sequence[int],
    ) -> Float[Tensor, "needed channel h w"]:
        """The features of these slices of a case; those that are kept do not pass the backbone again."""
        kept = self._kept.get(case, {})
        known: dict[int, int] = {}
        missing: dict[int, int] = {}
        for row, number in enumerate(numbers):
            rows = known if number in kept else missing
            rows[row] = number
        if not known:
            return self._encode(images, numbers)
        of_known = self.of_support(case, list(known.values()))
        features = room_for(of_known[0], len(numbers))
        features[list(known)] = of_known
        if missing:
            of_missing = self._encode(images, list(missing.values()))
            features[list(missing)] = of_missing
        return features

    def _encode(
        self,
        images: Float[Tensor, "slice *channel height width"],
        numbers: Sequence[int],
    ) -> Float[Tensor, "needed channel h w"]:
        with_neighbours = with_context(images, context_of(self._backbone))
        chosen = with_neighbours[list(numbers)].to(self._device)
        return encode_in_parts(self._backbone, chosen)


class SupportPrototypes:
    """Prototypes by support and kind of scoring: they depend on nothing else, unless an extractor sees the query."""

    def __init__(
        self,
        features: SliceFeatures,
        variants: Sequence[Variant],
        assignments: Sequence[Assignment],
        device: torch.device,
    ) -> None:
        """Makes what prototypes can be made; raises DataError for a mask without foreground."""
        self._features = features
        self._by_support: dict[int, dict[str, Prototypes]] = {}
        groups = by_scoring(list(variants))
        distinct = {id(assignment.support): assignment for assignment in assignments}
        for key, assignment in distinct.items():
            require_foreground(assignment.support)
            support = assignment.support.to(device)
            slices = self.features_of(assignment)
            by_kind = self._by_support[key] = {}
            for scoring, group in groups.items():
                segmenter = group[0].segmenter
                if not is_per_query(segmenter.prototypes):
                    by_kind[scoring] = _prototypes(segmenter, slices, support)

    def features_of(self, part: Assignment) -> Float[Tensor, "way shot channel h w"]:
        """The features of an assignment's support."""
        slices = self._features.of_shots(part)
        return part.support.spread(slices)

    def of(
        self,
        part: Assignment,
        variant: Variant,
        support_features: Float[Tensor, "way shot channel support_h support_w"],
        query_features: Float[Tensor, "part channel h w"],
    ) -> Prototypes:
        """The prototypes with which a variant scores what an assignment segments."""
        kept = self._by_support[id(part.support)].get(variant.scoring)
        if kept is not None:
            return kept
        support = part.support.to(query_features.device)
        return _prototypes(variant.segmenter, support_features, support, query_features)


def _prototypes(
    segmenter: Segmenter,
    support_features: Float[Tensor, "way shot channel support_h support_w"],
    support: Support,
    query_features: Float[Tensor, "part channel h w"] | None = None,
) -> Prototypes:
    parts = (segmenter.prototypes, segmenter.head)
    return prototypes_of(*parts, support_features, support.masks, query_features)
