"""Training episodes: two neighbouring slices of a random supervoxel, one of them the support, one the query."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsseg.data.augment import Warp, change_gamma, draw_warp, warp_grid, warp_slice
from fsseg.data.regions import scaled_pixels
from fsseg.data.scans import TrainingScan
from fsseg.errors import DataError
from fsseg.recipe import EpisodeTable
from fsseg.types import Episode, Query, Support

MIN_PIXELS, MIN_SLICE_PIXELS = 200, 20
"""The published rules, for slices of 256 x 256."""


@dataclass(frozen=True)
class Draw:
    """Everything random about an episode except its warps, which may be redrawn (see `EpisodeSampler.make`).

    Regions are places in the scan's table; those of further classes come after the first one's.
    """

    scan: int
    regions: tuple[int, ...]
    support_slice: int
    query_slice: int
    gamma: float
    gamma_on_query: bool
    warp_on_query: bool
    warp_seed: int


class EpisodeSampler:
    """Draws episodes from training scans.

    As published: a scan and one of its supervoxels are drawn uniformly, then two slices that follow one another among
    those that show enough of it, in random order. Exactly one of the two has its intensities changed and exactly one
    is warped; two coins say which. An episode of several classes has further supervoxels of the same two slices, large
    enough in the support; those that the warp left too small there are dropped, except for the largest.

    Slices that are hidden from training (setting 2) have no region, so pairs are those of the slices that are left: as
    published, the two next to a hidden stretch follow one another.

    Randomness comes from the generator that is passed in and from nothing else.
    """

    def __init__(self, scans: list[TrainingScan], options: EpisodeTable) -> None:
        """Raises DataError if no scan has a supervoxel that is large enough."""
        self.options = options
        self.scans = [scan for scan in scans if scan.table.can_be_sampled(*self._least(scan))]
        if not self.scans:
            least = sorted({self._least(scan)[0] for scan in scans})
            hidden = ", or episodes.setting to 1, which hides no slices" if options.setting == 2 else ""
            raise DataError(
                f"episodes: none of the {len(scans)} training scans has a supervoxel with {' or '.join(map(str, least))} "
                f"pixels in a slice and a neighbour to pair it with, expected one; set episodes.min_pixels below {least[0]} "
                f"(or supervoxels.min_size higher, for larger regions{hidden})"
            )

    def draw(self, rng: np.random.Generator, classes: int = 1) -> Draw:
        """Draws the parameters of an episode of at most so many classes."""
        index = int(rng.integers(len(self.scans)))
        region, first, second = self._draw_pair(self.scans[index], rng)
        if rng.random() < 0.5:
            first, second = second, first
        draw = Draw(
            scan=index,
            regions=(region,),
            support_slice=first,
            query_slice=second,
            gamma=rng.uniform(*self.options.gamma),
            gamma_on_query=bool(rng.random() < 0.5),
            warp_on_query=bool(rng.random() < 0.5),
            warp_seed=int(rng.integers(2**62)),
        )
        return replace(draw, regions=(region, *self._draw_others(draw, classes - 1, rng)))

    def make(self, draw: Draw) -> Episode:
        """The episode with these parameters; the same draw always gives the same episode."""
        scan = self.scans[draw.scan]
        picked = [draw.support_slice, draw.query_slice]
        images = [scan.images[i] for i in picked]
        ids = torch.from_numpy(scan.table.ids[list(draw.regions)]).to(scan.supervoxels)
        masks = [scan.supervoxels[i] == ids[:, None, None] for i in picked]
        changed, warped = int(draw.gamma_on_query), int(draw.warp_on_query)
        images[changed] = change_gamma(images[changed], draw.gamma)
        attempts = 5 if draw.warp_on_query else 15
        images[warped], masks[warped] = self._warp(images[warped], masks[warped], scan.fill, draw.warp_seed, attempts)
        if len(draw.regions) > 1:
            kept = self._large_enough(masks[0], scan)
            masks = [marked[kept] for marked in masks]
        ways = len(masks[0])
        location = torch.tensor(picked) / max(1, len(scan.images) - 1)
        support = Support(
            images[0].expand(ways, 1, *images[0].shape), masks[0][:, None], location[0].expand(ways, 1), shared=ways > 1
        )
        numbers = torch.arange(1, ways + 1, device=masks[1].device)[:, None, None]
        return Episode(support, Query(images[1][None], location[1:]), (masks[1] * numbers).amax(dim=0)[None])

    def _least(self, scan: TrainingScan) -> tuple[int, int]:
        """Pixels of a region in the first slice of a pair, and in any slice; the defaults scale with the slice."""
        size = tuple(scan.images.shape[-2:])
        first, any_slice = self.options.min_pixels, self.options.min_slice_pixels
        return (
            scaled_pixels(MIN_PIXELS, *size) if first is None else first,
            scaled_pixels(MIN_SLICE_PIXELS, *size) if any_slice is None else any_slice,
        )

    def _draw_pair(self, scan: TrainingScan, rng: np.random.Generator) -> tuple[int, int, int]:
        """A region (its place in the table) and two slices; rejection ends because the scan can be sampled."""
        table, (min_pixels, min_slice_pixels) = scan.table, self._least(scan)
        while True:
            region = int(rng.integers(len(table.ids)))
            slices = table.slices_of(region, min_slice_pixels)
            if len(slices) < 2:
                continue
            place = int(rng.integers(len(slices) - 1))
            if table.counts[region, slices[place]] >= min_pixels:
                return region, int(slices[place]), int(slices[place + 1])

    def _draw_others(self, draw: Draw, count: int, rng: np.random.Generator) -> list[int]:
        """Further regions that are large enough in the support slice: up to ten tries for each, as published."""
        table, (min_pixels, _) = self.scans[draw.scan].table, self._least(self.scans[draw.scan])
        left, found = [region for region in range(len(table.ids)) if region != draw.regions[0]], []
        for _ in range(count):
            for _ in range(min(10, len(left))):
                region = left.pop(int(rng.integers(len(left))))
                if table.counts[region, draw.support_slice] >= min_pixels:
                    found.append(region)
                    break
        return found

    def _large_enough(self, masks: Bool[Tensor, "way height width"], scan: TrainingScan) -> Bool[Tensor, "way"]:
        """The ways that the support shows well; at least the largest, so that an episode always has one."""
        sizes = masks.sum(dim=(1, 2))
        return (sizes >= self._least(scan)[0]) | (torch.arange(len(sizes), device=sizes.device) == sizes.argmax())

    def _warp(
        self,
        image: Float[Tensor, "height width"],
        masks: Bool[Tensor, "way height width"],
        fill: float,
        seed: int,
        attempts: int,
    ) -> tuple[Float[Tensor, "height width"], Bool[Tensor, "way height width"]]:
        """Warps image and masks; a warp that empties the masks is drawn again, in the end the slice stays as it is."""
        rng = np.random.default_rng(seed)
        for _ in range(attempts):
            grid = warp_grid(self._draw_warp(rng), tuple(image.shape), image.device)
            warped_image, warped_masks = warp_slice(image, masks, grid, fill)
            if warped_masks.any():
                return warped_image, warped_masks
        return image, masks

    def _draw_warp(self, rng: np.random.Generator) -> Warp:
        options = self.options
        return draw_warp(
            rng,
            angle=options.angle,
            shift=options.shift,
            shear=options.shear,
            zoom=options.zoom,
            elastic=options.elastic,
            elastic_sigma=options.elastic_sigma,
        )
