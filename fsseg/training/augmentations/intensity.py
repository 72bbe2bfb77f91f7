"""Augmentations that change intensities and leave every pixel where it is."""

from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from fsseg.plugins.options import component
from fsseg.recipe.values import Range
from fsseg.training.augment import SOFTENING, change_gamma, own_range
from fsseg.training.drawn import SliceFacts

Image = Float[Tensor, "*channel height width"]
Masks = Bool[Tensor, "way height width"]
Numbers = Float[Tensor, "number"]
Drawn = Float[np.ndarray, "number"]


@component
class Gamma:
    """Gamma correction within the image's own range, as published with ADNet and TPM.

    An image v with minimum m and range r, to both of which and to v - m 1e-5 is added, becomes
    `r ((v - m) / r)^g + m` with an exponent g that is drawn uniformly.

    Reference: Ouyang et al., Self-supervision with superpixels (2020), whose augmentation ADNet (Hansen et al., 2022) and
    the TPM paper use.
    """

    def __init__(
        self,
        *,
        gamma: Annotated[Range, Field(description="range of the exponent")] = (0.5, 1.5),
    ) -> None:
        self.gamma = gamma

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Drawn:
        """Draws the exponent."""
        return np.array([rng.uniform(*self.gamma)])

    def __call__(self, image: Image, masks: Masks, numbers: Numbers) -> tuple[Image, Masks]:
        """Changes the intensities."""
        [gamma] = numbers.unbind()
        return change_gamma(image, gamma), masks


@component
class RandomCurve:
    """A random curve from old to new intensities: monotone, piecewise linear, and falling now and then.

    An image v with minimum m and range r becomes `m + r c((v - m) / r)`. Between k/n and (k+1)/n, for n pieces, the
    curve c rises by d_k, a uniform number divided by the sum of all n; with the chance `falling` it is 1 - c instead,
    which turns bright into dark.

    Reference: Zhou et al., Models Genesis (2021), whose curves are Bezier's; straight pieces are ours.

    Example:
        >>> import numpy as np, torch
        >>> from fsseg.augmentations import RandomCurve
        >>> falling = RandomCurve(pieces=1, falling=1.0)
        >>> image = torch.tensor([[1.0, 2.0, 5.0]])
        >>> numbers = torch.from_numpy(falling.draw(np.random.default_rng(0), None)).float()
        >>> falling(image, image[None] > 1, numbers)[0].tolist()
        [[5.0, 4.0, 1.0]]
    """

    def __init__(
        self,
        *,
        pieces: Annotated[int, Field(ge=1, le=64, description="straight pieces of the curve")] = 6,
        falling: Annotated[
            float, Field(ge=0, le=1, description="chance of a curve that falls")
        ] = 0.25,
    ) -> None:
        self.pieces = pieces
        self.falling = falling

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Drawn:
        """Draws where the curve begins, and by how much each piece rises or falls."""
        rises = rng.random(self.pieces) + SOFTENING
        rises /= rises.sum()
        falls = rng.random() < self.falling
        if falls:
            return np.array([1.0, *-rises])
        return np.array([0.0, *rises])

    def __call__(self, image: Image, masks: Masks, numbers: Numbers) -> tuple[Image, Masks]:
        """Changes the intensities."""
        low, high = own_range(image)
        span = high - low
        place = (image - low) / span.clamp(min=SOFTENING) * self.pieces
        start, *rises = numbers.unbind()
        curve = start.expand_as(image)
        for piece, rise in enumerate(rises):
            curve = curve + rise * (place - piece).clamp(0, 1)
        return low + span * curve, masks


@component
class BiasField:
    """A smooth field that multiplies intensities, as the coils of an MR scanner cause.

    An image v with minimum m becomes `m + (v - m) exp(b)` with `b = sum_ij c_ij x^i y^j` over all i + j from 1 to `order`,
    where x and y go from -1 to 1 across the slice and each c_ij is uniform between -strength and strength.

    Reference: Van Leemput et al., Automated model-based bias field correction of MR images of the brain (1999), for the
    polynomial in the logarithm of intensities.
    """

    def __init__(
        self,
        *,
        order: Annotated[int, Field(ge=1, le=8, description="degree of the polynomial")] = 3,
        strength: Annotated[
            float, Field(ge=0, le=5, description="largest size of a coefficient")
        ] = 0.3,
    ) -> None:
        self.order = order
        self.strength = strength

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Drawn:
        """Draws a coefficient for each pair of powers, also for those that are left out."""
        count = (self.order + 1) ** 2
        return rng.uniform(-self.strength, self.strength, count)

    def __call__(self, image: Image, masks: Masks, numbers: Numbers) -> tuple[Image, Masks]:
        """Multiplies the intensities by the field."""
        height, width = image.shape[-2:]
        powers = torch.arange(self.order + 1, device=image.device)
        degree = powers[:, None] + powers
        is_used = (degree >= 1) & (degree <= self.order)
        coefficients = numbers.view(len(powers), len(powers)) * is_used
        rows = _coordinates(height, image)[:, None] ** powers
        columns = _coordinates(width, image)[:, None] ** powers
        logarithm = rows @ coefficients @ columns.T
        low, _ = own_range(image)
        return low + (image - low) * logarithm.exp(), masks


def _coordinates(size: int, like: Tensor) -> Float[Tensor, "size"]:
    """The middles of pixels, from -1 to 1 across the slice."""
    places = torch.arange(size, device=like.device, dtype=like.dtype)
    return (2 * places + 1) / size - 1


@component
class Noise:
    """Gaussian noise.

    An image v with standard deviation s becomes `v + a s n`, where n is standard normal for each pixel and a is drawn
    uniformly up to `strength`, once for the slice.

    Reference: Isensee et al., nnU-Net (2021), whose augmentation has such noise.
    """

    def __init__(
        self,
        *,
        strength: Annotated[
            float,
            Field(
                ge=0,
                description="largest spread of the noise, as a share of the slice's own spread",
            ),
        ] = 0.1,
    ) -> None:
        self.strength = strength

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Drawn:
        """Draws the noise of every pixel."""
        amount = rng.uniform(0, self.strength)
        noise = rng.standard_normal(about.shape, dtype=np.float32)
        return np.float32(amount) * noise.ravel()

    def __call__(self, image: Image, masks: Masks, numbers: Numbers) -> tuple[Image, Masks]:
        """Adds the noise."""
        spread = image.std(dim=(-2, -1), correction=0, keepdim=True)
        return image + spread * numbers.view(image.shape), masks
