"""Calibration: the ideal priors of training-fold episodes, and the thresholds fitted to them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsseg.interfaces import FittedThreshold
from fsseg.model.ops import ideal_prior
from fsseg.model.segmenter import encode_in_parts
from fsseg.model.variants import Variant, by_scoring
from fsseg.system.progress import Progress, Silent
from fsseg.training.episodes import CALIBRATION_STREAM, EpisodeSampler, episode_rng
from fsseg.types import Episode, IdealPriors

BATCH = 8
"""Episodes that are made, encoded and read together."""


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
        draws = [
            sampler.draw(episode_rng(seed, CALIBRATION_STREAM, number), classes)
            for number in numbers
        ]
        drawn = [sampler.make(draw, device) for draw in draws]
        observed = [
            (group, _observe(group, *encoded))
            for encoded in _encode_all(backbone, drawn)
            for group in groups.values()
        ]
        for (group, _), (found, regressors) in zip(
            observed, _on_host([values for _, values in observed])
        ):
            samples.append(_sample(group[0].scoring, *found))
            for variant, of_variant in zip(group, regressors):
                described[variant.name].append(of_variant)
    for variant in fitted:
        variant.segmenter.threshold.fit(described[variant.name], _ideal(samples, variant.scoring))
    return Calibration(
        samples, {variant.name: variant.segmenter.threshold.state() for variant in fitted}
    )


def _encode_all(
    backbone: nn.Module, episodes: list[Episode]
) -> list[
    tuple[Episode, Float[Tensor, "way shot channel h w"], Float[Tensor, "query channel h w"]]
]:
    """Features of several episodes from as few passes as their sizes allow."""
    encoded = []
    for same in _runs_of_equal_size(episodes):
        images = [images for e in same for images in (e.support.slices, e.query.images)]
        features = encode_in_parts(backbone, torch.cat(images)).split(
            [len(part) for part in images]
        )
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


def _observe(
    group: list[Variant],
    episode: Episode,
    support_features: Float[Tensor, "way shot channel h w"],
    query_features: Float[Tensor, "query channel h w"],
) -> tuple[list[Tensor], list[Tensor]]:
    """What an episode says, for one kind of scoring: the numbers of a sample, and each variant's regressors.

    A way by itself is decided between its own logit and the background's.
    """
    segmenter, support = group[0].segmenter, episode.support
    prototypes = segmenter.prototypes(support_features, support.masks, segmenter.head.sigma)
    evidence = segmenter.logits(support, prototypes, episode.query, query_features).evidence
    ways = torch.arange(1, evidence.logits.shape[1], device=episode.target.device)
    counts = (episode.target == ways[:, None, None]).sum(dim=(1, 2))
    together = ideal_prior(evidence.margin, counts.sum()[None])
    # One way by itself is all of them together.
    alone = (
        together
        if len(ways) == 1
        else ideal_prior(evidence.logits[0, 1:] - evidence.logits[0, :1], counts)
    )
    numbers = [
        together,
        alone,
        evidence.support_size,
        evidence.query_location,
        evidence.support_location.mean(),
    ]
    return numbers, [variant.segmenter.threshold.describe(evidence)[0] for variant in group]


def _on_host(
    observed: list[tuple[list[Tensor], list[Tensor]]],
) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """The values of a whole batch, read at once: each time that the host reads, it waits and the device runs dry."""
    tensors = [tensor for lists in observed for tensors in lists for tensor in tensors]
    # Doubles hold every float and every count that may be among them.
    joined = torch.cat([tensor.flatten().double() for tensor in tensors]).cpu()
    parts = joined.split([tensor.numel() for tensor in tensors])
    arrays = iter(
        [part.to(like.dtype).view(like.shape).numpy() for part, like in zip(parts, tensors)]
    )
    return [tuple([next(arrays) for _ in tensors] for tensors in lists) for lists in observed]


def _sample(
    scoring: str,
    prior: Float[np.ndarray, "1"],
    way_priors: Float[np.ndarray, "way"],
    sizes: Float[np.ndarray, "way"],
    location: Float[np.ndarray, "1"],
    support_location: Float[np.ndarray, ""],
) -> CalibrationSample:
    return CalibrationSample(
        scoring,
        prior.item(),
        way_priors.tolist(),
        sizes.tolist(),
        location.item(),
        support_location.item(),
    )


def _ideal(samples: list[CalibrationSample], scoring: str) -> IdealPriors:
    """The ideal priors for one kind of scoring."""
    chosen = [sample for sample in samples if sample.scoring == scoring]
    return IdealPriors(
        np.array([sample.prior for sample in chosen]),
        [np.array(sample.way_priors) for sample in chosen],
    )
