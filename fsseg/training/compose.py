"""The making of a drawn episode on a device, recorded or where the host may be asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsseg.system.devices import send
from fsseg.training.applied import Placed, apply_plainly, apply_recorded
from fsseg.training.drawn import QUERY, SUPPORT, Applied, Entry
from fsseg.types import Episode, Query, Support

NO_REGION = -1
"""In a list of regions that is filled up: it matches no voxel."""


@dataclass(frozen=True)
class Slices:
    """Support and query of an episode as they are in their scans.

    Attributes:
        images: Support slice and query slice.
        supervoxels: Their region ids.
        regions: The region of each way; filled up with ids that match nothing.
        least: Pixels that a way needs in the support.
        location: Positions of the two slices in their scans.
    """

    images: Float[Tensor, "2 *channel height width"]
    supervoxels: Int[Tensor, "2 height width"]
    regions: Int[Tensor, "way"]
    least: Int[Tensor, ""]
    location: Float[Tensor, "2"]

    def to(self, device: torch.device) -> "Slices":
        """The same slices on another device; the host does not wait for it."""
        moved = {}
        for name, tensor in vars(self).items():
            moved[name] = send(tensor, device)
        return Slices(**moved)

    def copy_(self, other: "Slices") -> None:
        """Takes the values of other slices, in place."""
        for name, tensor in vars(self).items():
            tensor.copy_(getattr(other, name), non_blocking=True)

    @property
    def masks(self) -> Bool[Tensor, "2 way height width"]:
        """The ways in each of the two."""
        return self.supervoxels[:, None] == self.regions[:, None, None]


@dataclass(frozen=True)
class Ingredients:
    """The tensors of an episode; their shapes do not depend on the draw, among slices of one size.

    `compose` makes the episode from them without asking the host for anything, so that a whole
    training step can be a fixed sequence of operations on a device.

    Attributes:
        slices: The two slices.
        placed: The augmentations with their numbers.
    """

    slices: Slices
    placed: tuple[Placed, ...]

    def to(self, device: torch.device) -> "Ingredients":
        """The same ingredients on another device; the host does not wait for it."""
        placed = tuple(each.to(device) for each in self.placed)
        return Ingredients(self.slices.to(device), placed)

    def copy_(self, other: "Ingredients") -> None:
        """Takes the values of other ingredients, in place."""
        self.slices.copy_(other.slices)
        for mine, theirs in zip(self.placed, other.placed):
            mine.copy_(theirs)


@dataclass(frozen=True)
class Composed:
    """Two slices and their masks after augmentation.

    Attributes:
        images: Support slice and query slice.
        masks: The ways in each; those that are too small in the support are empty.
        location: Positions of the two slices in their scans.
    """

    images: Float[Tensor, "2 *channel height width"]
    masks: Bool[Tensor, "2 way height width"]
    location: Float[Tensor, "2"]

    def trimmed(self) -> "Composed":
        """The same without the ways that are empty in the support; the host waits for their number."""
        in_support = self.masks[SUPPORT]
        is_there = in_support.any(dim=(1, 2))
        return replace(self, masks=self.masks[:, is_there])

    def episode(self) -> Episode:
        """The episode of all ways, also of the empty ones."""
        in_support, in_query = self.masks
        return _episode(self.images[SUPPORT], self.images[1:], in_support, in_query, self.location)


def compose(ingredients: Ingredients, entries: Sequence[Entry]) -> Composed:
    """Augments the two slices without asking the host for anything.

    Args:
        ingredients: The slices, and all that was drawn for them.
        entries: The augmentations.
    """
    slices = ingredients.slices
    images, masks = apply_recorded(entries, ingredients.placed, slices.images, slices.masks)
    in_support = masks[SUPPORT]
    sizes = in_support.sum(dim=(1, 2))
    numbers = torch.arange(len(sizes), device=sizes.device)
    # At least the largest, so that an episode always has one.
    shown_well = (sizes >= slices.least) | (numbers == sizes.argmax())
    masks = masks & shown_well[:, None, None]
    return Composed(images, masks, slices.location)


def compose_plainly(slices: Slices, drawn: Sequence[Applied], entries: Sequence[Entry]) -> Episode:
    """Makes the episode where the host may be asked: of the ways that the support shows well alone.

    Args:
        slices: The slices.
        drawn: What was drawn for them.
        entries: The augmentations.

    Raises:
        PluginError: An augmentation gives something else than it should.
    """
    images, masks = apply_plainly(entries, drawn, list(slices.images), list(slices.masks))
    in_support = masks[SUPPORT]
    in_query = masks[QUERY]
    sizes = in_support.flatten(1).sum(dim=1).tolist()
    largest = sizes.index(max(sizes))
    least = int(slices.least)
    kept = [way for way, size in enumerate(sizes) if size >= least or way == largest]
    if len(kept) < len(sizes):
        in_support = in_support[kept]
        in_query = in_query[kept]
    return _episode(images[SUPPORT], images[QUERY][None], in_support, in_query, slices.location)


def _episode(
    image: Float[Tensor, "*channel height width"],
    query: Float[Tensor, "1 *channel height width"],
    in_support: Bool[Tensor, "way height width"],
    in_query: Bool[Tensor, "way height width"],
    location: Float[Tensor, "2"],
) -> Episode:
    """The episode of a support and a query, whose ways do not overlap."""
    ways = len(in_support)
    support = Support(
        images=image.expand(ways, 1, *image.shape),
        masks=in_support[:, None],
        location=location[SUPPORT].expand(ways, 1),
        shared=ways > 1,
    )
    # Numbers of a byte: there are at most 254 ways, and wider ones take several times as long.
    numbers = torch.arange(1, ways + 1, device=in_query.device, dtype=torch.uint8)
    numbered = in_query * numbers[:, None, None]
    target = numbered.amax(dim=0, keepdim=True).long()
    return Episode(support, Query(query, location[1:]), target)
