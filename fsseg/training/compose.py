"""The making of a drawn episode on a device, without asking the host for anything."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsseg.system.devices import send
from fsseg.training.augment import change_gamma, elastic_field, warp_grids, warp_slice
from fsseg.types import Episode, Query, Support

NO_REGION = -1
"""In a list of regions that is filled up: it matches no voxel."""

Index = Int[Tensor, ""]
"""0 for the support, 1 for the query; on the device, so that the host need not be asked."""


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

    images: Float[Tensor, "2 *channel height width"]
    supervoxels: Int[Tensor, "2 height width"]
    regions: Int[Tensor, "way"]
    gamma: Float[Tensor, ""]
    changed: Index
    warped: Index
    noise: Float[Tensor, "2 height width"]
    inverses: Float[Tensor, "candidate 2 3"]
    fill: Float[Tensor, ""]
    least: Int[Tensor, ""]
    location: Float[Tensor, "2"]

    def to(self, device: torch.device) -> "Ingredients":
        """The same ingredients on another device; the host does not wait for it."""
        moved = {}
        for name, tensor in vars(self).items():
            moved[name] = send(tensor, device)
        return Ingredients(**moved)

    def copy_(self, other: "Ingredients") -> None:
        """Takes the values of other ingredients, in place."""
        for name, tensor in vars(self).items():
            tensor.copy_(getattr(other, name), non_blocking=True)


@dataclass(frozen=True)
class Composed:
    """Two slices and their masks after augmentation.

    Attributes:
        images: Support slice and query slice.
        masks: The ways in each; those that the warp left too small in the support are empty.
        location: Positions of the two slices in their scan.
        moved: True if one of the warps left something of the masks; else the slice is as it was.
    """

    images: Float[Tensor, "2 *channel height width"]
    masks: Bool[Tensor, "2 way height width"]
    location: Float[Tensor, "2"]
    moved: Bool[Tensor, ""]

    def trimmed(self) -> "Composed":
        """The same without the ways that are empty in the support; the host waits for their number."""
        in_support = self.masks[0]
        is_there = in_support.any(dim=(1, 2))
        return replace(self, masks=self.masks[:, is_there])

    def episode(self) -> Episode:
        """The episode of all ways, also of the empty ones."""
        ways = self.masks.shape[1]
        image = self.images[0]
        place = self.location[0]
        in_support = self.masks[0]
        in_query = self.masks[1:]
        support = Support(
            images=image.expand(ways, 1, *image.shape),
            masks=in_support[:, None],
            location=place.expand(ways, 1),
            shared=ways > 1,
        )
        query = Query(self.images[1:], self.location[1:])
        numbers = torch.arange(1, ways + 1, device=in_query.device)
        numbered = in_query * numbers[:, None, None]
        target = numbered.amax(dim=1)
        return Episode(support, query, target)


def compose(
    ingredients: Ingredients,
    elastic: float,
    elastic_sigma: float,
) -> Composed:
    """Augments the two slices; of the warps the first that leaves something of the masks counts.

    Args:
        ingredients: The slices, and all that was drawn for them.
        elastic: Strength of the elastic deformation.
        elastic_sigma: Smoothness of the elastic deformation in pixels.
    """
    changed = ingredients.changed
    warped = ingredients.warped
    images = ingredients.images
    regions = ingredients.regions[:, None, None]
    masks = ingredients.supervoxels[:, None] == regions

    image = _pick(images, changed)
    image = change_gamma(image, ingredients.gamma)
    images = _put(images, changed, image)

    field = elastic_field(ingredients.noise, elastic, elastic_sigma)
    grids = warp_grids(field, ingredients.inverses)
    image = _pick(images, warped)
    mask = _pick(masks, warped)
    candidates, mask_candidates = warp_slice(image, mask, grids, ingredients.fill)
    leaves_some = mask_candidates.any(dim=(1, 2, 3))
    moved = leaves_some.any()
    first = leaves_some.int().argmax()
    new_image = _pick(candidates, first)
    new_mask = _pick(mask_candidates, first)
    new_image = torch.where(moved, new_image, image)
    new_mask = torch.where(moved, new_mask, mask)
    images = _put(images, warped, new_image)
    masks = _put(masks, warped, new_mask)

    in_support = masks[0]
    shown_well = _large_enough(in_support, ingredients.least)
    masks = masks & shown_well[:, None, None]
    return Composed(images, masks, ingredients.location, moved)


def _pick(values: Tensor, index: Index) -> Tensor:
    """Gives `values[index]`, without asking the host for the index."""
    [value] = values.index_select(0, index[None])
    return value


def _put(values: Tensor, index: Index, value: Tensor) -> Tensor:
    """Gives a copy of `values` with another value at the index."""
    return values.index_copy(0, index[None], value[None])


def _large_enough(
    masks: Bool[Tensor, "way height width"],
    least: Int[Tensor, ""],
) -> Bool[Tensor, "way"]:
    """The ways that the support shows well; at least the largest, so that an episode always has one."""
    sizes = masks.sum(dim=(1, 2))
    numbers = torch.arange(len(sizes), device=sizes.device)
    return (sizes >= least) | (numbers == sizes.argmax())
