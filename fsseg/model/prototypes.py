"""Prototype extractors: from support features and masks to the prototypes of each way."""

import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from fsseg.errors import DataError
from fsseg.model.ops import pooling_weights
from fsseg.model.pixels import Pixels
from fsseg.plugins.options import component
from fsseg.types import Prototypes

Means = Float[Tensor, "proto channel"]
"""The mean of each component."""

Weights = Float[Tensor, "proto"]
"""The share of each component in the mixture."""

ByComponent = Float[Tensor, "proto pixel"]
"""A number for each pixel and component."""

SIGMA_AT_DEFAULTS = math.sqrt(0.1)  # alpha = 20, T_S = -10: sigma_F^2 = 2 / alpha

STEPS_AT_LEAST = 6
"""Iterations of EM before it may stop, as published."""


@component
class MaskedAverage:
    """Masked average pooling: one prototype per way, the mean feature under the mask (TPM paper, Eq. 1).

    With the features F resized to the image, for each shot, and then averaged over the shots of the way,

        p = sum_x F(x) mask(x) / sum_x mask(x)

    (Wang et al., PANet, 2019). Here the sum is done through the adjoint of the resize, which gives the same numbers
    without the resized features. Shots have equal weight, whatever the size of their masks. A way whose masks are empty
    has a prototype of zeros with weight 0.

    Shapes:
        features `way shot channel h w`, masks `way shot height width` -> prototypes `way 1 channel`.

    Example:
        >>> import torch
        >>> from fsseg import MaskedAverage
        >>> features = torch.tensor([[1.0, 3.0], [5.0, 7.0]])[None, None, None]
        >>> left = torch.tensor([[True, False], [True, False]])[None, None]
        >>> round(MaskedAverage()(features, left).foreground.item(), 3)
        3.0
    """

    fixed_shape: ClassVar[bool] = True
    background: ClassVar[bool] = False

    def __init__(self) -> None:
        pass

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        height, width = features.shape[-2:]
        weights = pooling_weights(masks, (height, width), features.dtype)
        sums = torch.einsum("wschk,wshk->wsc", features, weights)
        # The small number gives an empty mask a zero prototype, not NaN.
        area = masks.sum(dim=(-2, -1))[..., None] + 1e-5
        foreground = (sums / area).mean(dim=1, keepdim=True)
        is_there = masks.flatten(1).any(dim=1, keepdim=True)
        return Prototypes(foreground, is_there.to(foreground.dtype))


@component
class EmGmm:
    """Several prototypes per way: the components of an isotropic Gaussian mixture, fitted by EM (TPM paper, Sec. 3.2).

    The features f under the way's masks are taken for draws from `sum_j w_j N(f; p_j, sigma^2 I)`. The E-step shares
    each feature out over the components, in proportion to `w_j N(f; p_j, sigma^2 I)`; the M-step makes p_j the mean of
    the features, weighted by what component j has of them, and w_j its share of all.

    The standard deviation is the head's foreground sigma and is never re-estimated; means and weights are. On the
    sphere, features and means have unit length, which makes it a mixture of von Mises-Fisher densities and the
    normalised mean the exact M-step. Means start at the mean feature plus noise, so modes closer than about two
    sigmas collapse into one another; that is the model, not a failure. All shots of a way are fitted together. A mask
    may have fewer pixels than there are prototypes: several then share a pixel.

    Shapes:
        features `way shot channel h w`, masks `way shot height width` -> prototypes `way count channel`.

    Raises:
        DataError: When called with a way whose masks are empty.

    Example:
        >>> import torch
        >>> from fsseg import EmGmm
        >>> features, masks = torch.randn(2, 1, 16, 8, 8), torch.ones(2, 1, 64, 64, dtype=torch.bool)
        >>> prototypes = EmGmm(count=3)(features, masks, torch.tensor(0.3))
        >>> prototypes.foreground.shape
        torch.Size([2, 3, 16])
        >>> bool(torch.allclose(prototypes.weights.sum(dim=1), torch.ones(2)))
        True
    """

    fixed_shape: ClassVar[bool] = False
    background: ClassVar[bool] = False

    def __init__(
        self,
        *,
        count: Annotated[int, Field(ge=1, description="prototypes per way")] = 5,
        space: Annotated[
            Literal["sphere", "euclidean"],
            Field(description="unit-length features, or features as they are"),
        ] = "sphere",
        sigma: Annotated[
            float | None,
            Field(gt=0, description="standard deviation of a component; the head's when omitted"),
        ] = None,
        iterations: Annotated[int, Field(ge=1, description="EM iterations at most")] = 100,
        tolerance: Annotated[
            float, Field(ge=0, description="relative gain of the likelihood at which to stop")
        ] = 1e-3,
        noise: Annotated[
            float, Field(gt=0, description="spread of the initial means around the mean feature")
        ] = 0.1,
        seed: Annotated[
            int, Field(ge=0, description="seed of the initial means and weights")
        ] = 2021,
    ) -> None:
        self.count = count
        self.space = space
        self.sigma = sigma
        self.iterations = iterations
        self.tolerance = tolerance
        self.noise = noise
        self.seed = seed

    @torch.no_grad()
    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        if self.sigma is not None:
            sigma = features.new_tensor(self.sigma)
        elif sigma is None:
            sigma = features.new_tensor(SIGMA_AT_DEFAULTS)
        means, weights = [], []
        for of_way, way_masks in zip(features, masks):
            mixture = self.fit(self._pixels(of_way, way_masks), sigma)
            means.append(mixture[0])
            weights.append(mixture[1])
        return Prototypes(torch.stack(means), torch.stack(weights))

    def fit(
        self,
        pixels: Pixels,
        sigma: Float[Tensor, ""],
    ) -> tuple[Means, Weights]:
        """Fits the mixture to feature vectors.

        Args:
            pixels: The feature vectors.
            sigma: The standard deviation of every component.

        Returns:
            The means and the weights of the components.
        """
        means, weights = self._start(pixels)
        reference = _loss(self._log_densities(pixels, means, sigma), weights)
        for step in range(self.iterations):
            densities = self._log_densities(pixels, means, sigma)
            joint = densities + weights.log()[:, None]
            responsibilities = joint.softmax(dim=0)
            mass = responsibilities.sum(dim=1)
            means = self._project(_weighted_means(pixels, responsibilities, mass, means))
            weights = mass / mass.sum()
            loss = _loss(densities, weights)
            # The published stopping rule: a running reference, and at least so many iterations.
            stalls = reference / (loss + 1e-8) - 1 < self.tolerance
            if not stalls:
                reference = (reference + loss) / 2
            elif step + 1 >= STEPS_AT_LEAST:
                break
        return means, weights

    def _pixels(
        self, features: Float[Tensor, "shot channel h w"], masks: Bool[Tensor, "shot height width"]
    ) -> Pixels:
        if not masks.any():
            raise DataError(
                "support: a mask is empty, so there are no pixels to fit prototypes to; choose a slice with the class"
            )
        pixels = Pixels.under(features, masks)
        return pixels.normalised() if self.space == "sphere" else pixels

    def _project(self, vectors: Float[Tensor, "n channel"]) -> Float[Tensor, "n channel"]:
        """The vectors on the sphere, if that is where features are."""
        return F.normalize(vectors, dim=1) if self.space == "sphere" else vectors

    def _start(self, pixels: Pixels) -> tuple[Means, Weights]:
        """The mean feature with noise, and nearly even weights."""
        mean = pixels.mean()
        generator = torch.Generator().manual_seed(self.seed)
        offsets = torch.rand(self.count, len(mean), generator=generator) - 0.5
        levels = torch.rand(self.count, 1, generator=generator)[:, 0]
        # The scale of the noise is published for unit vectors; elsewhere it follows the features' own length.
        length = 1.0 if self.space == "sphere" else pixels.squares.mean().sqrt()
        means = mean + self.noise * length * offsets.to(mean)
        weights = (0.1 * levels.to(mean)).softmax(dim=0)
        return self._project(means), weights

    def _log_densities(
        self,
        pixels: Pixels,
        means: Means,
        sigma: Float[Tensor, ""],
    ) -> ByComponent:
        """Log densities up to a constant: -||f - mu||^2 / (2 sigma^2)."""
        products = pixels.products(means)
        if self.space == "sphere":
            return (products - 1) / sigma**2
        of_means = means.square().sum(dim=1)
        squared = pixels.squares + of_means[:, None] - 2 * products
        return -squared.clamp(min=0) / (2 * sigma**2)


def _loss(densities: ByComponent, weights: Weights) -> Float[Tensor, ""]:
    """The negative log-likelihood of all pixels under the mixture."""
    joint = densities + weights.log()[:, None]
    return -joint.logsumexp(dim=0).sum()


def _weighted_means(
    pixels: Pixels,
    responsibilities: ByComponent,
    mass: Weights,
    before: Means,
) -> Means:
    """The mean of each component's pixels; a component that lost all of them keeps its mean, and has no weight."""
    means = pixels.weighted_sums(responsibilities) / mass.clamp(min=1e-30)[:, None]
    return torch.where(mass[:, None] > 0, means, before)
