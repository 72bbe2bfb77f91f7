"""A query scan as all variants segment it from one support case, on the scan's own grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from fsseg.evaluation.assignments import Assignment, Task
from fsseg.evaluation.features import EncodedQuery, SupportPrototypes
from fsseg.evaluation.scans import EvaluationScan
from fsseg.model.ops import per_way, restore, restore_labels
from fsseg.model.segmenter import Scored
from fsseg.model.soundness import sound_slices, unsound_logits, unsound_margins, unsound_prior
from fsseg.model.variants import Variant, by_scoring
from fsseg.types import Segmentation


@dataclass(frozen=True)
class Decisions:
    """The margins and priors that decided the slices of a scan.

    With them slices can be decided again under other priors.

    Attributes:
        scoring: The prototypes and the head that made the margins, which variants share; or a
            variant's own refiners.
        slices: The numbers of the slices.
        margins: Each way's logit minus the background's, at feature resolution and an even prior;
            refined ones are what refiners made of those under the threshold's prior, at the
            resolution of the last one.
        priors: Log-odds of the prior that the threshold chose; 0 where the margins are refined.
    """

    scoring: str
    slices: Int[np.ndarray, "slice"]
    margins: Float[np.ndarray, "slice way h w"]
    priors: Float[np.ndarray, "slice way"]


@dataclass(frozen=True)
class _Decided:
    """The margins and priors of some slices, on the device, and whether their logits are finite."""

    margins: Float[Tensor, "part way h w"]
    priors: Float[Tensor, "part way"]
    sound: Bool[Tensor, "part"]

    @property
    def told(self) -> Float[Tensor, "part told"]:
        """The priors, and 1 behind them where the logits are finite: the host reads both at once."""
        return torch.cat([self.priors, self.sound[:, None].to(self.priors)], dim=1)


class QuerySegmentation:
    """The work on one task: a query scan that all variants segment from one support case.

    Attributes:
        task: The parts of which it consists.
        labels: By variant, the way of each voxel on the scan's own grid: 0 is background, and so is
            every slice that no part segments.
        probabilities: By variant, where they are asked for, the probability of each way on the scan's own grid; NaN in
            every slice that no part segments.
    """

    def __init__(
        self,
        task: Task,
        query: EncodedQuery,
        variants: Sequence[Variant],
        prototypes: SupportPrototypes,
        *,
        probabilities: bool = False,
    ) -> None:
        """Segments all parts. Logits are made once for each part and kind of scoring."""
        self.task = task
        self.probabilities: dict[str, Float[np.ndarray, "way slice own_height own_width"]] = {}
        self.labels: dict[str, UInt8[Tensor, "slice own_height own_width"]] = {}
        self._query = query
        self._variants = list(variants)
        self._decided: dict[str, list[_Decided]] = {}
        for variant in self._variants:
            self.labels[variant.name] = torch.zeros_like(query.truth)
            self._decided[variant.name] = []
            if probabilities:
                shape = (len(task.classes), *query.truth.shape)
                self.probabilities[variant.name] = np.full(shape, np.nan, dtype=np.float32)
        target = query.target(task.classes)
        for part in task.parts:
            self._segment(part, target[part.index], prototypes)

    @property
    def truth(self) -> list[Bool[Tensor, "slice own_height own_width"]]:
        """For each way, the voxels that are its class in the ground truth; in no slice that no part segments."""
        truth = self._query.truth
        is_segmented = torch.zeros(len(truth), 1, 1, dtype=torch.bool)
        for part in self.task.parts:
            is_segmented[part.index] = True
        is_segmented = is_segmented.to(truth.device)
        masks = []
        for value, _ in self.task.classes:
            mask = truth == value
            masks.append(mask & is_segmented)
        return masks

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the scan's own grid in mm along (slice, height, width)."""
        return self._query.scan.spacing

    def decisions(self) -> dict[str, Decisions]:
        """By variant, what decided the slices of all parts.

        Raises:
            FssegError: Logits are not finite, or a prior or a margin is NaN.
        """
        count = len(self._query.labels)
        slices = self.task.query_slices(count)
        margins: dict[str, Float[np.ndarray, "slice way h w"]] = {}
        decisions = {}
        for variant in self._variants:
            parts = self._decided[variant.name]
            scoring = variant.margins
            if scoring not in margins:  # variants of one scoring share them
                margins[scoring] = _on_host([part.margins for part in parts])
            told = _on_host([part.told for part in parts])
            decided = Decisions(scoring, slices, margins[scoring], told[:, :-1])
            self._require_numbers(variant, decided, told[:, -1] > 0)
            decisions[variant.name] = decided
        return decisions

    def _require_numbers(
        self, variant: Variant, decided: Decisions, sound: Bool[np.ndarray, "slice"]
    ) -> None:
        """Raises FssegError for what would be decided as if it were background: logits that are not finite, NaN."""
        segmenter = variant.segmenter
        where = f"row {variant.name!r}, case {self.task.query_case}"
        if not sound.all():
            number = int(decided.slices[~sound][0])
            features = self._query.features[self._query.rows[number]]
            raise unsound_logits(f"{where}, slice {number}", segmenter, features[None])
        if np.isnan(decided.priors).any():
            raise unsound_prior(where, segmenter)
        if np.isnan(decided.margins).any():
            raise unsound_margins(where, segmenter)

    def _segment(
        self,
        part: Assignment,
        target: Int[Tensor, "part height width"],
        prototypes: SupportPrototypes,
    ) -> None:
        """Segments a part with all variants."""
        support = part.support.to(target.device)
        query = self._query.query.part(part.index)
        features = self._query.features_of(part)
        support_features = prototypes.features_of(part)
        for group in by_scoring(self._variants).values():
            made = prototypes.of(part, group[0], support_features, features)
            scored = group[0].segmenter.logits(
                support, made, query, features, support_features=support_features
            )
            even = _even_margins(scored)
            sound = sound_slices(scored.coarse)
            for variant in group:
                # Only an oracle looks at the target; the segmenter hands it to no other policy.
                segmented = variant.segmenter.decide(scored, target)
                labels = _on_own_grid(segmented, self._query.scan)
                self.labels[variant.name][part.index] = labels
                if variant.name in self.probabilities:
                    of_part = _probabilities(segmented, self._query.scan)
                    self.probabilities[variant.name][:, part.index] = of_part
                decided = _what_decided(segmented, even, sound)
                self._decided[variant.name].append(decided)


def _even_margins(scored: Scored) -> Float[Tensor, "part way h w"]:
    """Each way's logit minus the background's, at an even prior."""
    background = scored.coarse[:, :1]
    return scored.coarse[:, 1:] - background


def _what_decided(
    segmented: Segmentation,
    even: Float[Tensor, "part way h w"],
    sound: Bool[Tensor, "part"],
) -> _Decided:
    """The margins that decided, and the prior that was not among them yet."""
    prior = per_way(segmented.prior, even.shape[1])
    if segmented.refined is None:
        return _Decided(even, prior, sound)
    return _Decided(segmented.refined, torch.zeros_like(prior), sound)


def _on_own_grid(
    segmented: Segmentation, scan: EvaluationScan
) -> UInt8[Tensor, "part own_height own_width"]:
    if scan.working.is_own:
        return segmented.labels
    return restore_labels(segmented.log_probabilities, scan.working)


def _probabilities(
    segmented: Segmentation, scan: EvaluationScan
) -> Float[np.ndarray, "way part own_height own_width"]:
    """Each way's probability on the scan's own grid; 0 where the working grid ends, which is background."""
    logarithms = segmented.log_probabilities
    if scan.working.is_own:
        ways = logarithms.float().softmax(dim=1)[:, 1:]
        return ways.transpose(0, 1).cpu().numpy()
    # As labels are: resized before the classes are held against each other.
    restored, inside = restore(logarithms.float(), scan.working)
    slices = [(of_slice.softmax(dim=0)[1:] * inside).cpu() for of_slice in restored]
    return torch.stack(slices, dim=1).numpy()


def _on_host(
    parts: list[Float[Tensor, "_part *rest"]],
) -> Float[np.ndarray, "slice *rest"]:
    joined = torch.cat(parts).detach()
    return joined.float().cpu().numpy()
