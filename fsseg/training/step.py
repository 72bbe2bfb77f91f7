"""What a training step computes between the prototypes and the losses."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from fsseg.interfaces import Threshold
from fsseg.model.ops import raise_foreground, resize
from fsseg.model.segmenter import Mode
from fsseg.types import Episode, Evidence, ScoreScale


def under_prior(
    threshold: Threshold,
    logits: Float[Tensor, "query class h w"],
    query_features: Float[Tensor, "query channel h w"],
    episode: Episode,
    score: ScoreScale | None,
    mode: Mode,
) -> Float[Tensor, "query class h w"]:
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
