"""The losses of an episode: of the query, of the prototype alignment, and ADNet's T loss."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.interfaces import Head
from fsseg.model.scoring import Extractor, is_per_query, prototypes_of, score, sees_support
from fsseg.model.segmenter import Mode
from fsseg.model.whole import role_of
from fsseg.plugins.blame import described
from fsseg.plugins.options import component
from fsseg.training.step import TrainingStep, log_probabilities
from fsseg.types import Prototypes, ScoreScale, Support, margin

IGNORED = 255
"""The target of pixels that do not count."""

Loss = Float[Tensor, ""]

Logits = Float[Tensor, "query class h w"]
"""Class logits of the query at feature resolution, background first."""

QueryFeatures = Float[Tensor, "query channel h w"]

SupportFeatures = Float[Tensor, "slice channel h w"]
"""Features of `Support.slices`."""


@component
class QueryNll:
    """How badly the query is segmented from the support: the negative log-likelihood of its classes.

    For pixels x of the query with the class y(x), where w is `background_weight` on the background and 1 elsewhere,

        loss = -sum_x w(x) log P(y(x)) / sum_x w(x)

    (Hansen et al., 2022, with 0.1 on the background, and Kim et al.).

    Shapes:
        log_probability `query class height width`, target `query height width` -> one number.
    """

    fixed_shape: ClassVar[bool] = True

    def __init__(
        self,
        *,
        background_weight: Annotated[
            float,
            Field(gt=0, description="weight of background pixels; 0.1 in the published codes"),
        ] = 0.1,
    ) -> None:
        self.background_weight = background_weight

    def __call__(self, step: TrainingStep) -> Loss:
        return weighted_nll(step.log_probability, step.episode.target, self.background_weight)


@component
class Alignment:
    """How badly the support is segmented from the query: the prototype alignment loss of PANet (Wang et al., 2019).

    Query and support change places: the query's predicted masks, at feature resolution and without gradient, give the
    prototypes, and with them the head has to segment the support. Prototypes are means under the masks. Extractors that
    make background prototypes or see the query make them themselves: for those it is the loss `exchange`.

    Shapes:
        query_features `query channel h w`, support_features `slice channel h w`, logits `query class h w` -> one number.
    """

    fixed_shape: ClassVar[bool] = True

    def __init__(self) -> None:
        pass

    def __call__(self, step: TrainingStep) -> Loss:
        return aligned(step.extractor, step.head, *_exchanged(step))


@component
class Exchange:
    """The alignment loss with prototypes that the training's extractor makes of the query, whatever extractor it is.

    Each way is segmented against the background by itself, and the loss is the mean over the ways that were predicted. An
    extractor that refuses empty masks cannot be used with it.

    Shapes:
        query_features `query channel h w`, support_features `slice channel h w`, logits `query class h w` -> one number.
    """

    fixed_shape: ClassVar[bool] = True
    """As fixed as those of the extractor, which says so itself."""

    def __init__(self) -> None:
        pass

    def __call__(self, step: TrainingStep) -> Loss:
        return exchange_loss(step.extractor, step.head, *_exchanged(step))


@component
class TLoss:
    """ADNet's T loss, `T_S / alpha`: it keeps the score threshold low (Hansen et al., 2022).

    It is for heads with a learned score scale; of others it is 0, which has no gradient.

    Shapes:
        the head's score scale -> one number.
    """

    fixed_shape: ClassVar[bool] = True

    def __init__(self) -> None:
        pass

    def __call__(self, step: TrainingStep) -> Loss:
        score = step.head.score
        return step.logits.new_zeros(()) if score is None else t_loss(score)


def _exchanged(step: TrainingStep) -> tuple[Any, ...]:
    """What the alignment losses look at, as their functions take it.

    Raises:
        FssegError: The head sees the support's images, and would need the query's masks in their place.
    """
    if sees_support(step.head):
        raise FssegError(
            f"training: {described(*role_of(step.head))} sees the support's images, expected a head that does not where query "
            "and support change places in the alignment loss; set training.alignment = 0"
        )
    return (
        step.logits,
        step.query_features,
        step.support_features,
        step.episode.support,
        step.mode,
    )


def weighted_nll(
    log_probability: Float[Tensor, "query class height width"],
    target: Int[Tensor, "query height width"],
    background_weight: float,
) -> Loss:
    """Negative log-likelihood of the target, with a weight on its background pixels.

    For pixels x with target y(x): `-sum_x w(x) log P(y(x)) / sum_x w(x)`, where w is
    `background_weight` on the background and 1 elsewhere.

    Args:
        log_probability: Log class probabilities, background first.
        target: The true class of each pixel: 0 is background, way k is k + 1.
        background_weight: The weight of a background pixel; 0.1 in the published codes.

    Example:
        >>> probability = torch.tensor([[0.5, 0.25], [0.5, 0.75]])  # background, foreground
        >>> target = torch.tensor([0, 1])
        >>> loss = weighted_nll(probability.log().view(1, 2, 1, 2), target.view(1, 1, 2), 0.1)
        >>> round(loss.item(), 4)  # (0.1 log 2 + log 4/3) / 1.1
        0.3245
    """
    classes = log_probability.shape[1]
    weights = log_probability.new_ones(classes)
    weights[0] = background_weight
    return F.nll_loss(log_probability, target.long(), weight=weights)


def predicted_masks(
    logits: Logits,
) -> Float[Tensor, "query way h w"]:
    """Hard foreground masks of the query at feature resolution, without gradient.

    A place belongs to the way with the largest logit, where that exceeds the background's; a tie
    is background.
    """
    of_ways = logits[:, 1:]
    count = of_ways.shape[1]
    ways = torch.arange(count, device=logits.device)
    winner = of_ways.argmax(dim=1)
    wins = winner[:, None] == ways[:, None, None]
    foreground = margin(logits) > 0
    masks = wins & foreground[:, None]
    return masks.to(logits.dtype).detach()


def t_loss(score: ScoreScale) -> Loss:
    """ADNet's T loss, `T_S / alpha`: it keeps the score threshold low (Hansen et al., 2022)."""
    return score.threshold / score.alpha


def aligned(
    prototypes: Extractor,
    head: Head,
    logits: Logits,
    query_features: QueryFeatures,
    support_features: SupportFeatures,
    support: Support,
    mode: Mode,
) -> Loss:
    """The alignment loss that suits an extractor.

    Returns:
        `exchange_loss` for extractors that make background prototypes or see the query, `alignment_loss` for others.
    """
    rest = (logits, query_features, support_features, support, mode)
    if getattr(prototypes, "background", False) or is_per_query(prototypes):
        return exchange_loss(prototypes, head, *rest)
    return alignment_loss(head, *rest)


def alignment_loss(
    head: Head,
    logits: Logits,
    query_features: QueryFeatures,
    support_features: SupportFeatures,
    support: Support,
    mode: Mode,
) -> Loss:
    """The prototype alignment loss of PANet (Wang et al., 2019).

    The query's predicted masks m_c, at feature resolution and without gradient, give the prototypes
    `p_c = sum_x m_c(x) F(x) / (sum_x m_c(x) + 1e-5)`, which have to segment the support. Gradients
    flow through the features of both. A way that was not predicted is left out, and its pixels in
    the support are background, as published; the loss is zero where nothing was predicted.

    Args:
        head: Segments the support.
        logits: The query's class logits, background first.
        query_features: Features of the query's slices.
        support_features: Features of `support.slices`.
        support: The support, whose masks are the target.
        mode: As of `log_probabilities`.
    """
    predicted = predicted_masks(logits)
    sums = torch.einsum("qwhk,qchk->wc", predicted, query_features)
    area = predicted.sum(dim=(0, 2, 3))
    means = sums / (area[:, None] + 1e-5)
    is_predicted = area > 0  # stays on the device: asking the host would stop it in every step
    weights = is_predicted[:, None].to(means.dtype)
    prototypes = Prototypes(means[:, None], weights)
    support_logits = head(support_features, prototypes)

    masks = support.masks & is_predicted[:, None, None, None]
    target = replace(support, masks=masks).target
    log_probability = log_probabilities(support_logits, _image_size(support), mode)
    loss = weighted_nll(log_probability, target, background_weight=1.0)
    nothing = torch.zeros_like(loss)
    return torch.where(is_predicted.any(), loss, nothing)


def exchange_loss(
    prototypes: Extractor,
    head: Head,
    logits: Logits,
    query_features: QueryFeatures,
    support_features: SupportFeatures,
    support: Support,
    mode: Mode,
) -> Loss:
    """The prototype alignment loss for extractors that make background prototypes (PANet, 2019) or see the query.

    Query and support change places: the extractor makes prototypes of the query under its predicted
    masks, at feature resolution and without gradient (one that sees the query makes them for the
    support's slices), and with them the head segments the support, each way against the background by itself. Pixels of other ways do not count. Ways for which the
    extractor gives weights 0 are left out; the loss is the mean over the others, and zero where
    there are none.

    Args:
        prototypes: Makes prototypes of the query.
        head: Segments the support.
        logits: The query's class logits, background first.
        query_features: Features of the query's slices.
        support_features: Features of `support.slices`.
        support: The support, whose masks are the target.
        mode: As of `log_probabilities`.
    """
    predicted = predicted_masks(logits).transpose(0, 1) > 0
    for_each_way = query_features.expand(len(predicted), *query_features.shape)
    of_slices = prototypes_of(prototypes, head, for_each_way, predicted, support_features)
    is_predicted = (of_slices.weights > 0).any(dim=-1)
    if of_slices.by_slice:
        is_predicted = is_predicted.any(dim=0)
    size = _image_size(support)

    losses = []
    for way, features in enumerate(support.spread(support_features)):
        of_query = of_slices.part(_slices_of(support, way))
        logits_alone = score(head, features, _only_way(of_query, way))
        log_probability = log_probabilities(logits_alone, size, mode)
        target = _way_target(support, way)
        loss = F.nll_loss(log_probability, target, ignore_index=IGNORED)
        losses.append(loss)
    kept = torch.where(is_predicted, torch.stack(losses), 0.0)
    count = is_predicted.sum().clamp(min=1)
    return kept.sum() / count


def _image_size(support: Support) -> tuple[int, int]:
    height, width = support.masks.shape[-2:]
    return height, width


def _slices_of(support: Support, way: int) -> slice:
    """Where a way's slices are among `support.slices`."""
    shots = support.masks.shape[1]
    start = 0 if support.shared else way * shots
    return slice(start, start + shots)


def _only_way(prototypes: Prototypes, way: int) -> Prototypes:
    """The prototypes of one way and of the background."""
    foreground = prototypes.foreground[..., way : way + 1, :, :]
    weights = prototypes.weights[..., way : way + 1, :]
    return Prototypes(foreground, weights, prototypes.background)


def _way_target(support: Support, way: int) -> Int[Tensor, "shot height width"]:
    """The target of a way by itself: 1 where it is, IGNORED where another way is, else 0."""
    mask = support.masks[way]
    target = mask.long()
    if not support.shared:
        return target
    others = support.masks.any(dim=0) & ~mask
    return target.masked_fill(others, IGNORED)
