"""ALPNet: local prototypes pooled over windows, for both sides (Ouyang et al., ECCV 2020; TMI 2022)."""

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from fsseg import FssegError, Prototypes, component


@component
class LocalPrototypes:
    """The mean features of windows that lie within a mask, for each way and for the background.

    A way also has the mean over its whole mask, one per shot; where no window lies within it, that is all it has. The
    background has windows only, or its mean where there are none.
    """

    fixed_shape: ClassVar[bool] = False
    background: ClassVar[bool] = True

    def __init__(
        self,
        *,
        window: Annotated[
            int,
            Field(
                ge=1,
                description="side of a window in feature cells; published: 4 in training, 2 in evaluation",
            ),
        ] = 4,
        inside: Annotated[
            float,
            Field(
                gt=0, lt=1, description="share of a window that has to be covered, more than this"
            ),
        ] = 0.95,
        fallback_window: Annotated[
            Literal["same"] | Annotated[int, Field(ge=1)],
            Field(
                description="windows by which to tell whether an organ is large enough for them; published: 4, always"
            ),
        ] = "same",
    ) -> None:
        self.window = window
        self.inside = inside
        self.fallback_window = window if fallback_window == "same" else fallback_window

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        """Ways have different numbers of prototypes; the rows that are missing have weight 0."""
        size = tuple(features.shape[-2:])
        sets = []
        for of_way, way_masks in zip(features, masks):
            sets.append(self._of_way(of_way, _coarse(way_masks, size)))
        most = max(len(rows) for rows in sets)
        foreground = torch.stack([F.pad(rows, (0, 0, 0, most - len(rows))) for rows in sets])
        counts = torch.tensor([len(rows) for rows in sets], device=features.device)
        is_there = torch.arange(most, device=features.device) < counts[:, None]
        is_there = is_there & masks.flatten(1).any(dim=1)[:, None]
        weights = is_there.to(features.dtype) / counts[:, None]
        background = self._of_background(features, 1 - _coarse(masks.any(dim=0), size))
        return Prototypes(foreground, weights, background)

    def _of_way(
        self, features: Float[Tensor, "shot channel h w"], covered: Float[Tensor, "shot h w"]
    ) -> Float[Tensor, "proto channel"]:
        """Prototypes of windows within the masks, and of the whole masks."""
        whole = _mean(features, covered)
        largest = _pooled(covered[:, None], self.fallback_window)
        if not (largest > self.inside).any():
            return whole.mean(dim=0, keepdim=True)
        return torch.cat([self._windows(features, covered), whole])

    def _of_background(
        self, features: Float[Tensor, "way shot channel h w"], covered: Float[Tensor, "shot h w"]
    ) -> Float[Tensor, "proto channel"]:
        """Prototypes of windows within the background, or its mean where there are none."""
        rows = torch.cat([self._windows(of_way, covered) for of_way in features])
        if len(rows):
            return rows
        means = torch.cat([_mean(of_way, covered) for of_way in features])
        return means.mean(dim=0, keepdim=True)

    def _windows(
        self, features: Float[Tensor, "shot channel h w"], covered: Float[Tensor, "shot h w"]
    ) -> Float[Tensor, "proto channel"]:
        within = _pooled(covered[:, None], self.window)[:, 0] > self.inside
        return _pooled(features, self.window).movedim(1, -1)[within]


def _coarse(
    masks: Bool[Tensor, "*any height width"], size: tuple[int, int]
) -> Float[Tensor, "*any h w"]:
    """Masks at feature resolution, by bilinear interpolation; by area for one that this overlooks altogether."""
    fine = masks.float().flatten(0, -3)[:, None] if masks.ndim > 3 else masks.float()[:, None]
    resized = F.interpolate(fine, size, mode="bilinear", align_corners=False)
    overlooked = ~resized.flatten(1).any(dim=1)[:, None, None, None]
    resized = torch.where(overlooked, F.adaptive_avg_pool2d(fine, size), resized)
    return resized.view(*masks.shape[:-2], *size)


def _mean(
    features: Float[Tensor, "shot channel h w"], covered: Float[Tensor, "shot h w"]
) -> Float[Tensor, "shot channel"]:
    """The mean feature of each shot under its coarse mask."""
    weights = covered.to(features.dtype)
    sums = torch.einsum("schk,shk->sc", features, weights)
    return sums / (weights.sum(dim=(1, 2))[:, None] + 1e-5)


def _pooled(
    values: Float[Tensor, "shot channel h w"], window: int
) -> Float[Tensor, "shot channel rows columns"]:
    """Means over windows that do not overlap; what is left at the end is dropped."""
    side = min(window, *values.shape[-2:])
    return F.avg_pool2d(values, side)


@component
class SoftMaximum(nn.Module):
    """The logit of a class is the mean of the scaled cosines to its prototypes, weighted by their own softmax.

    It lies a little below the largest of them, and repeating a whole set changes nothing, so that sets of different
    size compete fairly.
    """

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
        """Raises FssegError without prototypes of the background."""
        if prototypes.background is None:
            raise FssegError(
                'head alpnet: got no background prototypes, expected some; use prototypes = "alp"'
            )
        unit = F.normalize(features, dim=1, eps=1e-4)
        is_there = torch.ones_like(prototypes.background[:, 0], dtype=torch.bool)
        logits = [self._logit(unit, prototypes.background, is_there)]
        for vectors, weights in zip(prototypes.foreground, prototypes.weights):
            logits.append(self._logit(unit, vectors, weights > 0))
        return torch.stack(logits, dim=1)

    def _logit(
        self,
        unit: Float[Tensor, "query channel h w"],
        vectors: Float[Tensor, "proto channel"],
        is_there: Bool[Tensor, "proto"],
    ) -> Float[Tensor, "query h w"]:
        """The soft maximum of the similarities to one class's prototypes."""
        unit_vectors = F.normalize(vectors, dim=1, eps=1e-4)
        similarity = self.scale * torch.einsum("qchk,pc->qphk", unit, unit_vectors)
        absent = ~is_there[None, :, None, None]
        shares = similarity.masked_fill(absent, -1e4).softmax(dim=1)
        # A class without any prototype is nowhere: all its shares are equal then, and its similarities the lowest.
        return (shares * similarity.masked_fill(absent, -self.scale)).sum(dim=1)
