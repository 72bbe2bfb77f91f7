"""Evaluation of a fold: one support slice per class segments every slice of the query scans."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fsseg.data.scans import EvaluationScan
from fsseg.errors import DataError
from fsseg.metrics import count_overlap
from fsseg.ops import restore_labels
from fsseg.progress import Progress, Silent
from fsseg.protocols import Fold, Protocol
from fsseg.records import CaseScore
from fsseg.segmenter import encode, encode_support, require_foreground
from fsseg.types import Prototypes, Query, Support
from fsseg.variants import Variant, by_scoring

SLICES_AT_ONCE = 16
"""Slices per pass of the backbone."""


@dataclass(frozen=True)
class CaseResult:
    """The counts of a case, class and variant, and the predicted voxels, on the scan's own grid."""

    score: CaseScore
    labels: UInt8[np.ndarray, "slice height width"]


@dataclass(frozen=True)
class ClassSupport:
    """The support of one class.

    Attributes:
        class_value: The class's label value.
        class_name: Its name.
        case: The support case.
        slice: The labelled slice.
        support: The slice with its mask.
    """

    class_value: int
    class_name: str
    case: str
    slice: int
    support: Support


def choose_supports(scan: EvaluationScan, classes: dict[int, str], protocol: Protocol) -> list[ClassSupport]:
    """The support of every class: the slice at the protocol's position among those that show the class.

    Raises DataError for a class that the support scan does not show.
    """
    supports = []
    for value, name in classes.items():
        shown = (scan.labels == value).any(dim=2).any(dim=1).nonzero()[:, 0].tolist()
        if not shown:
            raise DataError(
                f"case {scan.case}: it is the fold's support but shows no {name} (label {value}), expected at least one "
                "slice with it; choose another fold, or leave the class out of the dataset's classes"
            )
        chosen = shown[int(protocol.support_position * len(shown))]
        mask = (scan.labels[chosen] == value)[None, None]
        location = scan.location[chosen][None, None]
        support = Support(scan.images[chosen][None, None], mask, location)
        supports.append(ClassSupport(value, name, scan.case, chosen, support))
    return supports


@torch.no_grad()
def evaluate(
    backbone: nn.Module,
    variants: list[Variant],
    supports: list[ClassSupport],
    queries: list[EvaluationScan],
    fold: Fold,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Iterator[CaseResult]:
    """Segments every query scan for every class with every variant.

    Each slice passes the backbone once; prototypes are made once per class and kind of scoring.
    """
    supports = [_on_device(chosen, device) for chosen in supports]
    prototypes = _all_prototypes(backbone, variants, supports)
    for scan in (progress or Silent()).track(queries, "evaluation", len(queries)):
        query = Query(scan.images, scan.location).to(device)
        features = encode_in_parts(backbone, query.images)
        for chosen in supports:
            target = (scan.labels == chosen.class_value).to(device).long()
            actual = (scan.truth == chosen.class_value).to(device)
            for variant in variants:
                made = prototypes[chosen.class_value, variant.scoring]
                # Only an oracle looks at the target; the segmenter hands it to no other policy.
                result = variant.segmenter.segment(chosen.support, made, query, features, target)
                labels = result.labels if scan.working.is_own else restore_labels(result.scores, scan.working)
                counts = count_overlap(labels > 0, actual)
                score = CaseScore(
                    variant=variant.name,
                    oracle=variant.segmenter.threshold.oracle,
                    fold=fold.index,
                    seed=seed,
                    case=scan.case,
                    class_name=chosen.class_name,
                    support_case=chosen.case,
                    support_slice=chosen.slice,
                    **counts._asdict(),
                )
                yield CaseResult(score, labels.cpu().numpy())


def encode_in_parts(
    backbone: nn.Module, images: Float[Tensor, "slice height width"]
) -> Float[Tensor, "slice channel h w"]:
    """Features of a whole scan, a few slices at a time."""
    return torch.cat([encode(backbone, part) for part in images.split(SLICES_AT_ONCE)])


def _all_prototypes(
    backbone: nn.Module, variants: list[Variant], supports: list[ClassSupport]
) -> dict[tuple[int, str], Prototypes]:
    """Prototypes by class and kind of scoring: they depend on the support alone."""
    made = {}
    for chosen in supports:
        require_foreground(chosen.support)
        features = encode_support(backbone, chosen.support)
        for scoring, group in by_scoring(variants).items():
            segmenter = group[0].segmenter
            made[chosen.class_value, scoring] = segmenter.prototypes(
                features, chosen.support.masks, segmenter.head.sigma
            )
    return made


def _on_device(chosen: ClassSupport, device: torch.device) -> ClassSupport:
    return ClassSupport(chosen.class_value, chosen.class_name, chosen.case, chosen.slice, chosen.support.to(device))
