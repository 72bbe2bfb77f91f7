"""Augmentations that move pixels, and the masks with them."""

from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from fsseg.plugins.options import component
from fsseg.recipe.values import Range
from fsseg.training.augment import (
    Affine,
    draw_affine,
    draw_noise,
    elastic_field,
    inverse_maps,
    warp_grids,
    warp_slice,
)
from fsseg.training.drawn import SliceFacts

ATTEMPTS = 15
"""Warps of a support that are tried, at most, until one leaves something of the masks."""

QUERY_ATTEMPTS = 5
"""Warps of a query that are tried, likewise, as published."""

Image = Float[Tensor, "*channel height width"]
Masks = Bool[Tensor, "way height width"]
Numbers = Float[Tensor, "number"]
Drawn = Float[np.ndarray, "number"]

Angle = Annotated[float, Field(ge=0, le=180, description="largest rotation, degrees")]
Shift = Annotated[float, Field(ge=0, description="largest translation, pixels")]
Shear = Annotated[float, Field(ge=0, lt=90, description="largest shear, degrees")]
Zoom = Annotated[Range, Field(description="range of the zoom")]
Strength = Annotated[float, Field(ge=0, description="strength of the elastic deformation")]
Sigma = Annotated[
    float, Field(gt=0, le=1000, description="smoothness of the elastic deformation, pixels")
]


@component
class Warp:
    """An affine map and an elastic deformation in one interpolation, as published with ADNet and TPM but for that.

    A slice is rotated about its centre, shifted, sheared and zoomed by numbers that are drawn uniformly, after uniform
    noise between -1 and 1, smoothed by a Gaussian of `elastic_sigma` pixels and multiplied by `elastic`, has moved each
    pixel. What comes from outside has the mean intensity of the scan. Masks are warped likewise, and a pixel is a way's
    where more than half of it is.

    Where a warp leaves nothing of the masks, another affine map is tried, up to 15 for a support and 5 for a query; after
    that the slice stays as it was.

    Reference: Ouyang et al., Self-supervision with superpixels (2020); Simard et al. (2003) for the deformation.
    """

    def __init__(
        self,
        *,
        angle: Angle = 5.0,
        shift: Shift = 5.0,
        shear: Shear = 5.0,
        zoom: Zoom = (0.9, 1.2),
        elastic: Strength = 10.0,
        elastic_sigma: Sigma = 5.0,
    ) -> None:
        self.angle = angle
        self.shift = shift
        self.shear = shear
        self.zoom = zoom
        self.elastic = elastic
        self.elastic_sigma = elastic_sigma

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Drawn:
        """Draws the elastic noise and the affine maps to try; as inverses, behind the intensity of what is outside."""
        attempts = QUERY_ATTEMPTS if about.is_query else ATTEMPTS
        affines = [self._draw_affine(rng)]
        noise_seed = int(rng.integers(2**62))
        while len(affines) < attempts:
            affines.append(self._draw_affine(rng))
        inverses = inverse_maps(affines, about.size)
        last = inverses[-1:]
        filled_up = [inverses, *[last] * (ATTEMPTS - attempts)]
        parts = [np.array([about.fill]), *[rows.ravel() for rows in filled_up]]
        if self.elastic > 0:
            parts.insert(0, draw_noise(noise_seed, about.size).numpy().ravel())
        return np.concatenate(parts, dtype=np.float32, casting="same_kind")

    def _draw_affine(self, rng: np.random.Generator) -> Affine:
        return draw_affine(
            rng, angle=self.angle, shift=self.shift, shear=self.shear, zoom=self.zoom
        )

    def __call__(self, image: Image, masks: Masks, numbers: Numbers) -> tuple[Image, Masks]:
        """Warps the slice by the first of the maps that leaves something of the masks."""
        field, fill, inverses = self._parts(image, numbers)
        grids = warp_grids(field, inverses)
        images, candidates = warp_slice(image, masks, grids, fill)
        leaves_some = candidates.any(dim=(1, 2, 3))
        first = leaves_some.int().argmax()[None]
        [new_image] = images.index_select(0, first)
        [new_masks] = candidates.index_select(0, first)
        moved = leaves_some.any()
        return torch.where(moved, new_image, image), torch.where(moved, new_masks, masks)

    def plainly(self, image: Image, masks: Masks, numbers: Numbers) -> tuple[Image, Masks]:
        """Does the same where the host may be asked: further maps are worked out only if they are needed, which is rare."""
        field, fill, inverses = self._parts(image, numbers)
        for inverse in inverses:
            grids = warp_grids(field, inverse[None])
            [new_image], [new_masks] = warp_slice(image, masks, grids, fill)
            if new_masks.any():
                return new_image, new_masks
        return image, masks

    def _parts(self, image: Image, numbers: Numbers) -> tuple[Tensor, Tensor, Tensor]:
        """The elastic field, the intensity outside, and the inverse maps."""
        height, width = image.shape[-2:]
        if self.elastic > 0:
            noise = numbers[: 2 * height * width].view(2, height, width)
            field = elastic_field(noise, self.elastic, self.elastic_sigma)
        else:
            field = image.new_zeros(2, height, width)
        fill = numbers[-1 - 6 * ATTEMPTS]
        return field, fill, numbers[-6 * ATTEMPTS :].view(ATTEMPTS, 2, 3)


@component
class AffineWarp(Warp):
    """An affine map alone: `warp` without its elastic deformation."""

    def __init__(
        self,
        *,
        angle: Angle = 5.0,
        shift: Shift = 5.0,
        shear: Shear = 5.0,
        zoom: Zoom = (0.9, 1.2),
    ) -> None:
        super().__init__(angle=angle, shift=shift, shear=shear, zoom=zoom, elastic=0.0)


@component
class ElasticWarp(Warp):
    """An elastic deformation alone: `warp` without its affine map."""

    def __init__(self, *, strength: Strength = 10.0, sigma: Sigma = 5.0) -> None:
        super().__init__(
            angle=0.0,
            shift=0.0,
            shear=0.0,
            zoom=(1.0, 1.0),
            elastic=strength,
            elastic_sigma=sigma,
        )


@component
class Flip:
    """The mirror image of a slice and its masks.

    A flip by "width" has left and right change places, one by "height" top and bottom; "random" is one of these two or
    both, each with the same chance. Whether it is done at all is the entry's `chance`.

    Reference: the usual flip, as in nnU-Net (Isensee et al., 2021). It makes a left kidney look like a right one.
    """

    def __init__(
        self,
        *,
        axis: Annotated[
            Literal["width", "height", "random"], Field(description="the axis that is turned round")
        ] = "width",
    ) -> None:
        self.axis = axis

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Drawn:
        """Draws by which axes: 1 for height and for width."""
        if self.axis == "random":
            choice = 1 + int(rng.integers(3))
            return np.array([choice & 1, choice >> 1], dtype=np.float32)
        return np.array([self.axis == "height", self.axis == "width"], dtype=np.float32)

    def __call__(self, image: Image, masks: Masks, numbers: Numbers) -> tuple[Image, Masks]:
        """Flips image and masks."""
        for axis, number in zip((-2, -1), numbers.unbind()):
            flips = number > 0
            image = torch.where(flips, image.flip(axis), image)
            masks = torch.where(flips, masks.flip(axis), masks)
        return image, masks
