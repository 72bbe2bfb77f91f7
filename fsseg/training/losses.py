"""Training losses of ADNet and TPM: query segmentation, prototype alignment, and ADNet's T loss."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsseg.interfaces import Head, PrototypeExtractor
from fsseg.model.ops import resize
from fsseg.types import Prototypes, ScoreScale, Support, margin

LOWEST_PROBABILITY = torch.finfo(torch.float32).eps
"""Probabilities are clamped to [eps, 1 - eps] before the logarithm in the reference mode, as published."""

IGNORED = 255
"""The target of pixels that do not count."""


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
    return (
        ((winner[:, None] == ways[:, None, None]) & foreground[:, None]).to(logits.dtype).detach()
    )


def t_loss(score: ScoreScale) -> Float[Tensor, ""]:
    """ADNet's T loss, T_S / alpha: it keeps the threshold low (Hansen et al., 2022)."""
    return score.threshold / score.alpha


def alignment_loss(
    head: Head,
    logits: Float[Tensor, "query class h w"],
    query_features: Float[Tensor, "query channel h w"],
    support_features: Float[Tensor, "slice channel h w"],
    support: Support,
    mode: str,
) -> Float[Tensor, ""]:
    """The prototype alignment loss of PANet (Wang et al., 2019).

    The query's predicted masks, at feature resolution and without gradient, give prototypes that have to segment the
    support. Gradients flow through the features of both. A way that was not predicted is left out, and its pixels in
    the support are background, as published; the loss is zero where nothing was predicted.
    """
    predicted = predicted_masks(logits)
    sums = torch.einsum("qwhk,qchk->wc", predicted, query_features)
    area = predicted.sum(dim=(0, 2, 3))
    prototype = (sums / (area[:, None] + 1e-5))[:, None]
    found = area > 0  # stays on the device: asking the host would stop it in every step
    support_logits = head(
        support_features, Prototypes(prototype, found[:, None].to(prototype.dtype))
    )
    target = replace(support, masks=support.masks & found[:, None, None, None]).target
    size = tuple(support.masks.shape[-2:])
    loss = weighted_nll(
        log_probabilities(support_logits, size, mode), target, background_weight=1.0
    )
    return torch.where(found.any(), loss, torch.zeros_like(loss))


def exchange_loss(
    prototypes: PrototypeExtractor,
    head: Head,
    logits: Float[Tensor, "query class h w"],
    query_features: Float[Tensor, "query channel h w"],
    support_features: Float[Tensor, "slice channel h w"],
    support: Support,
    mode: str,
) -> Float[Tensor, ""]:
    """The prototype alignment loss for extractors that make background prototypes (Wang et al., PANet, 2019).

    Query and support change places: the extractor makes prototypes of the query under its predicted masks, at feature
    resolution and without gradient, and with them the head segments the support, each way against the background by
    itself. Pixels of other ways do not count. Ways for which the extractor gives weights 0 are left out; the loss is
    the mean over the others, and zero where there are none.
    """
    predicted = predicted_masks(logits).transpose(0, 1) > 0
    ways = len(predicted)
    made = prototypes(query_features.expand(ways, *query_features.shape), predicted, head.sigma)
    there = (made.weights > 0).any(dim=1)
    shown, size = support.masks.any(dim=0), tuple(support.masks.shape[-2:])
    losses = []
    for way, features in enumerate(support.spread(support_features)):
        alone = Prototypes(made.foreground[way][None], made.weights[way][None], made.background)
        mask = support.masks[way]
        other = shown & ~mask if support.shared else torch.zeros_like(mask)
        target = mask.long().masked_fill(other, IGNORED)
        log_probability = log_probabilities(head(features, alone), size, mode)
        losses.append(torch.nn.functional.nll_loss(log_probability, target, ignore_index=IGNORED))
    kept = torch.where(there, torch.stack(losses), 0.0)
    return kept.sum() / there.sum().clamp(min=1)
