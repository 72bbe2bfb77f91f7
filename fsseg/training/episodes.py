"""Training episodes: two slices that show the same region, one the support, the other the query."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

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
from fsseg.training.pairs import Pair, Place, draw_others, require_pair
from fsseg.training.scans import TrainingScan
from fsseg.training.slices import slices_of
from fsseg.types import Episode

TRAINING_STREAM = 1
"""The stream of a run's seed from which training draws its episodes."""

CALIBRATION_STREAM = 2
"""The stream of a run's seed from which calibration draws its episodes; evaluation has a third."""

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
        pair: The two slices.
        regions: The regions of the ways, by their place in the table of the support's scan.
        augmentations: What is done to the two slices.
    """

    pair: Pair
    regions: tuple[int, ...]
    augmentations: tuple[Applied, ...]

    @property
    def support(self) -> Place:
        """The support's slice."""
        return self.pair.support

    @property
    def query(self) -> Place:
        """The query's slice."""
        return self.pair.query


class EpisodeSampler:
    """Draws episodes from training scans.

    The source of episodes, which the options name, draws two slices that show the same region; the usual one is that of the
    published code. An episode of several classes has further regions of the same two slices, large enough in the support.
    The slices are augmented as the options list; classes that this left too small in the support are dropped, except for
    the largest.

    Randomness comes from the generator that is passed in and from nothing else.

    Attributes:
        scans: The scans that have something to draw.
        options: The rules of drawing.
        context: Neighbouring slices on each side that are further channels.
        source: Where pairs come from.
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
            DataError: No scan has anything to draw.
        """
        self.options = options or EpisodeTable()
        self.context = context
        self.source: Any = self.options.source_in_full().build("episodes")
        self.scans = self._usable(scans)
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

    def _usable(self, scans: Sequence[TrainingScan]) -> list[TrainingScan]:
        """The scans that the source can draw from."""
        choose = getattr(self.source, "usable", list)
        try:
            return list(choose(scans))
        except DataError as error:
            if self.options.setting == 1:
                raise
            raise DataError(f"{error}, or episodes.setting to 1, which hides no slices") from None

    def draw(self, rng: np.random.Generator, classes: int = 1) -> Draw:
        """Draws the parameters of an episode of at most so many classes.

        Raises:
            PluginError: The source gives a pair that is none.
        """
        pair = self.source.pair(self.scans, rng)
        require_pair(self.source, pair, self.scans)
        support = self.scans[pair.support.scan]
        query = self.scans[pair.query.scan]
        facts = (self._facts(support), replace(self._facts(query), is_query=True))
        augmentations = self._draws.draw(rng, facts)
        draw_further = getattr(self.source, "others", draw_others)
        others = draw_further(support, pair, classes - 1, rng)
        return Draw(pair, (pair.region, *others), augmentations)

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
        hides = self.options.setting == 2
        images: list[Tensor] = []
        supervoxels = []
        locations = []
        for place in (draw.support, draw.query):
            scan = self.scans[place.scan]
            scan.require_undamaged()
            images += slices_of(scan, [place.slice], self.context, hides=hides).unbind()
            supervoxels.append(scan.supervoxels[place.slice])
            locations.append(torch.tensor(place.slice) / max(1, len(scan.images) - 1))
        return Slices(
            images=torch.stack(images),
            supervoxels=torch.stack(supervoxels),
            regions=_region_ids(self.scans[draw.support.scan], draw.regions, ways),
            least=torch.tensor(draw.pair.least),
            location=torch.stack(locations),
        )

    def _facts(self, scan: TrainingScan) -> SliceFacts:
        """What is known of a slice of a scan before it is made."""
        _, *channels, height, width = scan.images.shape
        count = 2 * self.context + 1
        if count > 1:
            channels = [count * math.prod(channels)]
        return SliceFacts((*channels, height, width), scan.fill)


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
