"""Training episodes: two neighbouring slices of a random supervoxel, one of them the support, one the query."""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsseg.data.supervoxels.regions import scaled_pixels
from fsseg.errors import DataError
from fsseg.recipe.tables import EpisodeTable
from fsseg.system.devices import has_room, send
from fsseg.training.augment import (
    affine_matrix,
    change_gamma,
    draw_affine,
    draw_noise,
    elastic_field,
    warp_grids,
    warp_slice,
)
from fsseg.training.scans import TrainingScan
from fsseg.types import Episode, Query, Support

MIN_PIXELS, MIN_SLICE_PIXELS = 200, 20
"""The published rules, for slices of 256 x 256."""

ATTEMPTS, QUERY_ATTEMPTS = 15, 5
"""Warps that are tried, at most, until one leaves something of the masks: of a support, of a query."""

CPU = torch.device("cpu")

NO_REGION = -1
"""In a list of regions that is filled up: it matches no voxel."""


@dataclass(frozen=True)
class Draw:
    """Everything random about an episode; its warps follow from their seed.

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


@dataclass(frozen=True)
class Ingredients:
    """What an episode is made of, in tensors whose shapes do not depend on the draw (among slices of one size).

    `compose` makes the episode from them without asking the host for anything, so that a whole training step can be
    a fixed sequence of operations on a device.

    Attributes:
        images: Support slice and query slice.
        supervoxels: Their region ids.
        regions: The region of each way; filled up with ids that match nothing.
        gamma: Exponent of the intensity change.
        changed: Which slice has its intensities changed: 0 the support, 1 the query.
        warped: Which slice is warped.
        noise: The noise of the elastic deformation.
        inverses: The inverse affine maps to try, in order.
        fill: The intensity of what is moved in from outside.
        least: Pixels that a way needs in the support.
        location: Positions of the two slices in their scan.
    """

    images: Float[Tensor, "2 height width"]
    supervoxels: Int[Tensor, "2 height width"]
    regions: Int[Tensor, "way"]
    gamma: Float[Tensor, ""]
    changed: Int[Tensor, ""]
    warped: Int[Tensor, ""]
    noise: Float[Tensor, "2 height width"]
    inverses: Float[Tensor, "candidate 2 3"]
    fill: Float[Tensor, ""]
    least: Int[Tensor, ""]
    location: Float[Tensor, "2"]

    def to(self, device: torch.device) -> "Ingredients":
        """The same on another device; the host does not wait for it."""
        return Ingredients(
            **{field.name: send(getattr(self, field.name), device) for field in fields(self)}
        )

    def copy_(self, other: "Ingredients") -> None:
        """Takes the values of others, in place."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name), non_blocking=True)


@dataclass(frozen=True)
class Composed:
    """Two slices and their masks after augmentation.

    Attributes:
        images: Support slice and query slice.
        masks: The ways in each; those that the warp left too small in the support are empty.
        location: Positions of the two slices in their scan.
        moved: Whether one of the warps left something of the masks; if none did, the slice is as it was.
    """

    images: Float[Tensor, "2 height width"]
    masks: Bool[Tensor, "2 way height width"]
    location: Float[Tensor, "2"]
    moved: Bool[Tensor, ""]

    def episode(self) -> Episode:
        """As an episode of all ways, also the empty ones."""
        ways = self.masks.shape[1]
        support = Support(
            self.images[0].expand(ways, 1, *self.images[0].shape),
            self.masks[0][:, None],
            self.location[0].expand(ways, 1),
            shared=ways > 1,
        )
        numbers = torch.arange(1, ways + 1, device=self.masks.device)[:, None, None]
        target = (self.masks[1] * numbers).amax(dim=0)[None]
        return Episode(support, Query(self.images[1][None], self.location[1:]), target)

    def trimmed(self) -> "Composed":
        """Without the ways that are empty in the support; the host waits for their number."""
        return replace(self, masks=self.masks[:, self.masks[0].any(dim=(1, 2))])


def compose(parts: Ingredients, elastic: float, elastic_sigma: float) -> Composed:
    """Augments the two slices; of the warps the first that leaves something of the masks counts."""
    masks = parts.supervoxels[:, None] == parts.regions[:, None, None]
    images = _put(
        parts.images, parts.changed, change_gamma(_pick(parts.images, parts.changed), parts.gamma)
    )
    image, marked = _pick(images, parts.warped), _pick(masks, parts.warped)
    grids = warp_grids(elastic_field(parts.noise, elastic, elastic_sigma), parts.inverses)
    warped_images, warped_masks = warp_slice(image, marked, grids, parts.fill)
    leaves = warped_masks.any(dim=(1, 2, 3))
    first, moved = leaves.int().argmax(), leaves.any()
    images = _put(images, parts.warped, torch.where(moved, _pick(warped_images, first), image))
    masks = _put(masks, parts.warped, torch.where(moved, _pick(warped_masks, first), marked))
    return Composed(
        images, masks & _large_enough(masks[0], parts.least)[:, None, None], parts.location, moved
    )


def _pick(values: Tensor, place: Int[Tensor, ""]) -> Tensor:
    """`values[place]`, without asking the host where that is."""
    return values.index_select(0, place[None])[0]


def _put(values: Tensor, place: Int[Tensor, ""], value: Tensor) -> Tensor:
    """`values` with another value at a place."""
    return values.index_copy(0, place[None], value[None])


def _large_enough(
    masks: Bool[Tensor, "way height width"], least: Int[Tensor, ""]
) -> Bool[Tensor, "way"]:
    """The ways that the support shows well; at least the largest, so that an episode always has one."""
    sizes = masks.sum(dim=(1, 2))
    return (sizes >= least) | (torch.arange(len(sizes), device=sizes.device) == sizes.argmax())


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
            hidden = (
                ", or episodes.setting to 1, which hides no slices" if options.setting == 2 else ""
            )
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

    @property
    def slice_size(self) -> tuple[int, int] | None:
        """The (height, width) of all scans' slices; None where they differ."""
        sizes = {tuple(scan.images.shape[-2:]) for scan in self.scans}
        return sizes.pop() if len(sizes) == 1 else None

    def resident(self, device: torch.device) -> "EpisodeSampler":
        """A sampler of the same scans that lie on the device, if it has room for them; else itself."""
        size = sum(
            array.numel() * array.element_size()
            for scan in self.scans
            for array in (scan.images, scan.supervoxels)
        )
        if not has_room(size, device):
            return self
        scans = [
            replace(scan, images=scan.images.to(device), supervoxels=scan.supervoxels.to(device))
            for scan in self.scans
        ]
        return EpisodeSampler(scans, self.options)

    def make(self, draw: Draw, device: torch.device = CPU) -> Episode:
        """The episode with these parameters, on a device; the same draw always gives the same episode."""
        composed = self.compose(self.ingredients(draw, candidates=1).to(device))
        if not composed.moved:  # rare, so further warps are not worked out beforehand
            composed = self.compose(self.ingredients(draw).to(device))
        return composed.trimmed().episode()

    def compose(self, parts: Ingredients) -> Composed:
        """Augments; see `fsseg.training.episodes.compose`."""
        return compose(parts, self.options.elastic, self.options.elastic_sigma)

    def ingredients(
        self, draw: Draw, ways: int | None = None, candidates: int = ATTEMPTS
    ) -> Ingredients:
        """What the episode with these parameters is made of.

        Args:
            draw: The parameters.
            ways: The number of regions to fill up to.
            candidates: Warps to work out.
        """
        scan, picked = self.scans[draw.scan], [draw.support_slice, draw.query_slice]
        size = tuple(scan.images.shape[-2:])
        ids = scan.table.ids[list(draw.regions)].tolist()
        noise_seed, inverses = self._draw_warps(draw, size, candidates)
        return Ingredients(
            images=torch.stack([scan.images[i] for i in picked]),
            supervoxels=torch.stack([scan.supervoxels[i] for i in picked]),
            regions=torch.tensor(
                ids + [NO_REGION] * ((ways or len(ids)) - len(ids)), dtype=scan.supervoxels.dtype
            ),
            gamma=torch.tensor(draw.gamma, dtype=torch.float32),
            changed=torch.tensor(int(draw.gamma_on_query)),
            warped=torch.tensor(int(draw.warp_on_query)),
            noise=draw_noise(noise_seed, size),
            inverses=inverses,
            fill=torch.tensor(scan.fill, dtype=torch.float32),
            least=torch.tensor(self._least(scan)[0]),
            location=torch.tensor(picked) / max(1, len(scan.images) - 1),
        )

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

    def _draw_warps(
        self, draw: Draw, size: tuple[int, int], candidates: int
    ) -> tuple[int, Float[Tensor, "candidate 2 3"]]:
        """The seed of the elastic noise and the inverse affine maps to try; the last one fills up."""
        options, rng = self.options, np.random.default_rng(draw.warp_seed)
        one = lambda: draw_affine(  # noqa: E731
            rng, angle=options.angle, shift=options.shift, shear=options.shear, zoom=options.zoom
        )
        first, noise_seed = one(), int(rng.integers(2**62))
        tried = min(candidates, QUERY_ATTEMPTS if draw.warp_on_query else ATTEMPTS)
        affines = [first, *(one() for _ in range(tried - 1))]
        inverses = [np.linalg.inv(affine_matrix(affine, size))[:2] for affine in affines]
        return noise_seed, torch.from_numpy(
            np.stack(inverses + inverses[-1:] * (candidates - tried))
        ).float()
