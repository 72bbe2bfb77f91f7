"""Q-Net: a threshold that each image decides for itself, on two scales of features (Shen et al., IntelliSys 2023)."""

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from fsseg import FssegError, MaskedAverage, Prototypes, component
from fsseg_qnet.scales import unpack

LOWEST = 1e-6
"""Probabilities of the combined map are kept this far from 0 and 1, so that their log-odds are finite."""


@component
class PrototypeOfEachScale:
    """Masked average pooling on each scale: one prototype per way, the fine one's channels before the coarse one's."""

    fixed_shape: ClassVar[bool] = True
    background: ClassVar[bool] = False

    def __init__(self) -> None:
        self._pool = MaskedAverage()

    def __call__(
        self,
        features: Float[Tensor, "way shot both h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        """Features of a backbone with two scales; a way without a mask has weight 0."""
        fine, coarse = (self._pool(scale, masks) for scale in unpack(features))
        both = torch.cat([fine.foreground, coarse.foreground], dim=2)
        return Prototypes(both, fine.weights)


@component
class QueryInformed(nn.Module):
    """ADNet's anomaly score on two scales, with a score threshold that is an affine map of the image's coarse features.

    The foreground's probability is the weighted mean of both scales'. In evaluation the prototypes may be refined on each
    query slice first.
    """

    score = None
    sigma = None
    trained_options: ClassVar[tuple[str, ...]] = ("channels", "initial_threshold")

    def __init__(
        self,
        *,
        channels: Annotated[
            int, Field(ge=1, description="width of each scale, as of the backbone")
        ] = 256,
        alpha: Annotated[
            float, Field(gt=0, description="scale of the cosine in the anomaly score")
        ] = 20.0,
        fine: Annotated[
            float,
            Field(
                ge=0,
                le=1,
                description="share of the fine scale; published: 0.9 in setting 1, 0.6 in setting 2",
            ),
        ] = 0.9,
        initial_threshold: Annotated[
            float,
            Field(
                description="the score threshold before training; published: near 0; ADNet's -10 trains sooner"
            ),
        ] = 0.0,
        refine: Annotated[
            Literal["none", "qnet", "mse"],
            Field(
                description="of prototypes in evaluation: none, as published, or towards the query's own mean"
            ),
        ] = "none",
        steps: Annotated[int, Field(ge=1, description="of the refinement")] = 7,
        rate: Annotated[
            float, Field(gt=0, description="learning rate of the refinement (Adam)")
        ] = 0.01,
    ) -> None:
        super().__init__()
        self.channels, self.alpha, self.fine = channels, alpha, fine
        self.refine, self.steps, self.rate = refine, steps, rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.threshold = nn.Linear(channels, 1)
            nn.init.normal_(self.threshold.weight, std=0.01)
            nn.init.constant_(self.threshold.bias, initial_threshold)

    def forward(
        self, features: Float[Tensor, "query both h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        """Raises FssegError for features of another width, and for several prototypes in a way."""
        ways, count, width = prototypes.foreground.shape
        if count != 1 or width != 2 * self.channels:
            raise FssegError(
                f"head qnet: got {count} prototypes in each of {ways} ways and features of {width} channels, expected one "
                f"and {2 * self.channels}; use a backbone of two scales, and give the head its channels"
            )
        fine, coarse = unpack(features)
        threshold = self.threshold(coarse.mean(dim=(2, 3)))  # query x 1
        of_fine, of_coarse = prototypes.foreground[:, 0].chunk(2, dim=1)
        size = fine.shape[-2:]
        of_fine = self._probability_at(size, fine, of_fine, threshold)
        of_coarse = self._probability_at(size, coarse, of_coarse, threshold)
        probability = self.fine * of_fine + (1 - self.fine) * of_coarse
        foreground = probability.clamp(LOWEST, 1 - LOWEST).logit()
        is_there = (prototypes.weights[:, 0] > 0)[None, :, None, None]
        foreground = foreground.masked_fill(~is_there, -self.alpha)
        background = torch.zeros_like(foreground[:, :1])
        return torch.cat([background, foreground], dim=1)

    def _probability_at(
        self,
        size: torch.Size,
        scale: Float[Tensor, "query channel h w"],
        towards: Float[Tensor, "way channel"],
        threshold: Float[Tensor, "query 1"],
    ) -> Float[Tensor, "query way fine_h fine_w"]:
        """The probability on one scale, with prototypes that may be refined first, resized to the fine grid."""
        vectors = self._refined(scale, towards, threshold)
        probability = self._probability(scale, vectors, threshold)
        return F.interpolate(probability, size, mode="bilinear", align_corners=True)

    def _probability(
        self,
        scale: Float[Tensor, "query channel h w"],
        towards: Float[Tensor, "query way channel"],
        threshold: Float[Tensor, "query 1"],
    ) -> Float[Tensor, "query way h w"]:
        """One minus the logistic function of half the score above the threshold."""
        unit_scale = F.normalize(scale, dim=1)
        unit_towards = F.normalize(towards, dim=2)
        cosine = torch.einsum("qchk,qwc->qwhk", unit_scale, unit_towards)
        return ((self.alpha * cosine + threshold[:, :, None, None]) / 2).sigmoid()

    def _refined(
        self,
        scale: Float[Tensor, "query channel h w"],
        towards: Float[Tensor, "way channel"],
        threshold: Float[Tensor, "query 1"],
    ) -> Float[Tensor, "query way channel"]:
        """The prototypes for each query slice: its own where they are refined, otherwise the support's for all."""
        by_slice = towards.expand(len(scale), *towards.shape)
        if self.training or self.refine == "none":
            return by_slice
        refined = []
        with torch.enable_grad():
            for number in range(len(scale)):
                part = slice(number, number + 1)
                refined.append(self._refine(scale[part], by_slice[part], threshold[part]))
        return torch.cat(refined)

    def _refine(
        self,
        scale: Float[Tensor, "1 channel h w"],
        start: Float[Tensor, "1 way channel"],
        threshold: Float[Tensor, "1 1"],
    ) -> Float[Tensor, "1 way channel"]:
        """Some steps of Adam on the prototypes of a slice, each by itself; the features stay as they are."""
        scale = scale.detach().float()
        threshold = threshold.detach().float()
        refined = start.detach().float().clone().requires_grad_()
        optimiser = torch.optim.Adam([refined], lr=self.rate)
        loss_of = _published_loss if self.refine == "qnet" else _distance_loss
        for _ in range(self.steps):
            mask = (self._probability(scale, refined, threshold) > 0.5).float().detach()
            ways = range(refined.shape[1])
            loss = sum(loss_of(scale, mask[:, way], refined[:, way]) for way in ways)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return refined.detach().to(start.dtype)


def _published_loss(
    scale: Float[Tensor, "1 channel h w"],
    mask: Float[Tensor, "1 h w"],
    prototype: Float[Tensor, "1 channel"],
) -> Float[Tensor, ""]:
    """The cross-entropy between the features and the features with the prototype put in under the mask.

    The prototype is in the target, in which this loss is linear, so that its gradient is never positive and every
    channel grows by about the learning rate at each step, whatever the mismatch. It is kept as published.
    """
    replaced = scale * (1 - mask[:, None]) + mask[:, None] * prototype[:, :, None, None]
    return F.binary_cross_entropy(_stretched(scale).sigmoid(), _stretched(replaced).sigmoid())


def _distance_loss(
    scale: Float[Tensor, "1 channel h w"],
    mask: Float[Tensor, "1 h w"],
    prototype: Float[Tensor, "1 channel"],
) -> Float[Tensor, ""]:
    """The mean squared distance of the features under the mask to the prototype; its least is at their mean."""
    distance = (scale - prototype[:, :, None, None]).square().mean(dim=1)
    return (distance * mask).sum() / mask.sum().clamp(min=1)


def _stretched(values: Tensor) -> Tensor:
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-8)
