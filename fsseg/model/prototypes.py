"""Prototype extractors: from support features and masks to the prototypes of each way."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from fsseg.errors import DataError
from fsseg.model.ops import pooling_weights
from fsseg.types import Prototypes

SIGMA_AT_DEFAULTS = math.sqrt(0.1)  # alpha = 20, T_S = -10: sigma_F^2 = 2 / alpha


class MaskedAverage:
    """Masked average pooling: one prototype per way, the mean feature under the mask.

    Features are resized to the image first (Eq. 1 of the TPM paper; Wang et al., PANet, 2019); here that is done
    through the adjoint of the resize, which gives the same numbers without the resized features. The prototypes of
    several shots are averaged with equal weight, whatever the size of their masks. A way whose masks are empty has a
    prototype of zeros with weight 0.

    Attributes:
        fixed_shape: True for an extractor that takes empty ways and never asks the host for a value, so that a
            training step with it can be recorded.
    """

    fixed_shape = True

    def __init__(self) -> None:
        pass

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        weights = pooling_weights(masks, tuple(features.shape[-2:]), features.dtype)
        sums = torch.einsum("wschk,wshk->wsc", features, weights)
        area = (
            masks.sum(dim=(-2, -1))[..., None] + 1e-5
        )  # an empty mask gives a zero prototype, not NaN
        foreground = (sums / area).mean(dim=1, keepdim=True)
        return Prototypes(
            foreground, masks.flatten(1).any(dim=1, keepdim=True).to(foreground.dtype)
        )


class EmGmm:
    """Several prototypes per way: the components of an isotropic Gaussian mixture, fitted by EM (TPM paper, Sec. 3.2).

    The standard deviation is the head's foreground sigma and is never re-estimated; means and weights are. On the
    sphere, features and means have unit length, which makes it a mixture of von Mises-Fisher densities and the
    normalised mean the exact M-step. Means start at the mean feature plus noise, so modes closer than about two
    sigmas collapse into one another; that is the model, not a failure. All shots of a way are fitted together. A mask
    may have fewer pixels than there are prototypes: several then share a pixel.
    """

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
        self.count, self.space, self.sigma = count, space, sigma
        self.iterations, self.tolerance, self.noise, self.seed = iterations, tolerance, noise, seed

    @torch.no_grad()
    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        """Raises DataError for a way whose masks are empty."""
        if self.sigma is not None:
            sigma = features.new_tensor(self.sigma)
        elif sigma is None:
            sigma = features.new_tensor(SIGMA_AT_DEFAULTS)
        fits = [self.fit(self._pixels(f, m), sigma) for f, m in zip(features, masks)]
        means, weights = zip(*fits)
        return Prototypes(torch.stack(means), torch.stack(weights))

    def fit(
        self, pixels: "Pixels", sigma: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "proto channel"], Float[Tensor, "proto"]]:
        """Means and weights of the mixture that EM finds for these feature vectors."""
        means, weights = self._start(pixels)
        reference = (
            -(self._log_densities(pixels, means, sigma) + weights.log()[:, None])
            .logsumexp(dim=0)
            .sum()
        )
        for step in range(self.iterations):
            densities = self._log_densities(pixels, means, sigma)
            responsibilities = (densities + weights.log()[:, None]).softmax(dim=0)
            mass = responsibilities.sum(dim=1)
            # A component that lost all its pixels keeps its mean; its weight is zero.
            updated = torch.where(
                mass[:, None] > 0,
                pixels.weighted_sums(responsibilities) / mass.clamp(min=1e-30)[:, None],
                means,
            )
            weights = mass / mass.sum()
            loss = -(densities + weights.log()[:, None]).logsumexp(dim=0).sum()
            means = self._place(updated)
            # The published stopping rule: a running reference, at least six iterations.
            if reference / (loss + 1e-8) - 1 < self.tolerance:
                if step >= 5:
                    break
            else:
                reference = (reference + loss) / 2
        return means, weights

    def _pixels(
        self, features: Float[Tensor, "shot channel h w"], masks: Bool[Tensor, "shot height width"]
    ) -> "Pixels":
        if not masks.any():
            raise DataError(
                "support: a mask is empty, so there are no pixels to fit prototypes to; choose a slice with the class"
            )
        pixels = Pixels.under(features, masks)
        return pixels.normalised() if self.space == "sphere" else pixels

    def _place(self, vectors: Float[Tensor, "n channel"]) -> Float[Tensor, "n channel"]:
        return F.normalize(vectors, dim=1) if self.space == "sphere" else vectors

    def _start(
        self, pixels: "Pixels"
    ) -> tuple[Float[Tensor, "proto channel"], Float[Tensor, "proto"]]:
        mean = pixels.mean()
        generator = torch.Generator().manual_seed(self.seed)
        offsets = torch.rand(self.count, len(mean), generator=generator) - 0.5
        levels = torch.rand(self.count, 1, generator=generator)[:, 0]
        # The scale of the noise is published for unit vectors; elsewhere it follows the features' own length.
        length = 1.0 if self.space == "sphere" else pixels.squares.mean().sqrt()
        means = mean + self.noise * length * offsets.to(mean)
        return self._place(means), (0.1 * levels.to(mean)).softmax(dim=0)

    def _log_densities(
        self, pixels: "Pixels", means: Float[Tensor, "proto channel"], sigma: Float[Tensor, ""]
    ) -> Float[Tensor, "proto pixel"]:
        """Log densities up to a constant: -||f - mu||^2 / (2 sigma^2)."""
        if self.space == "sphere":
            return (pixels.products(means) - 1) / sigma**2
        squared = pixels.squares + means.square().sum(dim=1)[:, None] - 2 * pixels.products(means)
        return -squared.clamp(min=0) / (2 * sigma**2)


@dataclass(frozen=True)
class Pixels:
    """Feature vectors of pixels, each a weighted sum of a few cells of the features, which are never written out.

    EM needs only products of the vectors with means, and weighted sums of the vectors. Both are linear, so they are
    worked out on the cells, of which there are some hundred times fewer than pixels.

    Attributes:
        cells: The features of the cells that have a share in any pixel.
        places: The cells of each pixel.
        shares: Their weights.
        squares: The squared length of each pixel's vector.
    """

    cells: Float[Tensor, "cell channel"]
    places: Int[Tensor, "neighbour pixel"]
    shares: Float[Tensor, "neighbour pixel"]
    squares: Float[Tensor, "pixel"]

    @staticmethod
    def under(
        features: Float[Tensor, "shot channel h w"], masks: Bool[Tensor, "shot height width"]
    ) -> "Pixels":
        """Those under the masks, of features that are resized to them (bilinear, align_corners=False)."""
        (height, width), (h, w) = masks.shape[-2:], features.shape[-2:]
        shot, y, x = masks.nonzero(as_tuple=True)
        (top, bottom, down), (left, right, along) = (
            neighbours(y.to(features.dtype), height, h),
            neighbours(x.to(features.dtype), width, w),
        )
        places = torch.stack(
            [(shot * h + row) * w + column for row in (top, bottom) for column in (left, right)]
        )
        shares = torch.stack([a * b for a in (1 - down, down) for b in (1 - along, along)])
        used, places = places.unique(return_inverse=True)
        cells = features.movedim(1, -1).flatten(0, 2)[used]
        near = (cells @ cells.T)[places[:, None], places]
        squares = (near * shares[:, None] * shares).sum(dim=(0, 1)).clamp(min=0)
        return Pixels(cells, places, shares, squares)

    @staticmethod
    def of(vectors: Float[Tensor, "pixel channel"]) -> "Pixels":
        """Vectors at hand, each its own cell."""
        places = torch.arange(len(vectors), device=vectors.device)[None]
        return Pixels(
            vectors, places, vectors.new_ones(1, len(vectors)), vectors.square().sum(dim=1)
        )

    def normalised(self) -> "Pixels":
        """The same with unit length."""
        lengths = self.squares.sqrt().clamp(min=1e-12)
        return replace(self, shares=self.shares / lengths, squares=self.squares / lengths.square())

    def products(self, means: Float[Tensor, "proto channel"]) -> Float[Tensor, "proto pixel"]:
        """The dot product of every mean with every vector."""
        on_cells = (means @ self.cells.T).index_select(1, self.places.flatten())
        return (on_cells.view(len(means), *self.places.shape) * self.shares).sum(dim=1)

    def weighted_sums(
        self, weights: Float[Tensor, "proto pixel"]
    ) -> Float[Tensor, "proto channel"]:
        """By row of the weights, the weighted sum of the vectors."""
        spread = (weights[:, None] * self.shares).flatten(1)
        on_cells = spread.new_zeros(len(weights), len(self.cells)).index_add_(
            1, self.places.flatten(), spread
        )
        return on_cells @ self.cells

    def mean(self) -> Float[Tensor, "channel"]:
        """The mean vector."""
        return self.weighted_sums(torch.ones_like(self.squares)[None])[0] / len(self.squares)


def neighbours(
    place: Float[Tensor, "pixel"], fine: int, coarse: int
) -> tuple[Int[Tensor, "pixel"], Int[Tensor, "pixel"], Float[Tensor, "pixel"]]:
    """The two of `coarse` places between which each of `fine` places lies in a bilinear resize, and the second's share."""
    position = ((place + 0.5) * (coarse / fine) - 0.5).clamp(min=0)
    first = position.long()
    return first, (first + 1).clamp(max=coarse - 1), position - first
