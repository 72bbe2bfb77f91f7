"""Training episodes: two slices that show the same region, one the support, the other the query."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fsseg.data.supervoxels.regions import scaled_pixels
from fsseg.errors import DataError
from fsseg.recipe.tables import EpisodeTable
from fsseg.system.devices import has_room
from fsseg.training.applied import Placed
from fsseg.training.compose import (
    NO_REGION,
    Composed,
    Ingredients,
    Slices,
    compose,
    compose_plainly,
)
from fsseg.training.drawn import Applied, AugmentationDraws, Entry, SliceFacts
from fsseg.training.scans import TrainingScan
from fsseg.training.slices import pick, slices_of
from fsseg.types import Episode

TRAINING_STREAM = 1
"""The stream of a run's seed from which training draws its episodes."""

CALIBRATION_STREAM = 2
"""The stream of a run's seed from which calibration draws its episodes; evaluation has a third."""

MIN_PIXELS = 200
"""Pixels of the region in the first slice of a pair, as published, for slices of 256 x 256."""

MIN_SLICE_PIXELS = 20
"""Slices with no more pixels of the region are passed over, as published, for slices of 256 x 256."""

REGION_ATTEMPTS = 10
"""Regions that are tried, at most, for each further class, as published."""

CPU = torch.device("cpu")


def episode_rng(seed: int, stream: int, number: int) -> np.random.Generator:
    """The generator of one episode.

    It depends on the episode's number and on no other episode, so training can go on anywhere.

    Args:
        seed: The run's seed.
        stream: `TRAINING_STREAM` or `CALIBRATION_STREAM`.
        number: The episode's number in its stream, from 0.
    """
    return np.random.default_rng([seed, stream, number])


@dataclass(frozen=True)
class Draw:
    """Everything random about an episode.

    Attributes:
        scan: The scan, by its place among the sampler's.
        regions: The regions of the ways, by their place in the scan's table.
        support_slice: Number of the support's slice.
        query_slice: Number of the query's slice.
        augmentations: What is done to the two slices.
    """

    scan: int
    regions: tuple[int, ...]
    support_slice: int
    query_slice: int
    augmentations: tuple[Applied, ...]


class EpisodeSampler:
    """Draws episodes from training scans.

    As published: a scan and one of its supervoxels are drawn uniformly, then two slices that follow
    one another among those that show enough of it, in random order, and the slices are augmented, with
    the published list in exactly one intensities are changed and exactly one is warped; two coins say
    which. An episode of several classes has further supervoxels of the same two slices, large enough in
    the support; those that the augmentation left too small there are dropped, except for the largest.

    Slices that are hidden from training (setting 2) have no region, so pairs are those of the slices
    that are left: as published, the two next to a hidden stretch follow one another.

    Randomness comes from the generator that is passed in and from nothing else.

    Attributes:
        scans: The scans that have a supervoxel to draw.
        options: The rules of drawing.
        context: Neighbouring slices on each side that are further channels.
        entries: The augmentations.
    """

    def __init__(
        self,
        scans: Sequence[TrainingScan],
        options: EpisodeTable | None = None,
        context: int = 0,
    ) -> None:
        """Takes the scans that can be sampled.

        Args:
            scans: The training scans, as `fsseg.training_scans` reads them.
            options: The rules of drawing; those of a recipe that says nothing of them when omitted.
            context: Neighbouring slices on each side that are further channels, as the backbone's attribute says.

        Raises:
            DataError: No scan has a supervoxel that is large enough.
        """
        self.options = options or EpisodeTable()
        self.context = context
        self.scans = [scan for scan in scans if self._can_be_sampled(scan)]
        if not self.scans:
            raise DataError(self._nothing_to_sample(scans))
        self.entries = entries_of(self.options)
        self._draws = AugmentationDraws(self.entries)
        self._was_tried = False

    @property
    def slice_size(self) -> tuple[int, int] | None:
        """The (height, width) of all scans' slices; None where they differ."""
        sizes = {scan.slice_size for scan in self.scans}
        return sizes.pop() if len(sizes) == 1 else None

    def resident(self, device: torch.device) -> "EpisodeSampler":
        """A sampler of the same scans that lie on the device, if it has room for them; else itself."""
        size = sum(scan.nbytes for scan in self.scans)
        if not has_room(size, device):
            return self
        scans = [scan.to(device) for scan in self.scans]
        return EpisodeSampler(scans, self.options, self.context)

    def draw(self, rng: np.random.Generator, classes: int = 1) -> Draw:
        """Draws the parameters of an episode of at most so many classes."""
        index = int(rng.integers(len(self.scans)))
        scan = self.scans[index]
        region, support_slice, query_slice = self._draw_pair(scan, rng)
        if rng.random() < 0.5:
            support_slice, query_slice = query_slice, support_slice
        augmentations = self._draws.draw(rng, self._facts(scan))
        others = self._draw_others(scan, region, support_slice, classes - 1, rng)
        return Draw(index, (region, *others), support_slice, query_slice, augmentations)

    def make(self, draw: Draw, device: torch.device = CPU) -> Episode:
        """The episode with these parameters, on a device; the same draw always gives the same episode."""
        slices = self._slices(draw).to(device)
        self._was_tried = True
        return compose_plainly(slices, draw.augmentations, self.entries)

    def compose(self, ingredients: Ingredients) -> Composed:
        """Augments the two slices of an episode without asking the host for anything."""
        return compose(ingredients, self.entries)

    def ingredients(self, draw: Draw, ways: int | None = None) -> Ingredients:
        """The tensors from which `compose` makes the episode with these parameters.

        The first one is made plainly as well, to look at what the augmentations give: `compose` cannot.

        Args:
            draw: The parameters.
            ways: The number of regions to fill up to; as many as were drawn when omitted.
        """
        if not self._was_tried:
            self.make(draw)
        placed = tuple(Placed.of(applied) for applied in draw.augmentations)
        return Ingredients(self._slices(draw, ways or 0), placed)

    def _slices(self, draw: Draw, ways: int = 0) -> Slices:
        """The two slices of an episode."""
        scan = self.scans[draw.scan]
        scan.require_undamaged()
        slices = [draw.support_slice, draw.query_slice]
        last_slice = max(1, len(scan.images) - 1)
        return Slices(
            images=slices_of(scan, slices, self.context, hides=self.options.setting == 2),
            supervoxels=pick(scan.supervoxels, slices),
            regions=_region_ids(scan, draw.regions, ways),
            least=torch.tensor(self._min_pixels(scan)),
            location=torch.tensor(slices) / last_slice,
        )

    def _facts(self, scan: TrainingScan) -> tuple[SliceFacts, SliceFacts]:
        """What is known of a support and of a query of a scan before they are made."""
        _, *channels, height, width = scan.images.shape
        count = 2 * self.context + 1
        if count > 1:
            channels = [count * math.prod(channels)]
        shape = (*channels, height, width)
        support = SliceFacts(shape, scan.fill)
        return support, SliceFacts(shape, scan.fill, is_query=True)

    def _min_pixels(self, scan: TrainingScan) -> int:
        """Pixels that a region needs in the first slice of a pair; the default scales with the slice."""
        if self.options.min_pixels is not None:
            return self.options.min_pixels
        return scaled_pixels(MIN_PIXELS, *scan.slice_size)

    def _min_slice_pixels(self, scan: TrainingScan) -> int:
        """Pixels of which a region needs more in any slice; the default scales with the slice."""
        if self.options.min_slice_pixels is not None:
            return self.options.min_slice_pixels
        return scaled_pixels(MIN_SLICE_PIXELS, *scan.slice_size)

    def _can_be_sampled(self, scan: TrainingScan) -> bool:
        min_pixels = self._min_pixels(scan)
        min_slice_pixels = self._min_slice_pixels(scan)
        return scan.table.can_be_sampled(min_pixels, min_slice_pixels)

    def _nothing_to_sample(self, scans: Sequence[TrainingScan]) -> str:
        least = sorted({self._min_pixels(scan) for scan in scans})
        pixels = " or ".join(map(str, least))
        hidden = ""
        if self.options.setting == 2:
            hidden = ", or episodes.setting to 1, which hides no slices"
        return (
            f"episodes: none of the {len(scans)} training scans has a supervoxel with {pixels} "
            "pixels in a slice and a neighbour to pair it with, expected one; "
            f"set episodes.min_pixels below {least[0]} "
            f"(or supervoxels.min_size higher, for larger regions{hidden})"
        )

    def _draw_pair(
        self,
        scan: TrainingScan,
        rng: np.random.Generator,
    ) -> tuple[int, int, int]:
        """A region (its place in the table) and two slices; rejection ends because the scan can be sampled."""
        table = scan.table
        min_pixels = self._min_pixels(scan)
        min_slice_pixels = self._min_slice_pixels(scan)
        while True:
            region = int(rng.integers(len(table.ids)))
            slices = table.slices_of(region, min_slice_pixels)
            if len(slices) < 2:
                continue
            place = int(rng.integers(len(slices) - 1))
            first = int(slices[place])
            second = int(slices[place + 1])
            if table.counts[region, first] >= min_pixels:
                return region, first, second

    def _draw_others(
        self,
        scan: TrainingScan,
        region: int,
        support_slice: int,
        count: int,
        rng: np.random.Generator,
    ) -> list[int]:
        """Further regions that are large enough in the support slice; a few tries for each, as published."""
        sizes = scan.table.counts[:, support_slice]
        min_pixels = self._min_pixels(scan)
        left = list(range(len(sizes)))
        left.remove(region)
        others = []
        for _ in range(count):
            attempts = min(REGION_ATTEMPTS, len(left))
            for _ in range(attempts):
                place = int(rng.integers(len(left)))
                tried = left.pop(place)
                if sizes[tried] >= min_pixels:
                    others.append(tried)
                    break
        return others


def entries_of(options: EpisodeTable) -> list[Entry]:
    """The augmentations that a recipe lists, ready to be drawn and applied."""
    entries = []
    for table in options.written_out():
        augmentation = table.build("augmentation")
        entries.append(Entry(table.name, augmentation, table.slices, table.chance))
    return entries


def _region_ids(
    scan: TrainingScan,
    regions: Sequence[int],
    ways: int,
) -> Int[Tensor, "way"]:
    """The ids of regions of the scan's table, filled up to so many ways."""
    of_table = scan.table.ids
    ids = [int(of_table[region]) for region in regions]
    while len(ids) < ways:
        ids.append(NO_REGION)
    return torch.tensor(ids, dtype=scan.supervoxels.dtype)
