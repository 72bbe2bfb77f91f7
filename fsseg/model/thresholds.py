"""Threshold policies: with which foreground prior to decide a query slice. They return log-odds; 0 is an even prior."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.model.estimates import AvgEst, LinEst, Profile
from fsseg.model.ops import ideal_prior
from fsseg.model.priors import for_all_slices, log_odds, score_scale
from fsseg.plugins.options import component
from fsseg.types import Evidence

__all__ = ["AvgEst", "CeT", "Fixed", "LinEst", "Ocp", "Profile"]


@component
class CeT:
    """CE-T: the threshold that training with cross-entropy left in the head, at an even prior.

    The log-odds of the foreground's prior are 0 for every slice, so a pixel is foreground where a foreground logit of
    the head is above the background's.

    Shapes:
        evidence of `query` slices -> log-odds `query`.
    """

    oracle: ClassVar[bool] = False

    def __init__(self) -> None:
        pass

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        return torch.zeros_like(evidence.query_location)


@component
class Fixed:
    """A threshold chosen by hand: a prior, a score threshold T, or a distance threshold. Give exactly one.

    A score or distance takes the place of the learned T_S; for several prototypes or ways it shifts the prior by as
    much as it would for one. The log-odds of the prior are

        log(prior / (1 - prior)),  (score - T_S) / 2,  or  alpha / 4 (distance^2 - T_D^2).

    Shapes:
        evidence of `query` slices -> log-odds `query`.

    Raises:
        FssegError: Not exactly one is given; when called, a score or distance for a head that has no score scale.

    Example:
        >>> from fsseg import Fixed
        >>> Fixed(prior=0.2)
        Fixed(prior=0.2, score=None, distance=None)
    """

    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        prior: Annotated[
            float | None, Field(gt=0, lt=1, description="probability of the foreground")
        ] = None,
        score: Annotated[
            float | None, Field(description="score threshold T in place of the learned T_S")
        ] = None,
        distance: Annotated[
            float | None, Field(gt=0, le=2, description="distance threshold between unit vectors")
        ] = None,
    ) -> None:
        choices = {"prior": prior, "score": score, "distance": distance}
        given = [name for name, value in choices.items() if value is not None]
        if len(given) != 1:
            raise FssegError(
                f"threshold fixed: got {' and '.join(given) or 'nothing'}, expected exactly one of prior, score, distance; "
                "for example prior = 0.2"
            )
        self.prior = prior
        self.score = score
        self.distance = distance

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        if self.prior is not None:
            return torch.full_like(evidence.query_location, log_odds(self.prior))
        scale = score_scale(evidence, "fixed")
        if self.score is not None:
            prior = (self.score - scale.threshold) / 2
        else:
            prior = scale.prior_at_distance(scale.alpha.new_tensor(self.distance))
        return for_all_slices(prior, evidence)


@component
class Ocp:
    """OCP, the oracle: the prior under which each slice gets exactly its true number of foreground pixels.

    With k foreground pixels in the truth, the boundary is half-way between the k-th and the (k+1)-th largest margin
    (TPM paper, Sec. 3.4). It uses the ground truth and says so; tables mark it.

    Shapes:
        evidence of `query` slices, target `query height width` -> log-odds `query`.
    """

    oracle: ClassVar[bool] = True

    def __init__(self) -> None:
        pass

    def __call__(
        self, evidence: Evidence, target: Int[Tensor, "query height width"]
    ) -> Float[Tensor, "query"]:
        return ideal_prior(evidence.margin, (target > 0).sum(dim=(1, 2)))
