"""Supervoxels: graph-based segmentation in 3-D, whose regions are the pseudo-classes of training.

The method is that of Felzenszwalb & Huttenlocher (2004) on the 26-neighbourhood of a volume with anisotropic voxels, as
ADNet uses it (Hansen et al., 2022). Edges are merged in ascending order of cost; equal costs are taken in order of the
edge's direction and then of its voxel. That makes the result a function of the volume alone: the published code left
ties to an unstable sort, so its own supervoxels cannot be reproduced.

Sorting all edges of a scan takes seconds and gigabytes. Here they are visited in bands of ascending cost instead, and an
edge that can no longer merge anything is never stored, let alone sorted. Both reasons for leaving an edge out are
permanent (its ends are in one region already; or neither region is small any more), so the result is the same. What is
left of a band, usually fewer edges than there are voxels, is sorted digit by digit. An edge is stored with the roots of
the regions it joins rather than with its voxels, so that the search for a root is short and stays in few memory pages.
"""

from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float64, Int32
from pydantic import Field
from scipy import ndimage

from fsseg.data.supervoxels.kernels import (
    collect,
    collect_channels,
    merge_similar,
    merge_small,
    number_regions,
    settle,
    sort,
)
from fsseg.data.supervoxels.regions import default_min_size
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.interfaces import Dataset
from fsseg.plugins.options import component

DIRECTIONS = np.array(
    [
        (0, 1, 0),
        (0, 1, 1),
        (0, 0, 1),
        (0, 1, -1),
        (1, 1, 0),
        (1, 1, 1),
        (1, 0, 1),
        (1, -1, 0),
        (1, -1, -1),
        (1, 0, -1),
        (1, 1, -1),
        (1, -1, 1),
        (1, 0, 0),
    ],
    dtype=np.int64,
)
"""The 13 directions (slice, height, width) of the 26-neighbourhood, in the order that breaks ties."""

ALONG_AXES = ((0, 12), (1, 0), (2, 2))
"""Each axis and the number of the direction along it."""

BODY_THRESHOLD = 10
"""On a scale of 0 to 255, air is at most this bright."""

BANDS = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6)
"""Quantiles of the edges' costs at which the second phase divides them; they change the speed, not the result."""

ROOM = 0.5
"""Edges of a band per voxel to make room for at first; changes the speed and the memory, not the result."""

Image = Float64[np.ndarray, "slice *channel height width"]
Mask = Bool[np.ndarray, "slice height width"]
Regions = Int32[np.ndarray, "slice height width"]
Roots = Int32[np.ndarray, "edge 2"]
Weights = Float64[np.ndarray, "13"]


@component
class Felzenszwalb:
    """Supervoxels by graph-based segmentation, cut to the body.

    An edge costs the difference of its voxels' intensities, each channel from 0 to 255; with several channels the root of
    the mean of the squared differences.

    The regions depend on `min_size` above all: with the default scale, the first phase joins little more than equal
    neighbours, and the second joins regions along their cheapest edges until each has `min_size` voxels.

    Reference: Felzenszwalb & Huttenlocher, Efficient graph-based image segmentation (2004); in 3-D: Hansen et al. (2022).

    Example:
        >>> from fsseg.data.datasets.phantom.dataset import AbdomenPhantom
        >>> dataset = AbdomenPhantom(count=1, size=64)
        >>> regions = Felzenszwalb(min_size=200)(dataset.load("phantom_01"), dataset)
        >>> regions.shape, regions.dtype
        ((27, 64, 64), dtype('int32'))
    """

    def __init__(
        self,
        *,
        min_size: Annotated[
            int | None,
            Field(
                gt=0,
                description="voxels of a region at least; the dataset's own number when omitted",
            ),
        ] = None,
        scale: Annotated[
            float, Field(gt=0, description="larger values give larger regions in the first phase")
        ] = 1.0,
        sigma: Annotated[float, Field(ge=0, description="Gaussian smoothing beforehand, mm")] = 0.0,
    ) -> None:
        self.min_size = min_size
        self.scale = scale
        self.sigma = sigma

    def __call__(self, volume: Volume, dataset: Dataset) -> Regions:
        """Returns region ids, 0 outside the body; raises DataError for an image without contrast."""
        image = scaled_image(volume)
        min_size = self.min_size or default_min_size(volume, dataset)
        regions = felzenszwalb(
            image,
            spacing=volume.spacing,
            min_size=min_size,
            scale=self.scale,
            sigma=self.sigma,
        )
        return cut_to_body(regions, body_mask(image))


def felzenszwalb(
    image: Image,
    *,
    spacing: tuple[float, float, float],
    min_size: int,
    scale: float = 1.0,
    sigma: float = 0.0,
) -> Regions:
    """Segments a volume into regions of at least `min_size` voxels.

    Args:
        image: Intensities from 0 to 255, with an axis of channels after that of slices where there are several.
        spacing: Voxel size along (slice, height, width), mm; height and width are taken as equal.
        min_size: Voxels of a region at least.
        scale: Preference for larger regions.
        sigma: Standard deviation of the smoothing beforehand, mm.

    Returns:
        Region ids from 0, in raster order of each region's first voxel.
    """
    if sigma > 0:
        of_slice, *within = [sigma / size for size in spacing]
        between_channels = [0.0] * (image.ndim - 3)
        image = ndimage.gaussian_filter(image, [of_slice, *between_channels, *within])
    image = np.ascontiguousarray(image)
    graph = _Graph(image, _direction_weights(spacing))
    _join_similar(graph, scale / 255)
    _join_small(graph, min_size)
    return graph.labels()


def scaled_image(volume: Volume) -> Image:
    """Returns the scan's intensities, of each channel from 0 to 255; raises DataError for one without contrast."""
    scaled = []
    for number, channel in enumerate(volume.by_channel):
        values = channel.astype(np.float64)
        low = values.min()
        high = values.max()
        if low == high:
            where = f" of channel {volume.channels[number]}" if volume.channels else ""
            raise DataError(
                f"case {volume.case}: every voxel{where} is {low:g}, expected an image; repair or remove the case"
            )
        scaled.append(255 * (values - low) / (high - low))
    return scaled[0] if volume.image.ndim == 3 else np.stack(scaled, axis=1)


def body_mask(image: Image) -> Mask:
    """Returns the body in each slice: what is not air, its largest 8-connected part, holes filled. Image from 0 to 255.

    Of several channels the brightest decides.
    """
    if image.ndim == 4:
        image = image.max(axis=1)
    return np.stack([_largest_part(pixels > BODY_THRESHOLD) for pixels in image])


def cut_to_body(labels: Regions, mask: Mask) -> Regions:
    """Returns region ids with 0 outside the body; region 0 gets a new id."""
    new_id = labels.max() + 1
    renamed = np.where(labels == 0, new_id, labels)
    return np.where(mask, renamed, 0).astype(np.int32)


def _largest_part(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not count:
        return mask
    sizes = np.bincount(parts.ravel())[1:]
    return ndimage.binary_fill_holes(parts == sizes.argmax() + 1)


def _direction_weights(spacing: tuple[float, float, float]) -> Weights:
    """Squared weight of each direction: the mean squared step length in units of the in-plane spacing."""
    thickness, _, pixel = spacing
    steps = DIRECTIONS != 0
    ratio = thickness / pixel
    across = np.where(steps[:, 0], ratio**2, 0)
    within = steps[:, 1:].sum(axis=1)
    axes = steps.sum(axis=1)
    length = np.sqrt(across + within)
    return (length / np.sqrt(axes)) ** 2


class _Graph:
    """The voxels, the edges between neighbours (never all at once) and the regions found so far.

    Regions are trees in `parent`; the root is a region's first voxel. `size` is meaningful at roots. `small` says of
    each voxel whether its region may still grow, as of the last call of `settle`; at first, all may.
    """

    def __init__(self, image: Image, weights: Weights) -> None:
        self.image = image
        self.weights = weights
        height, width = image.shape[-2:]
        self.shape = (len(image), height, width)
        self.voxels = len(image) * height * width
        self.parent = np.arange(self.voxels, dtype=np.int32)
        self.size = np.ones(self.voxels, dtype=np.int32)
        self.small = np.ones(self.voxels, dtype=np.uint8)

    def settle(self, min_size: int) -> int:
        """Brings `parent` and `small` up to date; returns the number of voxels in regions below `min_size`."""
        return settle(self.parent, self.size, min_size, self.small)

    def edges(self, low: float, high: float) -> tuple[Float64[np.ndarray, "edge"], Roots]:
        """Cost and both regions' roots of the edges with low <= cost < high that could still merge, in order."""
        of_image = collect if self.image.ndim == 3 else collect_channels
        costs, ends, numbers = of_image(
            self.image,
            self.weights,
            DIRECTIONS,
            root=self.parent.reshape(self.shape),
            small=self.small.reshape(self.shape),
            low=_least_square(low),
            high=_least_square(high),
            room=int(ROOM * self.voxels),
        )
        # Positive floats are in the order of their bits; both ends of an edge move as one word.
        words = ends.view(np.uint64).ravel()
        keys, pairs = sort(costs.view(np.uint64), words, numbers)
        costs = keys.view(np.float64)
        ends = pairs.view(np.int32)
        return costs, ends.reshape(-1, 2)

    def labels(self) -> Regions:
        """Region ids from 0 in order of each region's first voxel."""
        labels = np.empty(self.voxels, dtype=np.int32)
        number_regions(self.parent, labels)
        return labels.reshape(self.shape)


def _least_square(limit: float) -> float:
    """The least number whose square root is at least `limit`.

    A rounded square root never decreases, so a squared cost below this number is a cost below the limit, and the roots
    of the many edges outside a band need not be taken.
    """
    if limit in (0, np.inf):
        return limit
    square = limit * limit
    while np.sqrt(square) >= limit:
        square = float(np.nextafter(square, 0))
    while np.sqrt(square) < limit:
        square = float(np.nextafter(square, np.inf))
    return square


def _join_similar(graph: _Graph, k: float) -> None:
    """Phase 1: joins two regions when an edge costs less than the inner cost of both, plus k over their size.

    A region's inner cost is that of its last merge. One band is enough: for a region of m voxels that sum never exceeds
    k (2 - 1/m). It holds for one voxel, and a merge of a and b voxels raises the smaller of two such sums by k / (a + b),
    while 2 / (a + b) <= 1 / min(a, b). The band reaches to 4k because the sums are rounded.
    """
    costs, ends = graph.edges(0.0, 4 * k)
    inner = np.zeros(graph.voxels)
    merge_similar(costs, ends, graph.parent, graph.size, inner, k)


def _join_small(graph: _Graph, min_size: int) -> None:
    """Phase 2: joins along every edge, ascending, that has a region of fewer than `min_size` voxels at one end."""
    quantiles = np.quantile(_sample_costs(graph), BANDS)
    limits = np.unique([0.0, *quantiles])
    ends_of_bands = [*limits[1:], np.inf]
    for low, high in zip(limits, ends_of_bands, strict=True):
        if graph.settle(min_size) == 0:
            return
        _, ends = graph.edges(low, high)
        merge_small(ends, graph.parent, graph.size, min_size)


def _sample_costs(graph: _Graph) -> Float64[np.ndarray, "edge"]:
    """Costs of some edges along the axes, to place the bands."""
    every = max(1, graph.voxels // 20_000)
    sampled = [[0.0]]
    for axis, direction in ALONG_AXES:
        if graph.image.ndim == 3:
            differences = np.diff(graph.image, axis=axis)
            squares = differences.ravel()[::every] ** 2
        else:
            differences = np.diff(np.moveaxis(graph.image, 1, 0), axis=axis + 1)
            squares = np.square(differences).mean(axis=0).ravel()[::every]
        sampled.append(np.sqrt(graph.weights[direction] * squares))
    return np.concatenate(sampled)
