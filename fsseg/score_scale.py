"""The scale on which heads of the ADNet family score; `fsseg.types` has it with the other values."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ScoreScale:
    """The scale on which a head of the ADNet family scores: alpha, the threshold T_S, and what follows from them.

    `T_S = alpha (T_D^2 / 2 - 1)` ties the score threshold to a distance threshold T_D between unit vectors. With the
    number of dimensions d and an even prior, alpha and T_S are one to one with the standard deviations of foreground
    and background (Kim et al., Tied Prototype Model, Eq. 6).

    Attributes:
        alpha: Scale of the cosine.
        threshold: The score threshold T_S; foreground is where `-alpha cos < T_S`.
        dimension: d in the Gaussians' normalisation (the paper uses 1 "for simplicity").
        average_distance: Running average over training of the ideal distance threshold (IDT).
        average_sigmas: Running average over training of the foreground and background standard deviations.
    """

    alpha: Float[Tensor, ""]
    threshold: Float[Tensor, ""]
    dimension: int
    average_distance: Float[Tensor, ""]
    average_sigmas: Float[Tensor, "2"]

    @property
    def distance(self) -> Float[Tensor, ""]:
        """The distance threshold T_D; T_S must not lie below -alpha."""
        return (2 * (1 + self.threshold / self.alpha)).clamp(min=0).sqrt()

    @property
    def sigmas(self) -> Float[Tensor, "2"]:
        """Standard deviations (foreground, background) at an even prior."""
        ratio = torch.exp((self.alpha + self.threshold) / self.dimension)  # sigma_B^2 / sigma_F^2
        return torch.stack([1 - 1 / ratio, ratio - 1]).mul(2 / self.alpha).sqrt()

    def prior_at_distance(self, distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Log-odds of the prior that puts the boundary at this distance (IDT -> ICP, free of overflow)."""
        return self.alpha / 4 * (distance**2 - self.distance**2)

    def distance_at_prior(self, prior: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The boundary's distance under a prior given in log-odds (ICP -> IDT)."""
        return (self.distance**2 + 4 * prior / self.alpha).clamp(min=0).sqrt()

    @property
    def average_prior(self) -> Float[Tensor, ""]:
        """Log-odds of the ideal prior that follows from the running averages (the published AvgEst)."""
        sigma_f, sigma_b = self.average_sigmas
        return (1 / sigma_f**2 - 1 / sigma_b**2) * self.average_distance**2 / 2 - self.dimension * (
            sigma_b / sigma_f
        ).log()
