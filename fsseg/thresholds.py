"""Threshold policies: with which foreground prior to decide a query slice. They return log-odds; 0 is an even prior."""

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.ops import ideal_prior
from fsseg.types import Evidence, Score

LOWEST_PRIOR = 1e-3
"""Ideal priors are clipped to [1e-3, 1 - 1e-3] before their log-odds are averaged or regressed, as published."""


def clip_prior(log_odds: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Probabilities of these log-odds, clipped to what a regression can use."""
    with np.errstate(over="ignore"):
        return np.clip(1 / (1 + np.exp(-log_odds)), LOWEST_PRIOR, 1 - LOWEST_PRIOR)


def log_odds(prior: float) -> float:
    """Log-odds of a probability."""
    return float(np.log(prior) - np.log1p(-prior))


class CeT:
    """CE-T: the threshold that training with cross-entropy left in the head, at an even prior."""

    oracle: ClassVar[bool] = False

    def __init__(self) -> None:
        pass

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        return torch.zeros_like(evidence.query_location)


class Fixed:
    """A threshold chosen by hand: a prior, a score threshold T, or a distance threshold. Give exactly one.

    A score or distance takes the place of the learned T_S; for several prototypes or ways it shifts the prior by as
    much as it would for one.
    """

    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        prior: Annotated[float | None, Field(gt=0, lt=1, description="probability of the foreground")] = None,
        score: Annotated[float | None, Field(description="score threshold T in place of the learned T_S")] = None,
        distance: Annotated[
            float | None, Field(gt=0, le=2, description="distance threshold between unit vectors")
        ] = None,
    ) -> None:
        given = [
            name for name, value in [("prior", prior), ("score", score), ("distance", distance)] if value is not None
        ]
        if len(given) != 1:
            raise FssegError(
                f"threshold fixed: got {' and '.join(given) or 'nothing'}, expected exactly one of prior, score, distance; "
                "for example prior = 0.2"
            )
        self.prior, self.score, self.distance = prior, score, distance

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        """Raises FssegError where a score or distance is given to a head that has no score scale."""
        if self.prior is not None:
            return torch.full_like(evidence.query_location, log_odds(self.prior))
        scale = _score(evidence, "fixed")
        distance = scale.alpha.new_tensor(self.distance) if self.distance is not None else None
        prior = scale.prior_at_distance(distance) if distance is not None else (self.score - scale.threshold) / 2
        return prior.to(evidence.query_location).expand_as(evidence.query_location)


class AvgEst:
    """AvgEst: the mean ideal prior of training-fold episodes (TPM paper, Sec. 4.1)."""

    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        source: Annotated[
            Literal["calibration", "training"],
            Field(
                description="mean over calibration episodes, or from the running averages of training, "
                "as the published code does for one prototype"
            ),
        ] = "calibration",
    ) -> None:
        self.source = source
        self.prior: float | None = None

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        if self.source == "training":
            prior = _score(evidence, "avg_est").average_prior
            return prior.to(evidence.query_location).expand_as(evidence.query_location)
        if self.prior is None:
            raise _not_calibrated("avg_est")
        return torch.full_like(evidence.query_location, log_odds(self.prior))

    def describe(self, evidence: Evidence) -> Float[Tensor, "query regressor"]:
        """No regressors: the estimate is the same for every slice."""
        return evidence.query_location.new_zeros(len(evidence.query_location), 0)

    def fit(self, described: Float[np.ndarray, "episode regressor"], ideal: Float[np.ndarray, "episode"]) -> None:
        """The mean of the ideal priors (of the probabilities, not of their log-odds)."""
        self.prior = float(clip_prior(ideal).mean())

    def state(self) -> dict[str, float]:
        """What `fit` learned."""
        return {"prior": self.prior}

    def load_state(self, state: dict[str, float]) -> None:
        """Takes what `fit` learned."""
        self.prior = state["prior"]


class LinEst:
    """LinEst: the ideal prior's log-odds as a linear function of location and support size (TPM paper, Sec. 4.1).

    The regressors are `(location - 0.5)^2` and the support's share of its image. The location is the query slice's,
    one prior per slice, as the paper says; the published code uses the support slice's, one prior per volume.
    """

    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        location: Annotated[
            Literal["query", "support", "none"],
            Field(description="whose slice position is a regressor; none leaves the support size alone"),
        ] = "query",
    ) -> None:
        self.location = location
        self.coefficients: list[float] | None = None

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        if self.coefficients is None:
            raise _not_calibrated("lin_est")
        *slopes, intercept = self.coefficients
        described = self.describe(evidence)
        estimate = described.double() @ described.new_tensor(slopes, dtype=torch.float64) + intercept
        limit = log_odds(1 - LOWEST_PRIOR)
        return estimate.clamp(-limit, limit).to(described.dtype)

    def describe(self, evidence: Evidence) -> Float[Tensor, "query regressor"]:
        """The regressors of each query slice; the sizes of several ways add up."""
        query = evidence.query_location
        size = evidence.support_size.sum().to(query).expand_as(query)
        if self.location == "none":
            return size[:, None]
        support = evidence.support_location.mean().to(query).expand_as(query)
        location = query if self.location == "query" else support
        return torch.stack([(location - 0.5) ** 2, size], dim=1)

    def fit(self, described: Float[np.ndarray, "episode regressor"], ideal: Float[np.ndarray, "episode"]) -> None:
        """Ordinary least squares with intercept on the clipped log-odds."""
        prior = clip_prior(ideal)
        design = np.column_stack([described.astype(np.float64), np.ones(len(described))])
        solution, *_ = np.linalg.lstsq(design, np.log(prior / (1 - prior)), rcond=None)
        self.coefficients = [float(value) for value in solution]

    def state(self) -> dict[str, list[float]]:
        """What `fit` learned: the slopes, then the intercept."""
        return {"coefficients": self.coefficients}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Takes what `fit` learned."""
        self.coefficients = list(state["coefficients"])


class Ocp:
    """OCP, the oracle: the prior under which each slice gets exactly its true number of foreground pixels.

    It uses the ground truth and says so; tables mark it.
    """

    oracle: ClassVar[bool] = True

    def __init__(self) -> None:
        pass

    def __call__(self, evidence: Evidence, target: Int[Tensor, "query height width"]) -> Float[Tensor, "query"]:
        return ideal_prior(evidence.margin, (target > 0).sum(dim=(1, 2)))


def _score(evidence: Evidence, policy: str) -> Score:
    if evidence.score is None:
        raise FssegError(
            f"threshold {policy}: the head has no score threshold, expected one of the ADNet family; "
            "use a policy that works on priors, such as ce_t"
        )
    return evidence.score


def _not_calibrated(policy: str) -> FssegError:
    return FssegError(
        f"threshold {policy}: it was not calibrated, expected a call of fit or load_state first; "
        "`fsseg run` does it, in Python see fsseg.calibrate"
    )
