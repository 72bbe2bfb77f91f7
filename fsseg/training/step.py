"""A training step: what losses may look at, and what is computed before them."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fsseg.interfaces import Head, Threshold
from fsseg.model.ops import raise_foreground, resize
from fsseg.model.scoring import Extractor
from fsseg.model.segmenter import Mode
from fsseg.types import Episode, Evidence, Prototypes, ScoreScale

LOWEST_PROBABILITY = torch.finfo(torch.float32).eps
"""Probabilities are clamped to [eps, 1 - eps] before the logarithm in the reference mode, as published."""


@dataclass(frozen=True)
class TrainingStep:
    """All that a loss may look at: an episode, and what the parts in training make of it. It is made once a step.

    Attributes:
        episode: The support, the query, and the query's classes, which are supervoxels.
        support_features: Features of `episode.support.slices`.
        query_features: Features of the query's slices.
        prototypes: The support's prototypes.
        logits: Class logits of the query at the resolution of the features (of a whole segmenter, at its own), background
            first. The prior is even, or that of the threshold that the training names.
        log_probability: Log class probabilities of the query at the size of the image, background first.
        head: The head that is trained.
        extractor: The prototype extractor that is trained with.
        mode: "default" or "reference": how `log_probability` was brought to the size of the image.

    Example:
        The cross-entropy of the query, by hand:

            def loss(step):
                target = step.episode.target.long()  # query height width: 0 is background, way k is k + 1
                return torch.nn.functional.nll_loss(step.log_probability, target)
    """

    episode: Episode
    support_features: Float[Tensor, "slice channel h w"]
    query_features: Float[Tensor, "query channel h w"]
    prototypes: Prototypes
    logits: Float[Tensor, "query class own_h own_w"]
    log_probability: Float[Tensor, "query class height width"]
    head: Head
    extractor: Extractor
    mode: Mode


def under_prior(
    threshold: Threshold,
    logits: Float[Tensor, "query class own_h own_w"],
    query_features: Float[Tensor, "query channel h w"],
    episode: Episode,
    score: ScoreScale | None,
    mode: Mode,
) -> Float[Tensor, "query class own_h own_w"]:
    """The query's logits under the prior of a threshold policy, through which gradients flow.

    Args:
        threshold: The policy; no oracle.
        logits: The query's class logits at an even prior, background first.
        query_features: Features of the query's slices.
        episode: The support and the query; the target is not handed to the policy.
        score: The head's score scale, for heads that have one.
        mode: "default" or "reference": how the policy sees logits at the size of the image.
    """
    policy: Any = threshold
    height, width = episode.target.shape[-2:]
    evidence = Evidence(
        logits=resize(logits, (height, width), align_corners=mode == "reference"),
        features=query_features,
        support_masks=episode.support.masks,
        support_location=episode.support.location,
        query_location=episode.query.location,
        score=score,
    )
    return raise_foreground(logits, policy(evidence))


def log_probabilities(
    logits: Float[Tensor, "query class h w"],
    size: tuple[int, int],
    mode: Mode,
) -> Float[Tensor, "query class height width"]:
    """Log class probabilities at image size.

    Args:
        logits: Class logits at feature resolution, background first.
        size: Height and width of the image.
        mode: "default" resizes the logits; "reference" resizes the probabilities with aligned
            corners, as published.
    """
    if mode == "default":
        return resize(logits, size).log_softmax(dim=1)
    probabilities = logits.softmax(dim=1)
    probabilities = resize(probabilities, size, align_corners=True)
    return probabilities.clamp(LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY).log()
