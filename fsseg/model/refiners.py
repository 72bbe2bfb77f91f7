"""Refiners: which places of a query volume are foreground, decided again over all of its slices together.

A threshold policy says how much of a slice is foreground, one slice at a time. These look at the volume: at what hangs
together in three dimensions, at where in the body a place is, and at what else in the same scan looks alike. Those that
rank places anew keep the amount: as many cells of the volume are foreground as before, so that the prior decides how much
and the refiner where.
"""

import math
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from fsseg.model.ops import ideal_prior, nth_largest, pooling_weights
from fsseg.types import QueryVolume, Support

Connectivity = Annotated[
    Literal[6, 18, 26],
    Field(description="neighbours of a cell: across its faces, also its edges, also its corners"),
]

BODY = 0.15
"""What is brighter than this share of the way from the darkest to nearly the brightest cells is body."""

CELLS = 8192
"""Cells of a query from which its covariance is estimated, at most: some hundred numbers do not need more."""


class Unrefined:
    """No refiner: what the threshold decided stays. A row that names it is one without refiners."""

    def __init__(self) -> None:
        pass

    def __call__(
        self, margins: Float[Tensor, "slice way h w"], volume: QueryVolume
    ) -> Float[Tensor, "slice way h w"]:
        return margins


class Component3d:
    """Keeps the heaviest connected component of each way in three dimensions: an organ is in one piece.

    Cells of other components become background as clearly as they were foreground.
    """

    def __init__(
        self,
        *,
        connectivity: Connectivity = 6,
        weight: Annotated[
            Literal["margin", "cells"],
            Field(description="what is heavy: a large sum of margins, or many cells"),
        ] = "margin",
    ) -> None:
        self.connectivity, self.weight = connectivity, weight

    def __call__(
        self, margins: Float[Tensor, "slice way h w"], volume: QueryVolume
    ) -> Float[Tensor, "slice way h w"]:
        kept = heaviest_components(margins, self.connectivity, by_margin=self.weight == "margin")
        return torch.where(kept, margins, -margins.abs())


class Smooth3d:
    """Smooths the margins of each way with a Gaussian, whose width is told in mm across slices and within them."""

    def __init__(
        self,
        *,
        through: Annotated[
            float, Field(ge=0, description="standard deviation across slices, mm")
        ] = 6.0,
        within: Annotated[
            float, Field(ge=0, description="standard deviation within slices, mm")
        ] = 0.0,
    ) -> None:
        self.through, self.within = through, within

    def __call__(
        self, margins: Float[Tensor, "slice way h w"], volume: QueryVolume
    ) -> Float[Tensor, "slice way h w"]:
        between, row, column = volume.spacing
        sigmas = (self.through / between, 0, self.within / row, self.within / column)
        smooth = ndimage.gaussian_filter(
            margins.detach().float().cpu().numpy(), sigmas, mode="nearest"
        )
        return torch.from_numpy(smooth).to(margins)


class Amount:
    """Keeps the amount of foreground within what the support's area suggests: an organ is about as deep as it is wide.

    An organ whose labelled section has the area A is taken to have a volume of `depth * A ** 1.5`. Where the prior gives
    more than `factor` times that, or less than a part of it, the amount is brought to that limit; the ranking stays. It
    guards against priors that fail because the query's contrast is not the support's, and changes nothing otherwise.
    """

    def __init__(
        self,
        *,
        depth: Annotated[
            float,
            Field(
                gt=0,
                description="volume for an area to the power of 1.5; a ball through its middle has 0.75",
            ),
        ] = 2.0,
        factor: Annotated[
            float, Field(ge=1, description="how many times more or less is let pass")
        ] = 2.0,
    ) -> None:
        self.depth, self.factor = depth, factor

    def __call__(
        self, margins: Float[Tensor, "slice way h w"], volume: QueryVolume
    ) -> Float[Tensor, "slice way h w"]:
        _, row, column = volume.query.spacing
        area = (
            volume.support.masks.sum(dim=(2, 3)).float().mean(dim=1) * row * column
        )  # pixels are as large as the query's
        suggested = self.depth * area**1.5 / math.prod(volume.spacing)
        before = (margins > 0).sum(dim=(0, 2, 3))
        limits = (
            (suggested / self.factor).round().long().clamp(min=1),
            (suggested * self.factor).round().long(),
        )
        wanted = before.clamp(*limits).clamp(max=margins[:, 0].numel() - 1)
        return torch.where((wanted == before)[:, None, None], margins, raise_to(margins, wanted))


class Position:
    """Prefers places in the body near those where the support shows the class, and keeps the amount of foreground.

    The log-density of a Gaussian is added to each margin: around the centre of the support's mask within a slice, and
    around its slice's place along the scan. Places within a slice are shares of the body's extent, which is found by
    brightness, so that scans need not be framed alike; this tells left organs from right ones. Then the cells with the
    largest margins are foreground, as many as before.
    """

    def __init__(
        self,
        *,
        through: Annotated[
            float,
            Field(gt=0, description="standard deviation along the scan, as a share of its length"),
        ] = 0.25,
        within: Annotated[
            float,
            Field(
                gt=0,
                description="standard deviation within a slice beyond the mask's own, as a share of the body",
            ),
        ] = 0.3,
        frame: Annotated[
            Literal["body", "image"], Field(description="of what places within a slice are shares")
        ] = "body",
    ) -> None:
        self.through, self.within, self.frame = through, within, frame

    def __call__(
        self, margins: Float[Tensor, "slice way h w"], volume: QueryVolume
    ) -> Float[Tensor, "slice way h w"]:
        return keep_amount(margins + self.log_density(volume), margins)

    def log_density(self, volume: QueryVolume) -> Float[Tensor, "slice way h w"]:
        """The log-density of each way at each cell, up to a constant."""
        size = tuple(volume.features.shape[-2:])
        rows, columns = self._places(volume.query.images, size)
        (row, row_variance), (column, column_variance) = self._spread(volume.support, size)
        along = (
            volume.query.location[:, None] - volume.support.location.mean(dim=1)
        ) / self.through
        down = (rows - row[:, None]).square() / (row_variance[:, None] + self.within**2)
        across = (columns - column[:, None]).square() / (column_variance[:, None] + self.within**2)
        return -0.5 * (
            along.square()[:, :, None, None] + down[None, :, :, None] + across[None, :, None, :]
        )

    def _places(
        self, images: Float[Tensor, "slice height width"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "h"], Float[Tensor, "w"]]:
        """Where each row and column of cells is, as a share of the body (or of the image)."""
        whole = ((0.0, float(size[0])), (0.0, float(size[1])))
        extents = body_extent(images, size) if self.frame == "body" else whole
        return tuple(
            (torch.arange(count, device=images.device) + 0.5 - first) / (last - first)
            for count, (first, last) in zip(size, extents)
        )

    def _spread(
        self, support: Support, size: tuple[int, int]
    ) -> list[tuple[Float[Tensor, "way"], Float[Tensor, "way"]]]:
        """Mean and variance of each way's places, along rows and along columns, over all of its labelled pixels."""
        weights = pooling_weights(support.masks, size)
        places = [
            [self._places(image[None], size) for image in images] for images in support.images
        ]
        found = []
        for axis, across in enumerate((-1, -2)):
            own = weights.sum(dim=across)  # way x shot x cell
            at = torch.stack([torch.stack([shot[axis] for shot in shots]) for shots in places])
            total = own.sum(dim=(1, 2))
            mean = (own * at).sum(dim=(1, 2)) / total
            found.append(
                (mean, (own * (at - mean[:, None, None]).square()).sum(dim=(1, 2)) / total)
            )
        return found


class QueryInformed:
    """Learns in the query itself what the class looks like there, and keeps the amount of foreground.

    The support comes from another scan, with its own contrast. The cells of the heaviest component with the largest
    margins are taken for the class; what tells them from the rest of this scan ranks all cells anew, mixed with the
    margins before. "discriminant" is Fisher's: the mean of these cells' features against that of all, whitened by the
    covariance of all, so that directions in which the whole scan varies count little. "prototype" is the cosine with
    their mean, a prototype of the query as in Q-Net's second pass (Shen et al., 2023).
    """

    def __init__(
        self,
        *,
        method: Annotated[
            Literal["discriminant", "prototype"],
            Field(description="how cells are told apart by their features"),
        ] = "discriminant",
        share: Annotated[
            float,
            Field(
                gt=0,
                le=1,
                description="share of the heaviest component's cells that are learned from",
            ),
        ] = 0.5,
        weight: Annotated[
            float, Field(ge=0, le=1, description="of what was learned, beside the margins before")
        ] = 0.5,
        passes: Annotated[
            int, Field(ge=1, description="how often, each time from what came out before")
        ] = 1,
        ridge: Annotated[
            float,
            Field(gt=0, description="added to the covariance's diagonal, as a share of its mean"),
        ] = 0.05,
    ) -> None:
        self.method, self.share, self.weight, self.passes = method, share, weight, passes
        self.ridge = ridge

    def __call__(
        self, margins: Float[Tensor, "slice way h w"], volume: QueryVolume
    ) -> Float[Tensor, "slice way h w"]:
        cells = _Cells(volume.features, self.ridge)
        for _ in range(self.passes):
            learned = [self._learn(cells, way) for way in self._confident(margins).unbind(1)]
            scores = torch.stack([way.view_as(margins[:, 0]) for way in learned], dim=1)
            mixed = (1 - self.weight) * margins + self.weight * _like(scores, margins)
            margins = keep_amount(mixed, margins)
        return margins

    def _confident(self, margins: Float[Tensor, "slice way h w"]) -> Bool[Tensor, "slice way h w"]:
        """The cells to learn from, all that tie included; those of the largest margin where nothing is foreground."""
        component = heaviest_components(margins)
        counts = (component.sum(dim=(0, 2, 3)) * self.share).ceil().long().clamp(min=1)
        ranked = torch.where(component, margins, margins - (margins.max() - margins.min() + 1))
        lowest = nth_largest(ranked.movedim(1, 0).flatten(1).float(), counts)
        return ranked >= lowest[:, None, None]

    def _learn(self, cells: "_Cells", chosen: Bool[Tensor, "slice h w"]) -> Float[Tensor, "cell"]:
        mean = cells.mean_of(chosen.flatten())
        return cells.products(cells.whitened(mean) if self.method == "discriminant" else mean)


class _Cells:
    """The features of all cells of a query with unit length, about their mean; they are never written out."""

    def __init__(self, features: Float[Tensor, "slice channel h w"], ridge: float) -> None:
        self._vectors = features.movedim(1, -1).flatten(0, 2).float()
        self._shares = 1 / self._vectors.norm(dim=1).clamp(min=1e-12)
        self._mean, self._ridge = self._vectors.T @ self._shares / len(self._vectors), ridge

    def mean_of(self, chosen: Bool[Tensor, "cell"]) -> Float[Tensor, "channel"]:
        """The mean of some cells."""
        return (self._vectors[chosen] * self._shares[chosen, None]).mean(dim=0) - self._mean

    def products(self, direction: Float[Tensor, "channel"]) -> Float[Tensor, "cell"]:
        """The dot product of every cell with a direction."""
        return self._vectors @ direction * self._shares - self._mean @ direction

    def whitened(self, direction: Float[Tensor, "channel"]) -> Float[Tensor, "channel"]:
        """The direction, divided by the covariance of the cells."""
        step = -(-len(self._vectors) // CELLS)
        some = self._vectors[::step] * self._shares[::step, None]
        some = some - some.mean(dim=0)
        covariance = some.T @ some / len(some)
        level = self._ridge * covariance.diagonal().mean() + 1e-12
        covariance = covariance + level * torch.eye(len(covariance), device=covariance.device)
        return torch.linalg.solve(covariance, direction)


def heaviest_components(
    margins: Float[Tensor, "slice way h w"], connectivity: int = 26, *, by_margin: bool = True
) -> Bool[Tensor, "slice way h w"]:
    """The heaviest connected component of each way's foreground; nothing where a way has none."""
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    values = margins.detach().float().cpu().numpy()
    kept = np.zeros(values.shape, dtype=bool)
    for way in range(values.shape[1]):
        foreground = values[:, way] > 0
        labels, count = ndimage.label(foreground, structure)
        if count:
            weights = np.where(foreground, values[:, way], 0).ravel() if by_margin else None
            kept[:, way] = labels == 1 + np.bincount(labels.ravel(), weights)[1:].argmax()
    return torch.from_numpy(kept).to(margins.device)


def keep_amount(
    ranked: Float[Tensor, "slice way h w"], before: Float[Tensor, "slice way h w"]
) -> Float[Tensor, "slice way h w"]:
    """Other margins, raised so that as many cells of each way are positive in the volume as before."""
    return raise_to(ranked, (before > 0).sum(dim=(0, 2, 3)))


def raise_to(
    ranked: Float[Tensor, "slice way h w"], counts: Int[Tensor, "way"]
) -> Float[Tensor, "slice way h w"]:
    """Each way's margins plus the log-odds under which so many of its cells in the volume are positive."""
    by_way = ranked.movedim(1, 0).flatten(1, 2)  # way x rows of all slices x w
    return ranked + ideal_prior(by_way, counts)[:, None, None]


def body_extent(
    images: Float[Tensor, "slice height width"], size: tuple[int, int]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the body begins and ends along rows and columns, in cells: the median over slices that show it."""
    cells = F.adaptive_avg_pool2d(images[:, None].float(), size)[:, 0]
    darkest = cells.min()
    bright = cells > darkest + BODY * (cells.flatten().quantile(0.99) - darkest)
    rows, columns = _extent(bright.any(dim=2)), _extent(bright.any(dim=1))
    return rows, columns


def _extent(shown: Bool[Tensor, "slice cell"]) -> tuple[float, float]:
    shown = shown[shown.any(dim=1)].int()
    if not len(shown):
        return 0.0, float(shown.shape[1])
    first = shown.argmax(dim=1).float().median()
    last = shown.shape[1] - shown.flip(1).argmax(dim=1).float().median()
    return float(first), float(last)


def _like(
    scores: Float[Tensor, "slice way h w"], margins: Float[Tensor, "slice way h w"]
) -> Tensor:
    """Scores with the mean and the spread that each way's margins have over the volume."""
    every = (0, 2, 3)
    spread, wanted = scores.std(dim=every, keepdim=True), margins.std(dim=every, keepdim=True)
    centred = (scores - scores.mean(dim=every, keepdim=True)) / spread.clamp(min=1e-12)
    return centred * wanted + margins.mean(dim=every, keepdim=True)
