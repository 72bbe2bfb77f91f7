"""Refiners: which places of a query volume are foreground, decided again over all of its slices together.

A threshold policy decides how much of a slice is foreground, one slice at a time. These look at the volume: at what hangs
together in three dimensions, at where in the body a place is, and at what else in the scan looks alike. Those that rank
places anew keep the amount: as many cells are foreground as before, so the prior decides how much, the refiner where.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from fsseg.model.cells import (
    Margins,
    UnitFeatures,
    body_extent,
    heaviest_components,
    keep_amount,
    raise_to,
    spread_like,
)
from fsseg.model.chain import Resolution
from fsseg.model.ops import nth_largest, pooling_weights
from fsseg.plugins.options import component
from fsseg.types import QueryVolume, Support

Connectivity = Annotated[
    Literal[6, 18, 26],
    Field(description="neighbours of a cell: across its faces, also its edges, also its corners"),
]

Cells = tuple[Float[Tensor, "h"], Float[Tensor, "w"]]
"""A number for each row of cells, and one for each column."""


@component
class Unrefined:
    """No refiner: what the threshold decided stays. A row that names it is one without refiners."""

    def __init__(self) -> None:
        pass

    def __call__(self, margins: Margins, volume: QueryVolume) -> Margins:
        return margins


@component
class Component3d:
    """Keeps the heaviest connected component of each way in three dimensions: an organ is in one piece.

    Cells of other components become background as clearly as they were foreground.

    Shapes:
        margins `slice way h w` -> margins `slice way h w`.

    Example:
        >>> import torch
        >>> from fsseg import Component3d
        >>> margins = torch.tensor([1.0, 2.0, -1.0, 2.5, -1.0]).view(1, 1, 1, 5)
        >>> Component3d()(margins, None).flatten().tolist()  # 1 + 2 weigh more than 2.5
        [1.0, 2.0, -1.0, -2.5, -1.0]
    """

    resolution: ClassVar[Resolution] = "any"

    def __init__(
        self,
        *,
        connectivity: Connectivity = 6,
        weight: Annotated[
            Literal["margin", "cells"],
            Field(description="what is heavy: a large sum of margins, or many cells"),
        ] = "margin",
    ) -> None:
        self.connectivity = connectivity
        self.weight = weight

    def __call__(self, margins: Margins, volume: QueryVolume) -> Margins:
        kept = heaviest_components(margins, self.connectivity, by_margin=self.weight == "margin")
        return torch.where(kept, margins, -margins.abs())


@component
class Smooth3d:
    """Smooths the margins of each way with a Gaussian, whose width is given in mm across slices and within them.

    The spacing of the query says how many slices and cells that is.

    Shapes:
        margins `slice way h w` -> margins `slice way h w`.
    """

    resolution: ClassVar[Resolution] = "any"

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
        self.through = through
        self.within = within

    def __call__(self, margins: Margins, volume: QueryVolume) -> Margins:
        between, row, column = volume.spacing_of(margins)
        slices = self.through / between
        rows = self.within / row
        columns = self.within / column
        values = margins.detach().float().cpu().numpy()
        sigmas = (slices, 0, rows, columns)
        smooth = ndimage.gaussian_filter(values, sigmas, mode="nearest")
        return torch.from_numpy(smooth).to(margins)


@component
class Amount:
    """Keeps the amount of foreground within what the support's area suggests: an organ is about as deep as it is wide.

    An organ whose labelled section has the area A is taken to have a volume of `depth * A ** 1.5`. Where the prior gives
    more than `factor` times that, or less than a part of it, the amount is brought to that limit; the ranking stays. It
    guards against priors that fail because the query's contrast is not the support's, and changes nothing otherwise.

    Shapes:
        margins `slice way h w` -> margins `slice way h w`.
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
        self.depth = depth
        self.factor = factor

    def __call__(self, margins: Margins, volume: QueryVolume) -> Margins:
        suggested = self._suggested(volume)
        least = (suggested / self.factor).round().long()
        least = least.clamp(min=1)
        most = (suggested * self.factor).round().long()
        cells = margins[:, 0].numel()
        before = (margins > 0).sum(dim=(0, 2, 3))
        wanted = before.clamp(least, most).clamp(max=cells - 1)
        stays = (wanted == before)[:, None, None]
        return torch.where(stays, margins, raise_to(margins, wanted))

    def _suggested(self, volume: QueryVolume) -> Float[Tensor, "way"]:
        """The number of cells that the area in the support suggests for each way."""
        _, row, column = volume.query.spacing
        pixels = volume.support.masks.sum(dim=(2, 3)).float()
        area = pixels.mean(dim=1) * row * column  # the support's pixels are as large as the query's
        return self.depth * area**1.5 / math.prod(volume.spacing)


@component
class Position:
    """Prefers places in the body near those where the support shows the class, and keeps the amount of foreground.

    The log-density of a Gaussian is added to each margin: around the centre of the support's mask within a slice, and
    around its slice's place along the scan. Places within a slice are shares of the body's extent, which is found by
    brightness, so that scans need not be framed alike; this tells left organs from right ones. Then the cells with the
    largest margins are foreground, as many as before.

    Shapes:
        margins `slice way h w` -> margins `slice way h w`.
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
        self.through = through
        self.within = within
        self.frame = frame

    def __call__(self, margins: Margins, volume: QueryVolume) -> Margins:
        return keep_amount(margins + self.log_density(volume), margins)

    def log_density(self, volume: QueryVolume) -> Margins:
        """The log-density of each way at each cell, up to a constant."""
        height, width = volume.features.shape[-2:]
        size = (height, width)
        rows, columns = self._places(volume.query.images, size)
        row, row_variance, column, column_variance = self._spread(volume.support, size)
        support_location = volume.support.location.mean(dim=1)
        along = (volume.query.location[:, None] - support_location) / self.through
        blur = self.within**2
        down = rows - row[:, None]
        down = down.square() / (row_variance + blur)[:, None]
        across = columns - column[:, None]
        across = across.square() / (column_variance + blur)[:, None]
        along = along.square()[:, :, None, None]
        down = down[None, :, :, None]
        across = across[None, :, None, :]
        return -0.5 * (along + down + across)

    def _places(
        self,
        images: Float[Tensor, "slice *channel height width"],
        size: tuple[int, int],
    ) -> Cells:
        """Places of the rows and columns of cells, as shares of the body (or of the image)."""
        extents = [(0.0, float(cells)) for cells in size]
        if self.frame == "body":
            if images.ndim == 4:  # the body is what is bright on average
                images = images.mean(dim=1)
            extents = list(body_extent(images, size))
        places = []
        for cells, (first, last) in zip(size, extents):
            centres = torch.arange(cells, device=images.device) + 0.5
            places.append((centres - first) / (last - first))
        rows, columns = places
        return rows, columns

    def _spread(
        self,
        support: Support,
        size: tuple[int, int],
    ) -> tuple[Float[Tensor, "way"], ...]:
        """Mean and variance of each way's labelled pixels along rows, then those along columns."""
        weights = pooling_weights(support.masks, size)
        rows, columns = [], []
        for image in support.images.flatten(0, 1):
            places = self._places(image[None], size)
            rows.append(places[0])
            columns.append(places[1])
        by_way = tuple(support.images.shape[:2])
        of_rows = torch.stack(rows).unflatten(0, by_way)
        of_columns = torch.stack(columns).unflatten(0, by_way)
        along_rows = _mean_and_variance(of_rows, weights.sum(-1))
        along_columns = _mean_and_variance(of_columns, weights.sum(-2))
        return *along_rows, *along_columns


def _mean_and_variance(
    places: Float[Tensor, "way shot cell"], weights: Float[Tensor, "way shot cell"]
) -> tuple[Float[Tensor, "way"], Float[Tensor, "way"]]:
    """Weighted mean and variance of each way's places."""
    total = weights.sum(dim=(1, 2))
    mean = (weights * places).sum(dim=(1, 2)) / total
    squares = (places - mean[:, None, None]).square()
    return mean, (weights * squares).sum(dim=(1, 2)) / total


@component
class QueryInformed:
    """Learns in the query itself what the class looks like there, and keeps the amount of foreground.

    The support comes from another scan, with its own contrast. The cells of the heaviest component with the largest
    margins are taken for the class; what tells them from the rest of this scan ranks all cells anew, mixed with the
    margins before. "discriminant" is Fisher's: the mean of these cells' features against that of all, whitened by the
    covariance of all, so that directions in which the whole scan varies count little. "prototype" is the cosine with
    their mean, a prototype of the query as in Q-Net's second pass (Shen et al., 2023).

    Shapes:
        margins `slice way h w` -> margins `slice way h w`.
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
        self.method = method
        self.share = share
        self.weight = weight
        self.passes = passes
        self.ridge = ridge

    def __call__(self, margins: Margins, volume: QueryVolume) -> Margins:
        cells = UnitFeatures(volume.features, self.ridge)
        for _ in range(self.passes):
            confident = self._confident(margins)
            learned = [self._learn(cells, of_way) for of_way in confident.unbind(1)]
            ranked = torch.stack(learned, dim=1)
            alike = spread_like(ranked, margins)
            mixed = (1 - self.weight) * margins + self.weight * alike
            margins = keep_amount(mixed, margins)
        return margins

    def _confident(self, margins: Margins) -> Bool[Tensor, "slice way h w"]:
        """The cells to learn from, all that tie included; those of the largest margin where nothing is foreground."""
        organ = heaviest_components(margins)
        cells = organ.sum(dim=(0, 2, 3))
        counts = (cells * self.share).ceil().long()
        span = margins.max() - margins.min() + 1
        ranked = torch.where(organ, margins, margins - span)  # others come after
        by_way = ranked.movedim(1, 0).flatten(1)
        lowest = nth_largest(by_way.float(), counts.clamp(min=1))
        return ranked >= lowest[:, None, None]

    def _learn(
        self, cells: UnitFeatures, chosen: Bool[Tensor, "slice h w"]
    ) -> Float[Tensor, "slice h w"]:
        """Ranks all cells by how much they look like the chosen ones."""
        direction = cells.mean_of(chosen.flatten())
        if self.method == "discriminant":
            direction = cells.whitened(direction)
        return cells.products(direction).view(chosen.shape)
