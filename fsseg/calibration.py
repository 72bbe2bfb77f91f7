"""Calibration: the ideal priors of training-fold episodes, and the thresholds fitted to them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsseg.episodes import EpisodeSampler
from fsseg.interfaces import FittedThreshold
from fsseg.ops import ideal_prior, resize
from fsseg.progress import Progress, Silent
from fsseg.segmenter import encode, gather_evidence
from fsseg.training import CALIBRATION_STREAM, episode_rng
from fsseg.types import Episode, Evidence, IdealPriors
from fsseg.variants import Variant, by_scoring

BATCH = 8
"""Episodes that are encoded together."""


@dataclass(frozen=True)
class CalibrationSample:
    """What an episode says of the ideal prior, for one kind of scoring.

    Attributes:
        scoring: Which prototypes and head scored the episode.
        prior: Log-odds of the ideal prior of all classes together, unclipped.
        way_priors: Those of each class by itself.
        sizes: Share of the support image that each class covers.
        location: Position of the query slice in its scan.
        support_location: Position of the support slice.
    """

    scoring: str
    prior: float
    way_priors: list[float]
    sizes: list[float]
    location: float
    support_location: float


@dataclass(frozen=True)
class Calibration:
    """Samples of all episodes, and by variant what its threshold learned from them."""

    samples: list[CalibrationSample]
    states: dict[str, dict[str, Any]]

    def dumps(self) -> dict[str, Any]:
        """As plain values."""
        return {"states": self.states, "samples": [asdict(sample) for sample in self.samples]}


@torch.no_grad()
def calibrate(
    backbone: nn.Module,
    variants: list[Variant],
    sampler: EpisodeSampler,
    episodes: int,
    *,
    seed: int,
    device: torch.device,
    classes: int = 1,
    progress: Progress | None = None,
) -> Calibration:
    """Fits the variants' thresholds, in place, on supervoxel episodes of the training fold.

    Every image is encoded once, whatever the number of variants. Nothing here sees a label of the dataset. Episodes
    have at most `classes` classes: one where one class is segmented at a time, whatever the training had.
    """
    fitted = [v for v in variants if isinstance(v.segmenter.threshold, FittedThreshold)]
    if not fitted:
        return Calibration([], {})
    groups = by_scoring(fitted)
    samples: list[CalibrationSample] = []
    described: dict[str, list[np.ndarray]] = {variant.name: [] for variant in fitted}
    batches = range(0, episodes, BATCH)
    for start in (progress or Silent()).track(batches, "calibration", len(batches)):
        numbers = range(start, min(start + BATCH, episodes))
        drawn = [
            sampler.make(sampler.draw(episode_rng(seed, CALIBRATION_STREAM, n), classes)).to(device) for n in numbers
        ]
        for episode, support_features, query_features in _encode_all(backbone, drawn):
            for scoring, group in groups.items():
                evidence = _evidence(group[0], episode, support_features, query_features)
                samples.append(_sample(scoring, evidence, episode))
                for variant in group:
                    described[variant.name].append(variant.segmenter.threshold.describe(evidence)[0].cpu().numpy())
    for variant in fitted:
        variant.segmenter.threshold.fit(described[variant.name], _ideal(samples, variant.scoring))
    return Calibration(samples, {variant.name: variant.segmenter.threshold.state() for variant in fitted})


def _encode_all(
    backbone: nn.Module, episodes: list[Episode]
) -> list[tuple[Episode, Float[Tensor, "way shot channel h w"], Float[Tensor, "query channel h w"]]]:
    """Features of several episodes from as few passes as their sizes allow."""
    encoded = []
    for same in _runs_of_equal_size(episodes):
        images = [images for e in same for images in (e.support.slices, e.query.images)]
        features = encode(backbone, torch.cat(images)).split([len(part) for part in images])
        for episode, support, query in zip(same, features[::2], features[1::2]):
            encoded.append((episode, episode.support.spread(support), query))
    return encoded


def _runs_of_equal_size(episodes: list[Episode]) -> list[list[Episode]]:
    """Neighbours with images of one size: scans of a dataset may differ in theirs."""
    runs: list[list[Episode]] = []
    for episode in episodes:
        if runs and runs[-1][0].query.images.shape == episode.query.images.shape:
            runs[-1].append(episode)
        else:
            runs.append([episode])
    return runs


def _evidence(
    variant: Variant,
    episode: Episode,
    support_features: Float[Tensor, "way shot channel h w"],
    query_features: Float[Tensor, "query channel h w"],
) -> Evidence:
    segmenter, support = variant.segmenter, episode.support
    prototypes = segmenter.prototypes(support_features, support.masks, segmenter.head.sigma)
    coarse = segmenter.head(query_features, prototypes)
    logits = resize(coarse, tuple(episode.query.images.shape[-2:]), align_corners=segmenter.mode == "reference")
    return gather_evidence(logits, query_features, support, episode.query, segmenter.head)


def _sample(scoring: str, evidence: Evidence, episode: Episode) -> CalibrationSample:
    """The ideal priors; a way by itself is decided between its own logit and the background's."""
    ways = torch.arange(1, evidence.logits.shape[1], device=episode.target.device)
    counts = (episode.target == ways[:, None, None]).sum(dim=(1, 2))
    margins = evidence.logits[0, 1:] - evidence.logits[0, :1]
    return CalibrationSample(
        scoring=scoring,
        prior=float(ideal_prior(evidence.margin, counts.sum()[None])),
        way_priors=ideal_prior(margins, counts).tolist(),
        sizes=evidence.support_size.tolist(),
        location=float(evidence.query_location),
        support_location=float(evidence.support_location.mean()),
    )


def _ideal(samples: list[CalibrationSample], scoring: str) -> IdealPriors:
    """The ideal priors for one kind of scoring."""
    chosen = [sample for sample in samples if sample.scoring == scoring]
    return IdealPriors(
        np.array([sample.prior for sample in chosen]), [np.array(sample.way_priors) for sample in chosen]
    )
