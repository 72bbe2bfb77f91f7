"""Cells of a query volume: what hangs together, how much is foreground, where the body is, and what looks alike."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from fsseg.model.ops import ideal_prior

Margins = Float[Tensor, "slice way h w"]
"""Each way's logit minus the background's, the prior included."""

Direction = Float[Tensor, "channel"]
"""A vector in the space of the features."""

OfCells = Float[Tensor, "cell"]
"""A number for each cell of the volume."""

Interval = tuple[float, float]
"""A beginning and an end, in cells."""

BODY = 0.15
"""What is brighter than this share of the way from the darkest to nearly the brightest cells is body."""

CELLS = 8192
"""Cells of a query from which its covariance is estimated, at most: some hundred numbers do not need more."""

NEIGHBOURS = {6: 1, 18: 2, 26: 3}
"""By the number of a cell's neighbours in three dimensions, the rank of their structure for scipy."""


class UnitFeatures:
    """The features of all cells of a query with unit length, about their mean; they are never written out.

    Args:
        features: The features of the slices.
        ridge: Added to the covariance's diagonal, as a share of its mean.
    """

    def __init__(
        self,
        features: Float[Tensor, "slice channel h w"],
        ridge: float,
    ) -> None:
        self._vectors = features.movedim(1, -1).flatten(0, 2).float()
        lengths = self._vectors.norm(dim=1).clamp(min=1e-12)
        self._scales = 1 / lengths
        self._mean = self._vectors.T @ self._scales / len(self._vectors)
        self._ridge = ridge

    def mean_of(self, chosen: Bool[Tensor, "cell"]) -> Direction:
        """The mean of some of the cells."""
        units = self._vectors[chosen] * self._scales[chosen, None]
        return units.mean(dim=0) - self._mean

    def products(self, direction: Direction) -> OfCells:
        """The dot product of every cell with a direction."""
        return self._vectors @ direction * self._scales - self._mean @ direction

    def whitened(self, direction: Direction) -> Direction:
        """The direction, divided by the covariance of the cells."""
        step = -(-len(self._vectors) // CELLS)
        units = self._vectors[::step] * self._scales[::step, None]
        centred = units - units.mean(dim=0)
        covariance = centred.T @ centred / len(centred)
        level = self._ridge * covariance.diagonal().mean() + 1e-12
        identity = torch.eye(len(covariance), device=covariance.device)
        return torch.linalg.solve(covariance + level * identity, direction)


def heaviest_components(
    margins: Margins, connectivity: int = 26, *, by_margin: bool = True
) -> Bool[Tensor, "slice way h w"]:
    """Finds the heaviest connected component of each way's foreground in three dimensions.

    Args:
        margins: Positive where a way is foreground.
        connectivity: The number of a cell's neighbours: 6, 18 or 26.
        by_margin: Weigh a component by the sum of its margins; by its number of cells otherwise.

    Returns:
        True in that component; nowhere for a way without foreground.
    """
    structure = ndimage.generate_binary_structure(3, NEIGHBOURS[connectivity])
    values = margins.detach().float().cpu().numpy()
    kept = np.zeros(values.shape, dtype=bool)
    for way in range(values.shape[1]):
        foreground = values[:, way] > 0
        labelled: Any = ndimage.label(foreground, structure)
        labels, count = labelled
        if count == 0:
            continue
        of_cells = None
        if by_margin:
            of_cells = np.where(foreground, values[:, way], 0).ravel()
        weights = np.bincount(labels.ravel(), of_cells)
        kept[:, way] = labels == 1 + weights[1:].argmax()
    return torch.from_numpy(kept).to(margins.device)


def keep_amount(ranked: Margins, before: Margins) -> Margins:
    """Raises other margins so that as many cells of each way are positive in the volume as before."""
    counts = (before > 0).sum(dim=(0, 2, 3))
    return raise_to(ranked, counts)


def raise_to(ranked: Margins, counts: Int[Tensor, "way"]) -> Margins:
    """Adds to each way's margins the log-odds under which the given number of its cells in the volume is positive."""
    by_way = ranked.movedim(1, 0).flatten(1, 2)  # way x rows of all slices x w
    return ranked + ideal_prior(by_way, counts)[:, None, None]


def spread_like(ranked: Margins, margins: Margins) -> Margins:
    """Gives other values the mean and the spread that each way's margins have over the volume."""
    spread = ranked.std(dim=(0, 2, 3), keepdim=True)
    wanted = margins.std(dim=(0, 2, 3), keepdim=True)
    centred = ranked - ranked.mean(dim=(0, 2, 3), keepdim=True)
    scaled = centred / spread.clamp(min=1e-12) * wanted
    return scaled + margins.mean(dim=(0, 2, 3), keepdim=True)


def body_extent(
    images: Float[Tensor, "slice height width"], size: tuple[int, int]
) -> tuple[Interval, Interval]:
    """Finds where the body begins and ends, by brightness: the median over the slices that show it.

    Args:
        images: The slices.
        size: Rows and columns of cells.

    Returns:
        The beginning and the end along rows, and those along columns.
    """
    cells = F.adaptive_avg_pool2d(images[:, None].float(), size)[:, 0]
    darkest = cells.min()
    nearly_brightest = cells.flatten().quantile(0.99)
    bright = cells > darkest + BODY * (nearly_brightest - darkest)
    along_rows = _extent(bright.any(dim=2))
    along_columns = _extent(bright.any(dim=1))
    return along_rows, along_columns


def _extent(shown: Bool[Tensor, "slice cell"]) -> Interval:
    cells = shown.shape[1]
    shown = shown[shown.any(dim=1)].int()
    if not len(shown):
        return 0.0, float(cells)
    before = shown.argmax(dim=1).float().median()
    after = shown.flip(1).argmax(dim=1).float().median()
    return float(before), float(cells - after)
