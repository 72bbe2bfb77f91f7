"""Training losses of ADNet and TPM: query segmentation, prototype alignment, and ADNet's T loss."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsseg.interfaces import Head
from fsseg.ops import resize
from fsseg.types import Prototypes, Score, margin

LOWEST_PROBABILITY = torch.finfo(torch.float32).eps
"""Probabilities are clamped to [eps, 1 - eps] before the logarithm in the reference mode, as published."""


def log_probabilities(
    logits: Float[Tensor, "query class h w"], size: tuple[int, int], mode: str
) -> Float[Tensor, "query class height width"]:
    """Log class probabilities at image size: of resized logits, or (reference mode) of resized probabilities."""
    if mode == "default":
        return resize(logits, size).log_softmax(dim=1)
    probabilities = resize(logits.softmax(dim=1), size, align_corners=True)
    return probabilities.clamp(LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY).log()


def weighted_nll(
    log_probability: Float[Tensor, "query class height width"],
    target: Int[Tensor, "query height width"],
    background_weight: float,
) -> Float[Tensor, ""]:
    """Negative log-likelihood with a weight on background pixels, divided by the sum of the weights."""
    weights = log_probability.new_ones(log_probability.shape[1])
    weights[0] = background_weight
    return torch.nn.functional.nll_loss(log_probability, target.long(), weight=weights)


def predicted_masks(logits: Float[Tensor, "query class h w"]) -> Float[Tensor, "query way h w"]:
    """Hard foreground masks of the query at feature resolution, without gradient; a tie is background."""
    winner = logits[:, 1:].argmax(dim=1)
    foreground = margin(logits) > 0
    ways = torch.arange(logits.shape[1] - 1, device=logits.device)
    return ((winner[:, None] == ways[:, None, None]) & foreground[:, None]).to(logits.dtype).detach()


def t_loss(score: Score) -> Float[Tensor, ""]:
    """ADNet's T loss, T_S / alpha: it keeps the threshold low (Hansen et al., 2022)."""
    return score.threshold / score.alpha


def alignment_loss(
    head: Head,
    logits: Float[Tensor, "query class h w"],
    query_features: Float[Tensor, "query channel h w"],
    support_features: Float[Tensor, "way shot channel h w"],
    masks: Bool[Tensor, "way shot height width"],
    mode: str,
) -> Float[Tensor, ""]:
    """The prototype alignment loss of PANet (Wang et al., 2019), for one way.

    The query's predicted mask, at feature resolution and without gradient, gives a prototype that has to segment the
    support. Gradients flow through the features of both. Zero where nothing was predicted.
    """
    predicted = predicted_masks(logits)
    sums = torch.einsum("qwhk,qchk->wc", predicted, query_features)
    area = predicted.sum(dim=(0, 2, 3))
    prototype = (sums / (area[:, None] + 1e-5))[:, None]
    weights = prototype.new_ones(prototype.shape[:2])
    support_logits = head(support_features.flatten(0, 1), Prototypes(prototype, weights))
    target = masks.flatten(0, 1).long()
    loss = weighted_nll(log_probabilities(support_logits, tuple(masks.shape[-2:]), mode), target, background_weight=1.0)
    return torch.where(area.sum() > 0, loss, torch.zeros_like(loss))  # chosen on the device, without asking the host
