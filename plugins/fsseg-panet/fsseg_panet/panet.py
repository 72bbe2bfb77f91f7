"""PANet: one prototype for each class and one for the background, and the cosine to each (Wang et al., ICCV 2019)."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from fsseg import FssegError, MaskedAverage, Prototypes, component


@component
class BothSides:
    """Masked average pooling of both sides: a prototype per way, and one of the background.

    The background of a support slice is what no way's mask covers. It is pooled for every way and shot and averaged over
    both, so that in an episode of several ways from one slice the background counts once for each.
    """

    fixed_shape: ClassVar[bool] = True
    background: ClassVar[bool] = True

    def __init__(self) -> None:
        self._pool = MaskedAverage()

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        """A way without a mask has weight 0; without background its prototype is zeros, which no feature is like."""
        of_ways = self._pool(features, masks)
        outside = ~masks.any(dim=0, keepdim=True).expand_as(masks)
        background = self._pool(features, outside).foreground.mean(dim=0)
        return Prototypes(of_ways.foreground, of_ways.weights, background)


@component
class CosineSoftmax(nn.Module):
    """The logit of a class, and that of the background, is the scaled cosine to its prototype."""

    score = None
    sigma = None

    def __init__(
        self, *, scale: Annotated[float, Field(gt=0, description="factor of the cosine")] = 20.0
    ) -> None:
        super().__init__()
        self.scale = scale

    def forward(
        self, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        """Raises FssegError for several prototypes in a way, or without any of the background."""
        ways, count, _ = prototypes.foreground.shape
        if count != 1 or prototypes.background is None:
            raise FssegError(
                f"head panet: got {count} prototypes in each of {ways} ways and "
                f"{'no background' if prototypes.background is None else 'a background'}, expected one and a background; "
                'use prototypes = "panet"'
            )
        background = prototypes.background.mean(dim=0, keepdim=True)
        vectors = torch.cat([background, prototypes.foreground[:, 0]])
        unit_features = F.normalize(features, dim=1, eps=1e-8)
        unit_vectors = F.normalize(vectors, dim=1, eps=1e-8)
        return self.scale * torch.einsum("qchk,pc->qphk", unit_features, unit_vectors)
