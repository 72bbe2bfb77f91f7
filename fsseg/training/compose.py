"""The making of a drawn episode on a device, without asking the host for anything."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsseg.system.devices import send
from fsseg.training.augment import change_gamma, elastic_field, warp_grids, warp_slice
from fsseg.types import Episode, Query, Support

NO_REGION = -1
"""In a list of regions that is filled up: it matches no voxel."""


@dataclass(frozen=True)
class Ingredients:
    """The tensors of an episode; their shapes do not depend on the draw, among slices of one size.

    `compose` makes the episode from them without asking the host for anything, so that a whole
    training step can be a fixed sequence of operations on a device.

    Attributes:
        images: Support slice and query slice.
        supervoxels: Their region ids.
        regions: The region of each way; filled up with ids that match nothing.
        gamma: Exponent of the intensity change.
        changed: The slice that has its intensities changed: 0 the support, 1 the query.
        warped: The slice that is warped, likewise.
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
        """The same ingredients on another device; the host does not wait for it."""
        moved = {field.name: send(getattr(self, field.name), device) for field in fields(self)}
        return Ingredients(**moved)

    def copy_(self, other: "Ingredients") -> None:
        """Takes the values of other ingredients, in place."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name), non_blocking=True)


@dataclass(frozen=True)
class Composed:
    """Two slices and their masks after augmentation.

    Attributes:
        images: Support slice and query slice.
        masks: The ways in each; those that the warp left too small in the support are empty.
        location: Positions of the two slices in their scan.
        moved: True if one of the warps left something of the masks; else the slice is as it was.
    """

    images: Float[Tensor, "2 height width"]
    masks: Bool[Tensor, "2 way height width"]
    location: Float[Tensor, "2"]
    moved: Bool[Tensor, ""]

    def trimmed(self) -> "Composed":
        """The same without the ways that are empty in the support; the host waits for their number."""
        is_there = self.masks[0].any(dim=(1, 2))
        return replace(self, masks=self.masks[:, is_there])

    def episode(self) -> Episode:
        """The episode of all ways, also of the empty ones."""
        query = Query(self.images[1][None], self.location[1:])
        return Episode(self._support(), query, self._target())

    def _support(self) -> Support:
        image = self.images[0]
        ways = self.masks.shape[1]
        return Support(
            image.expand(ways, 1, *image.shape),
            self.masks[0][:, None],
            self.location[0].expand(ways, 1),
            shared=ways > 1,
        )

    def _target(self) -> Int[Tensor, "1 height width"]:
        ways = self.masks.shape[1]
        numbers = torch.arange(1, ways + 1, device=self.masks.device)
        return (self.masks[1] * numbers[:, None, None]).amax(dim=0)[None]


def compose(ingredients: Ingredients, elastic: float, elastic_sigma: float) -> Composed:
    """Augments the two slices; of the warps the first that leaves something of the masks counts.

    Args:
        ingredients: The slices, and all that was drawn for them.
        elastic: Strength of the elastic deformation.
        elastic_sigma: Smoothness of the elastic deformation in pixels.
    """
    images = _with_changed_intensities(ingredients)
    masks = ingredients.supervoxels[:, None] == ingredients.regions[:, None, None]
    field = elastic_field(ingredients.noise, elastic, elastic_sigma)
    grids = warp_grids(field, ingredients.inverses)

    at = ingredients.warped
    image = _pick(images, at)
    mask = _pick(masks, at)
    warped_images, warped_masks = warp_slice(image, mask, grids, ingredients.fill)
    leaves_some = warped_masks.any(dim=(1, 2, 3))
    first = leaves_some.int().argmax()
    moved = leaves_some.any()
    image = torch.where(moved, _pick(warped_images, first), image)
    mask = torch.where(moved, _pick(warped_masks, first), mask)

    masks = _put(masks, at, mask)
    shown_well = _large_enough(masks[0], ingredients.least)
    return Composed(
        images=_put(images, at, image),
        masks=masks & shown_well[:, None, None],
        location=ingredients.location,
        moved=moved,
    )


def _with_changed_intensities(ingredients: Ingredients) -> Float[Tensor, "2 height width"]:
    at = ingredients.changed
    changed = change_gamma(_pick(ingredients.images, at), ingredients.gamma)
    return _put(ingredients.images, at, changed)


def _pick(values: Tensor, index: Int[Tensor, ""]) -> Tensor:
    """Gives `values[index]`, without asking the host for the index."""
    return values.index_select(0, index[None])[0]


def _put(values: Tensor, index: Int[Tensor, ""], value: Tensor) -> Tensor:
    """Gives a copy of `values` with another value at the index."""
    return values.index_copy(0, index[None], value[None])


def _large_enough(
    masks: Bool[Tensor, "way height width"], least: Int[Tensor, ""]
) -> Bool[Tensor, "way"]:
    """The ways that the support shows well; at least the largest, so that an episode always has one."""
    sizes = masks.sum(dim=(1, 2))
    numbers = torch.arange(len(sizes), device=sizes.device)
    return (sizes >= least) | (numbers == sizes.argmax())
