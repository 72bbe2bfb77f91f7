"""Calibration: the ideal priors of training-fold episodes, and the thresholds fitted to them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.interfaces import Backbone, FittedThreshold
from fsseg.model.ops import ideal_prior
from fsseg.model.scoring import prototypes_of
from fsseg.model.segmenter import Segmenter, encode_in_parts
from fsseg.model.variants import Variant, by_scoring
from fsseg.plugins.numbers import are_finite
from fsseg.system.progress import Progress, Silent
from fsseg.training.episodes import CALIBRATION_STREAM, EpisodeSampler, episode_rng
from fsseg.types import Episode, Evidence, IdealPriors

BATCH = 8
"""Episodes that are made, encoded and read together."""


@dataclass(frozen=True)
class CalibrationSample:
    """The ideal prior of an episode, for one kind of scoring, beside what may tell of it.

    Attributes:
        scoring: The prototypes and the head that scored the episode, as variants name them.
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
    """The result of a calibration.

    Attributes:
        samples: The samples of all episodes.
        states: By variant, what its threshold learned from them.
    """

    samples: list[CalibrationSample]
    states: dict[str, dict[str, Any]]

    def dumps(self) -> dict[str, Any]:
        """The calibration as plain values."""
        samples = [asdict(sample) for sample in self.samples]
        return {"states": self.states, "samples": samples}


@torch.no_grad()
def calibrate(
    backbone: Backbone,
    variants: Sequence[Variant | Segmenter],
    sampler: EpisodeSampler,
    episodes: int = 1000,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    classes: int = 1,
    progress: Progress | None = None,
) -> Calibration:
    """Fits the thresholds of segmenters, in place, on supervoxel episodes of training scans.

    Thresholds that are not fitted, such as CE-T, stay as they are. Every image is encoded once, whatever the number of
    segmenters. Nothing here sees a label of the dataset.

    Args:
        backbone: The backbone that the segmenters share.
        variants: The segmenters, or variants, which have a name.
        sampler: Draws episodes from training scans; see `fsseg.training_scans`.
        episodes: Number of episodes.
        seed: The seed of the draws.
        device: The device of the segmenters; that of the backbone's parameters when omitted.
        classes: Classes of an episode at most: one where one class is segmented at a time, whatever the training had.
        progress: Follows the episodes.

    Returns:
        The samples of all episodes, and what the thresholds learned.

    Raises:
        FssegError: Logits are not finite, so that nothing can be learned from them.

    Example:
        >>> from fsseg import EpisodeSampler, LinEst, MaskedAverage, Segmenter, TimmBackbone, Tpm
        >>> from fsseg import calibrate, training_scans
        >>> from fsseg.datasets import AbdomenPhantom
        >>> dataset = AbdomenPhantom(count=2, size=64)
        >>> backbone = TimmBackbone(model="resnet18", strides=[8])  # here, yours that is trained
        >>> segmenter = Segmenter(backbone, MaskedAverage(), Tpm(), LinEst())
        >>> sampler = EpisodeSampler(training_scans(dataset, backbone.intensity))
        >>> calibration = calibrate(backbone, [segmenter], sampler, episodes=8)
        >>> len(segmenter.threshold.coefficients)  # of the location and of the support's size, and the intercept
        3
    """
    fitted = [variant for variant in _named(variants) if _is_fitted(variant)]
    if not fitted:
        return Calibration([], {})
    place: torch.device = device or next(backbone.parameters()).device
    groups = list(by_scoring(fitted).values())
    observed: list[_Observed] = []
    with evaluation_mode(variant.segmenter for variant in fitted):
        for numbers in _batches(episodes, progress or Silent()):
            drawn = [_episode(sampler, seed, number, classes, place) for number in numbers]
            observed += _on_host(_observe_all(backbone, drawn, groups))
    samples = [each.sample for each in observed]
    _require_finite(
        [asdict(sample) for sample in samples], "an episode's ideal prior or what tells of it"
    )
    states = {variant.name: _fit(variant, observed) for variant in fitted}
    return Calibration(samples, states)


def _batches(episodes: int, progress: Progress) -> Iterator[range]:
    """The numbers of the episodes that are made together."""
    starts = range(0, episodes, BATCH)
    for start in progress.track(starts, "calibration", len(starts)):
        yield range(start, min(start + BATCH, episodes))


def _episode(
    sampler: EpisodeSampler, seed: int, number: int, classes: int, device: torch.device
) -> Episode:
    """The episode of this number."""
    rng = episode_rng(seed, CALIBRATION_STREAM, number)
    draw = sampler.draw(rng, classes)
    return sampler.make(draw, device)


def _require_finite(values: Any, what: str) -> None:
    """Raises FssegError where one of the numbers in plain values is not finite."""
    if not are_finite(values):
        raise FssegError(
            f"calibration: {what} is not finite, expected numbers: network or head give none; look at train.jsonl, and "
            "train with a lower learning rate or other options of the head"
        )


def _fit(variant: Variant, observed: Sequence["_Observed"]) -> dict[str, Any]:
    """Fits a variant's threshold to the samples of its scoring; returns what it learned."""
    of_scoring = [each for each in observed if each.sample.scoring == variant.scoring]
    described = [each.regressors[variant.name] for each in of_scoring]
    samples = [each.sample for each in of_scoring]
    ideal = IdealPriors(
        together=np.array([sample.prior for sample in samples]),
        ways=[np.array(sample.way_priors) for sample in samples],
    )
    threshold = _fitted_threshold(variant)
    threshold.fit(described, ideal)
    state = threshold.state()
    _require_finite(state, f"what the threshold of {variant.name} learned")
    return state


def _is_fitted(variant: Variant) -> bool:
    return isinstance(variant.segmenter.threshold, FittedThreshold)


def _fitted_threshold(variant: Variant) -> FittedThreshold:
    threshold = variant.segmenter.threshold
    assert isinstance(threshold, FittedThreshold), "others are left out"
    return threshold


def _named(variants: Sequence[Variant | Segmenter]) -> list[Variant]:
    """The variants; a segmenter gets a name, and is taken to score as no other does."""
    named = []
    for number, variant in enumerate(variants):
        if isinstance(variant, Segmenter):
            name = f"segmenter {number}"
            variant = Variant(name, variant, scoring=name)
        named.append(variant)
    return named


@contextmanager
def evaluation_mode(segmenters: Iterable[Segmenter]) -> Iterator[None]:
    """Has the segmenters in evaluation mode within the block, and each of their modules as it was after it."""
    before: dict[nn.Module, bool] = {}
    for segmenter in segmenters:
        for module in segmenter.modules():
            before.setdefault(module, module.training)  # segmenters share modules
        segmenter.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@dataclass(frozen=True)
class _Encoded:
    """An episode with the features of its slices."""

    episode: Episode
    support: Float[Tensor, "way shot channel h w"]
    query: Float[Tensor, "query channel h w"]


def _encode_all(backbone: Backbone, episodes: list[Episode]) -> list[_Encoded]:
    """The episodes with features from as few passes as their sizes allow."""
    encoded = []
    for alike in _runs_of_equal_size(episodes):
        images = []
        for episode in alike:
            images += [episode.support.slices, episode.query.images]
        features = encode_in_parts(backbone, torch.cat(images))
        counts = [len(slices) for slices in images]
        parts = iter(features.split(counts))
        for episode in alike:
            support = episode.support.spread(next(parts))
            query = next(parts)
            encoded.append(_Encoded(episode, support, query))
    return encoded


def _runs_of_equal_size(episodes: list[Episode]) -> list[list[Episode]]:
    """Neighbours with images of one size: scans of a dataset may differ in theirs."""
    by_size = groupby(episodes, lambda episode: episode.query.images.shape)
    return [list(run) for _, run in by_size]


@dataclass(frozen=True)
class _OnDevice:
    """The numbers of a sample on the device, and the regressors of each variant of its scoring."""

    scoring: str
    numbers: dict[str, Tensor]
    regressors: dict[str, Tensor]


@dataclass(frozen=True)
class _Observed:
    """A sample, and the regressors of each variant of its scoring, on the host."""

    sample: CalibrationSample
    regressors: dict[str, np.ndarray]


def _observe_all(
    backbone: Backbone,
    episodes: list[Episode],
    groups: list[list[Variant]],
) -> list[_OnDevice]:
    """Observes, episode by episode, for each kind of scoring."""
    observed = []
    for encoded in _encode_all(backbone, episodes):
        for group in groups:
            observed.append(_observe(group, encoded))
    return observed


def _observe(group: list[Variant], encoded: _Encoded) -> _OnDevice:
    """Scores an episode, and finds its ideal priors."""
    segmenter = group[0].segmenter
    episode = encoded.episode
    support = episode.support
    parts = (segmenter.prototypes, segmenter.head)
    prototypes = prototypes_of(*parts, encoded.support, support.masks, encoded.query)
    scored = segmenter.logits(
        support, prototypes, episode.query, encoded.query, support_features=encoded.support
    )
    evidence = scored.evidence
    together, alone = _ideal_priors(evidence, episode.target)
    numbers = {
        "prior": together,
        "way_priors": alone,
        "sizes": evidence.support_size,
        "location": evidence.query_location,
        "support_location": evidence.support_location.mean(),
    }
    regressors = {}
    for variant in group:
        described = _fitted_threshold(variant).describe(evidence)
        regressors[variant.name] = described[0]
    return _OnDevice(group[0].scoring, numbers, regressors)


def _ideal_priors(
    evidence: Evidence,
    target: Int[Tensor, "1 height width"],
) -> tuple[Float[Tensor, "1"], Float[Tensor, "way"]]:
    """The ideal prior of all ways together, and that of each by itself.

    A way by itself is decided between its own logit and the background's.
    """
    [logits] = evidence.logits
    background = logits[:1]
    foreground = logits[1:]
    ways = torch.arange(1, len(logits), device=target.device)
    masks = target == ways[:, None, None]
    counts = masks.sum(dim=(1, 2))
    together = ideal_prior(evidence.margin, counts.sum()[None])
    if len(ways) == 1:  # by itself is all together
        return together, together
    return together, ideal_prior(foreground - background, counts)


def _on_host(observed: list[_OnDevice]) -> Iterator[_Observed]:
    """The values of a whole batch, read at once: each time that the host reads, it waits and the device runs dry."""
    tensors: list[Tensor] = []
    for each in observed:
        tensors += each.numbers.values()
        tensors += each.regressors.values()
    # Doubles hold every float and every count that may be among them.
    doubles = [tensor.flatten().double() for tensor in tensors]
    joined = torch.cat(doubles).cpu()
    counts = [len(values) for values in doubles]
    parts = iter(joined.split(counts))

    def read(tensor: Tensor) -> np.ndarray:
        values = next(parts).to(tensor.dtype)
        return values.view(tensor.shape).numpy()

    for each in observed:
        numbers = {name: read(tensor) for name, tensor in each.numbers.items()}
        regressors = {name: read(tensor) for name, tensor in each.regressors.items()}
        yield _Observed(_sample(each.scoring, numbers), regressors)


def _sample(scoring: str, numbers: dict[str, np.ndarray]) -> CalibrationSample:
    return CalibrationSample(
        scoring,
        prior=numbers["prior"].item(),
        way_priors=numbers["way_priors"].tolist(),
        sizes=numbers["sizes"].tolist(),
        location=numbers["location"].item(),
        support_location=numbers["support_location"].item(),
    )
