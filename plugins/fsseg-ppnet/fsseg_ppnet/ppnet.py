"""PPNet: part-aware prototypes by clustering, for both sides (Liu et al., ECCV 2020)."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from fsseg import FssegError, MaskedAverage, Prototypes, component

FEW = 10
"""Cells of a class up to which its pixels are clustered instead, as published."""


@component
class Parts:
    """The centres of k-means clusters of each way's features, and of the background's, each drawn towards their mean.

    Foreground features are resized to twice their grid first. Centres start at the features that are farthest from
    one another, so nothing is drawn by lot; assignments have no gradient, the centres are means of their members.
    """

    fixed_shape: ClassVar[bool] = False
    background: ClassVar[bool] = True

    def __init__(
        self,
        *,
        count: Annotated[int, Field(ge=1, description="clusters of each class at most")] = 5,
        iterations: Annotated[
            int, Field(ge=1, description="assignments of features to clusters")
        ] = 10,
        global_weight: Annotated[
            float,
            Field(
                ge=0, description="share of the class's mean feature that is added to every centre"
            ),
        ] = 0.8,
        normalise: Annotated[
            bool, Field(description="cluster directions; published: features as they are")
        ] = False,
    ) -> None:
        self.count = count
        self.iterations = iterations
        self.global_weight = global_weight
        self.normalise = normalise
        self._pool = MaskedAverage()

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        """A way with fewer features than clusters has fewer; the rows that are missing have weight 0."""
        outside = ~masks.any(dim=0, keepdim=True).expand_as(masks)
        means = self._pool(features, masks).foreground[:, 0]
        outside_means = self._pool(features, outside).foreground[:, 0]
        sets = []
        for of_way, way_masks, mean in zip(features, masks, means):
            centres = self._centres(_vectors(of_way, way_masks, 2))
            sets.append(centres + self.global_weight * mean)
        foreground = torch.stack([F.pad(rows, (0, 0, 0, self.count - len(rows))) for rows in sets])
        counts = torch.tensor([len(rows) for rows in sets], device=features.device)
        is_there = torch.arange(self.count, device=features.device) < counts[:, None]
        is_there = is_there & masks.flatten(1).any(dim=1)[:, None]
        weights = is_there.to(features.dtype) / counts[:, None]
        unmasked = [_vectors(of_way, rest, 1) for of_way, rest in zip(features, outside)]
        background = self._centres(torch.cat(unmasked))
        background = background + self.global_weight * outside_means.mean(dim=0)
        return Prototypes(foreground, weights, background)

    def _centres(
        self, vectors: Float[Tensor, "vector channel"]
    ) -> Float[Tensor, "cluster channel"]:
        """The means of the clusters, through which gradients flow to their members."""
        if self.normalise:
            vectors = F.normalize(vectors, dim=1)
        nearest = cluster(vectors.detach().float(), self.count, self.iterations)
        members = F.one_hot(nearest).to(vectors.dtype)
        members = members[:, members.any(dim=0)]
        return members.T @ vectors / members.sum(dim=0)[:, None]


def cluster(
    vectors: Float[Tensor, "vector channel"], count: int, iterations: int
) -> Int[Tensor, "vector"]:
    """Finds the cluster of each vector by k-means, from centres that are far apart.

    A cluster that is empty keeps its centre.

    Args:
        vectors: The vectors.
        count: Clusters at most.
        iterations: Assignments of vectors to clusters.

    Returns:
        The number of each vector's cluster.
    """
    centres = _far_apart(vectors, min(count, len(vectors)))
    nearest = torch.cdist(vectors, centres).argmin(dim=1)
    for _ in range(iterations - 1):
        members = F.one_hot(nearest, len(centres)).to(vectors.dtype)
        size = members.sum(dim=0)[:, None]
        centres = torch.where(size > 0, members.T @ vectors / size.clamp(min=1), centres)
        nearest = torch.cdist(vectors, centres).argmin(dim=1)
    return nearest


def _far_apart(
    vectors: Float[Tensor, "vector channel"], count: int
) -> Float[Tensor, "cluster channel"]:
    """The vector farthest from the mean, then again and again the one farthest from all before."""
    place = (vectors - vectors.mean(dim=0)).norm(dim=1).argmax()
    centres = [vectors[place]]
    away = torch.full_like(vectors[:, 0], torch.inf)
    for _ in range(count - 1):
        away = torch.minimum(away, (vectors - centres[-1]).norm(dim=1))
        centres.append(vectors[away.argmax()])
    return torch.stack(centres)


def _vectors(
    features: Float[Tensor, "shot channel h w"],
    masks: Bool[Tensor, "shot height width"],
    factor: int,
) -> Float[Tensor, "vector channel"]:
    """The features under the masks of all shots, on a grid that is `factor` times as fine.

    Where they are few, those of every pixel.
    """
    cells = tuple(factor * side for side in features.shape[-2:])
    within = F.interpolate(masks[:, None].float(), cells, mode="nearest")[:, 0] > 0
    if int(within.sum()) <= FEW:
        cells = tuple(masks.shape[-2:])
        within = masks
    if not within.any():
        return features.new_zeros(1, features.shape[1])
    fine = F.interpolate(features, cells, mode="bilinear", align_corners=True)
    return fine.movedim(1, -1)[within]


@component
class NearestPart(nn.Module):
    """The logit of a class is the scaled cosine to the nearest of its prototypes."""

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
                'head ppnet: got no background prototypes, expected some; use prototypes = "kmeans_parts"'
            )
        unit = F.normalize(features, dim=1, eps=1e-8)
        of_background = F.normalize(prototypes.background, dim=1, eps=1e-8)
        of_ways = F.normalize(prototypes.foreground, dim=2, eps=1e-8)
        background = torch.einsum("qchk,pc->qphk", unit, of_background)
        foreground = torch.einsum("qchk,wpc->qwphk", unit, of_ways)
        is_there = (prototypes.weights > 0)[None, :, :, None, None]
        nearest = foreground.masked_fill(~is_there, -1.0).amax(dim=2)
        nearest_background = background.amax(dim=1, keepdim=True)
        return self.scale * torch.cat([nearest_background, nearest], dim=1)
