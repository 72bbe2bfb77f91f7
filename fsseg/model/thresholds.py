"""Threshold policies: with which foreground prior to decide a query slice. They return log-odds; 0 is an even prior."""

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.model.ops import ideal_prior
from fsseg.model.priors import (
    LOWEST_PRIOR,
    clip_prior,
    fit_plane,
    fit_pooled,
    fit_published,
    linear,
    log_odds,
    pool_ways,
)
from fsseg.types import Evidence, IdealPriors, ScoreScale

PerClass = Annotated[
    bool,
    Field(
        description="fit the prior under which each class by itself gets its true number of pixels, instead of all "
        "classes together; matters where several classes are segmented at once"
    ),
]


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
        given = [
            name
            for name, value in [("prior", prior), ("score", score), ("distance", distance)]
            if value is not None
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
        prior = (
            scale.prior_at_distance(distance)
            if distance is not None
            else (self.score - scale.threshold) / 2
        )
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
        per_class: PerClass = False,
    ) -> None:
        if per_class and source == "training":
            raise FssegError(
                'threshold avg_est: got source = "training" with per_class = true, but the running averages of training '
                'know no classes; expected source = "calibration"'
            )
        self.source, self.per_class = source, per_class
        self.prior: float | None = None

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        if self.source == "training":
            prior = _score(evidence, "avg_est").average_prior
            return prior.to(evidence.query_location).expand_as(evidence.query_location)
        if self.prior is None:
            raise _not_calibrated("avg_est")
        return torch.full_like(evidence.query_location, log_odds(self.prior))

    def describe(self, evidence: Evidence) -> Float[Tensor, "query 0"]:
        """No regressors: the estimate is the same for every slice."""
        return evidence.query_location.new_zeros(len(evidence.query_location), 0)

    def fit(self, described: list[Float[np.ndarray, "0"]], ideal: IdealPriors) -> None:
        """The mean of the ideal priors (of the probabilities, not of their log-odds)."""
        self.prior = float(
            clip_prior(np.concatenate(ideal.ways) if self.per_class else ideal.together).mean()
        )

    def state(self) -> dict[str, float]:
        """What `fit` learned."""
        return {"prior": self.prior}

    def load_state(self, state: dict[str, float]) -> None:
        """Takes what `fit` learned."""
        self.prior = state["prior"]


class LinEst:
    """LinEst: the ideal prior's log-odds as a linear function of location and support size (TPM paper, Sec. 4.1).

    The regressors of a way are `(location - 0.5)^2` and the support's share of its image. The location is the query
    slice's, one prior per slice, as the paper says; the published code uses the support slice's, one prior per volume.

    One way is fitted by least squares. Several ways share a plane u: each way's prior is its own `u_c` where classes
    are fitted one by one, and otherwise the foreground's log-odds are `log mean_c exp(u_c)`. The published model
    divides by a second sum with slopes that were never learned, and so falls with the number of ways.
    """

    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        location: Annotated[
            Literal["query", "support", "none"],
            Field(
                description="whose slice position is a regressor; none leaves the support size alone"
            ),
        ] = "query",
        per_class: PerClass = False,
        several: Annotated[
            Literal["repaired", "published"],
            Field(description="how the plane's values of several ways become one prior"),
        ] = "repaired",
    ) -> None:
        if per_class and several == "published":
            raise FssegError(
                'threshold lin_est: got per_class = true with several = "published", but the published model has one '
                'prior for all classes; expected several = "repaired"'
            )
        self.location, self.per_class, self.several = location, per_class, several
        self.coefficients: list[float] | None = None
        self.background: list[float] | None = None

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"] | Float[Tensor, "query way"]:
        if self.coefficients is None:
            raise _not_calibrated("lin_est")
        described = self.describe(evidence)
        estimate = linear(described, self.coefficients)
        if not self.per_class:
            background = None if self.background is None else linear(described, self.background)
            estimate = pool_ways(estimate, background)
        limit = log_odds(1 - LOWEST_PRIOR)
        return estimate.clamp(-limit, limit).to(described.dtype)

    def describe(self, evidence: Evidence) -> Float[Tensor, "query way regressor"]:
        """The regressors of each query slice and way."""
        size = evidence.support_size.expand(len(evidence.query_location), -1)
        if self.location == "none":
            return size[:, :, None]
        query = evidence.query_location[:, None].expand_as(size)
        support = evidence.support_location.mean(dim=1).expand_as(size)
        location = query if self.location == "query" else support
        return torch.stack([(location - 0.5) ** 2, size.to(location)], dim=2)

    def fit(self, described: list[Float[np.ndarray, "_way regressor"]], ideal: IdealPriors) -> None:
        """Fits the plane to ideal priors, clipped to [0.001, 0.999]."""
        several = any(len(ways) > 1 for ways in described)
        self.background = None
        if self.per_class or not several:
            self.coefficients = fit_plane(np.concatenate(described), np.concatenate(ideal.ways))
        elif self.several == "repaired":
            self.coefficients = fit_pooled(described, ideal.together)
        else:
            self.coefficients, self.background = fit_published(described, ideal.together)

    def state(self) -> dict[str, list[float]]:
        """What `fit` learned: slopes, then the intercept; in the published model of several ways the background's too."""
        return {"coefficients": self.coefficients} | (
            {"background": self.background} if self.background else {}
        )

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Takes what `fit` learned."""
        self.coefficients, self.background = list(state["coefficients"]), state.get("background")


class Profile:
    """LinEst, moved between the slices of the query by where its margins are high along the scan.

    LinEst tells the prior from the support's size and the slice's position, whatever the query shows. Here a slice whose
    largest margins are higher than in other slices gets a larger prior, and the others a smaller one; the number of
    foreground pixels in the query stays. Of a query of one slice it is LinEst, so that is what is fitted.
    """

    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        strength: Annotated[
            float,
            Field(
                ge=0,
                description="log-odds for each unit by which the slices' largest margins differ",
            ),
        ] = 1.0,
        share: Annotated[
            float,
            Field(
                gt=0, le=1, description="of a slice's pixels, those whose margins are its largest"
            ),
        ] = 1 / 64,
        location: Annotated[
            Literal["query", "support", "none"],
            Field(description="LinEst's: whose slice position is a regressor"),
        ] = "query",
    ) -> None:
        self.strength, self.share = strength, share
        self.estimate = LinEst(location=location)

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        """Raises FssegError where it was not calibrated."""
        prior = self.estimate(evidence)
        margins = evidence.margin.flatten(1)
        largest = margins.topk(max(1, round(self.share * margins.shape[1])), dim=1).values.mean(
            dim=1
        )
        moved = prior + self.strength * (largest - largest.max())
        count = (margins > -prior[:, None]).sum()
        # The same amount in the query: its slices, moved, as one that has so many foreground pixels.
        return moved + ideal_prior((margins + moved[:, None])[None], count[None])

    def describe(self, evidence: Evidence) -> Float[Tensor, "query way regressor"]:
        """LinEst's regressors."""
        return self.estimate.describe(evidence)

    def fit(self, described: list[Float[np.ndarray, "_way regressor"]], ideal: IdealPriors) -> None:
        """Fits LinEst."""
        self.estimate.fit(described, ideal)

    def state(self) -> dict[str, list[float]]:
        """LinEst's."""
        return self.estimate.state()

    def load_state(self, state: dict[str, list[float]]) -> None:
        """LinEst's."""
        self.estimate.load_state(state)


class Ocp:
    """OCP, the oracle: the prior under which each slice gets exactly its true number of foreground pixels.

    It uses the ground truth and says so; tables mark it.
    """

    oracle: ClassVar[bool] = True

    def __init__(self) -> None:
        pass

    def __call__(
        self, evidence: Evidence, target: Int[Tensor, "query height width"]
    ) -> Float[Tensor, "query"]:
        return ideal_prior(evidence.margin, (target > 0).sum(dim=(1, 2)))


def _score(evidence: Evidence, policy: str) -> ScoreScale:
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
