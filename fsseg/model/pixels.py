"""Feature vectors of pixels, without the resized features that they would be read from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Means = Float[Tensor, "proto channel"]
"""A vector for each prototype."""

OfPixels = Float[Tensor, "pixel"]
"""A number for each pixel."""

Cells = Int[Tensor, "pixel"]
"""A cell for each pixel."""


@dataclass(frozen=True)
class Pixels:
    """Feature vectors of pixels, each a weighted sum of a few cells of the features, which are never written out.

    EM needs only products of the vectors with means, and weighted sums of the vectors. Both are linear, so they are
    worked out on the cells, of which there are some hundred times fewer than pixels.

    Attributes:
        cells: The features of the cells that have a share in any pixel.
        places: The cells of each pixel.
        shares: Their weights.
        squares: The squared length of each pixel's vector.
    """

    cells: Float[Tensor, "cell channel"]
    places: Int[Tensor, "neighbour pixel"]
    shares: Float[Tensor, "neighbour pixel"]
    squares: OfPixels

    @staticmethod
    def under(
        features: Float[Tensor, "shot channel h w"], masks: Bool[Tensor, "shot height width"]
    ) -> "Pixels":
        """The pixels under the masks, of features that are resized to them (bilinear, align_corners=False)."""
        height, width = masks.shape[-2:]
        h, w = features.shape[-2:]
        shot, y, x = masks.nonzero(as_tuple=True)
        top, bottom, down = neighbours(y.to(features.dtype), height, h)
        left, right, along = neighbours(x.to(features.dtype), width, w)
        corners = [
            (top, left, (1 - down) * (1 - along)),
            (top, right, (1 - down) * along),
            (bottom, left, down * (1 - along)),
            (bottom, right, down * along),
        ]
        places = torch.stack([(shot * h + row) * w + column for row, column, _ in corners])
        shares = torch.stack([share for _, _, share in corners])
        used, places = places.unique(return_inverse=True)
        vectors = features.movedim(1, -1).flatten(0, 2)
        cells = vectors[used]
        products = (cells @ cells.T)[places[:, None], places]
        weighted = products * shares[:, None] * shares
        squares = weighted.sum(dim=(0, 1)).clamp(min=0)
        return Pixels(cells, places, shares, squares)

    @staticmethod
    def of(vectors: Float[Tensor, "pixel channel"]) -> "Pixels":
        """Makes pixels of vectors at hand, each its own cell."""
        places = torch.arange(len(vectors), device=vectors.device)[None]
        shares = vectors.new_ones(1, len(vectors))
        squares = vectors.square().sum(dim=1)
        return Pixels(vectors, places, shares, squares)

    def normalised(self) -> "Pixels":
        """The same pixels with vectors of unit length."""
        lengths = self.squares.sqrt().clamp(min=1e-12)
        shares = self.shares / lengths
        squares = self.squares / lengths.square()
        return replace(self, shares=shares, squares=squares)

    def products(self, means: Means) -> Float[Tensor, "proto pixel"]:
        """The dot product of every mean with every vector."""
        on_cells = means @ self.cells.T
        on_places = on_cells.index_select(1, self.places.flatten())
        on_neighbours = on_places.view(len(means), *self.places.shape)
        return (on_neighbours * self.shares).sum(dim=1)

    def weighted_sums(self, weights: Float[Tensor, "proto pixel"]) -> Means:
        """The weighted sum of the vectors, for each row of the weights."""
        spread = (weights[:, None] * self.shares).flatten(1)
        on_cells = spread.new_zeros(len(weights), len(self.cells))
        on_cells.index_add_(1, self.places.flatten(), spread)
        return on_cells @ self.cells

    def mean(self) -> Float[Tensor, "channel"]:
        """The mean of the vectors."""
        sums = self.weighted_sums(torch.ones_like(self.squares)[None])
        return sums[0] / len(self.squares)


def neighbours(
    place: OfPixels,
    fine: int,
    coarse: int,
) -> tuple[Cells, Cells, OfPixels]:
    """Finds the two cells between which each pixel lies in a bilinear resize.

    Args:
        place: The pixels' places along an axis, from 0.
        fine: Pixels of the axis.
        coarse: Cells of the axis.

    Returns:
        The first cell, the second cell, and the share of the second.
    """
    scale = coarse / fine
    position = ((place + 0.5) * scale - 0.5).clamp(min=0)
    first = position.long()
    second = (first + 1).clamp(max=coarse - 1)
    return first, second, position - first
