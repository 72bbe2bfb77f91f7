"""Threshold policies that are fitted to the ideal priors of training-fold episodes."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
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
    for_all_slices,
    linear,
    log_odds,
    number,
    pool_ways,
    score_scale,
)
from fsseg.plugins.options import component
from fsseg.types import Evidence, IdealPriors

Location = Literal["query", "support", "none"]
"""Whose slice position is a regressor."""

PerClass = Annotated[
    bool,
    Field(
        description="fit the prior under which each class by itself gets its true number of pixels, instead of all "
        "classes together; matters where several classes are segmented at once"
    ),
]


@component
class AvgEst:
    """AvgEst: the mean ideal prior of training-fold episodes (TPM paper, Sec. 4.1).

    The prior, the same for every slice, is the mean over episodes of the prior under which each gets its true number of
    foreground pixels (the mean of the probabilities, clipped to [0.001, 0.999], not of their log-odds).

    Shapes:
        evidence of `query` slices -> log-odds `query`.

    Raises:
        FssegError: `per_class` with the running averages of training; when called before it was fitted.

    Example:
        >>> import numpy as np
        >>> from fsseg import AvgEst
        >>> from fsseg.types import IdealPriors
        >>> policy = AvgEst()
        >>> at_half, at_a_tenth = 0.0, -np.log(9)
        >>> ideal = IdealPriors(np.array([at_half, at_a_tenth]), [np.zeros(1), np.zeros(1)])
        >>> policy.fit([np.zeros((1, 0)), np.zeros((1, 0))], ideal)
        >>> round(policy.prior, 6)
        0.3
    """

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
        self.source = source
        self.per_class = per_class
        self.prior: float | None = None

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        if self.source == "training":
            return for_all_slices(score_scale(evidence, "avg_est").average_prior, evidence)
        if self.prior is None:
            raise _not_calibrated("avg_est")
        return torch.full_like(evidence.query_location, log_odds(self.prior))

    def describe(self, evidence: Evidence) -> Float[Tensor, "query 0"]:
        """Returns no regressors, since the estimate is the same for every slice."""
        return evidence.query_location.new_zeros(len(evidence.query_location), 0)

    def fit(
        self,
        described: list[Float[np.ndarray, "0"]],
        ideal: IdealPriors,
    ) -> None:
        """Takes the mean of the ideal priors, of the probabilities and not of their log-odds."""
        log_odds_of_all = np.concatenate(ideal.ways) if self.per_class else ideal.together
        self.prior = float(clip_prior(log_odds_of_all).mean())

    def state(self) -> dict[str, Any]:
        """Returns the fitted prior, a probability."""
        return {"prior": self.prior}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes the prior that `fit` found elsewhere; raises ValueError for what is no probability."""
        prior = number(state["prior"])
        if not 0 < prior < 1:
            raise ValueError(f"prior is {prior:g}, expected a probability between 0 and 1")
        self.prior = prior


@component
class LinEst:
    """LinEst: the ideal prior's log-odds as a linear function of location and support size (TPM paper, Sec. 4.1).

    With the location l of a slice in its scan and the share s of the support's image that the class covers,

        log-odds = a (l - 0.5)^2 + b s + c,

    clipped to those of [0.001, 0.999]. The location is the query slice's, one prior per slice, as the paper says; the
    published code uses the support slice's, one prior per volume.

    One way is fitted by least squares. Several ways share a plane u: each way's prior is its own `u_c` where classes
    are fitted one by one, and otherwise the foreground's log-odds are `log mean_c exp(u_c)`. The published model
    divides by a second sum with slopes that were never learned, and so falls with the number of ways.

    `fsseg.calibrate` fits it on episodes of training scans, as `fsseg run` does.

    Attributes:
        coefficients: The slopes a and b and the intercept c; None before it is fitted.

    Shapes:
        evidence of `query` slices -> log-odds `query`, or `query way` where classes are fitted one by one.

    Raises:
        FssegError: `per_class` with the published model; when called before it was fitted.

    Example:
        >>> import numpy as np
        >>> from fsseg import LinEst
        >>> from fsseg.types import IdealPriors
        >>> location, size = np.array([0.5, 0.0, 0.5, 1.0]), np.array([0.0, 0.0, 0.1, 0.2])
        >>> described = [np.array([[(l - 0.5) ** 2, s]]) for l, s in zip(location, size)]
        >>> ideal = -4 * (location - 0.5) ** 2 + 10 * size - 2
        >>> policy = LinEst()
        >>> policy.fit(described, IdealPriors(ideal, [np.array([prior]) for prior in ideal]))
        >>> [round(coefficient, 4) for coefficient in policy.coefficients]
        [-4.0, 10.0, -2.0]
    """

    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        location: Annotated[
            Location,
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
        self.location = location
        self.per_class = per_class
        self.several = several
        self.coefficients: list[float] | None = None
        self.background: list[float] | None = None

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"] | Float[Tensor, "query way"]:
        if self.coefficients is None:
            raise _not_calibrated("lin_est")
        described = self.describe(evidence)
        estimate = linear(described, self.coefficients)
        if self.background is not None and not self.per_class:
            estimate = pool_ways(estimate, linear(described, self.background))
        elif not self.per_class:
            estimate = pool_ways(estimate)
        limit = log_odds(1 - LOWEST_PRIOR)
        return estimate.clamp(-limit, limit).to(described.dtype)

    def describe(self, evidence: Evidence) -> Float[Tensor, "query way regressor"]:
        """Returns the regressors of each query slice and way, those of the location before the support's size."""
        size = evidence.support_size.expand(len(evidence.query_location), -1)
        if self.location == "none":
            return size[:, :, None]
        if self.location == "query":
            location = evidence.query_location[:, None].expand_as(size)
        else:
            location = evidence.support_location.mean(dim=1).expand_as(size)
        from_middle = (location - 0.5) ** 2
        return torch.stack([from_middle, size.to(location)], dim=2)

    def fit(
        self,
        described: list[Float[np.ndarray, "_way regressor"]],
        ideal: IdealPriors,
    ) -> None:
        """Fits the plane to the ideal priors of episodes, clipped to [0.001, 0.999].

        Args:
            described: The regressors of each episode's query slice, as `describe` gives them.
            ideal: The ideal priors of the same episodes.
        """
        several = any(len(ways) > 1 for ways in described)
        self.background = None
        if self.per_class or not several:
            regressors = np.concatenate(described)
            self.coefficients = fit_plane(regressors, np.concatenate(ideal.ways))
        elif self.several == "repaired":
            self.coefficients = fit_pooled(described, ideal.together)
        else:
            self.coefficients, self.background = fit_published(described, ideal.together)

    def state(self) -> dict[str, Any]:
        """Returns the fitted slopes and intercept; in the published model of several ways also the background's."""
        if self.background:
            return {"coefficients": self.coefficients, "background": self.background}
        return {"coefficients": self.coefficients}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes the coefficients that `fit` found elsewhere; raises ValueError for others."""
        background = state.get("background")
        self.coefficients = self._of_plane(state["coefficients"])
        self.background = None if background is None else self._of_plane(background)

    def _of_plane(self, values: Any) -> list[float]:
        """The slopes and the intercept; raises ValueError for another number of them."""
        count = 2 if self.location == "none" else 3
        if not isinstance(values, list | tuple) or len(values) != count:
            raise ValueError(f"coefficients are {values}, expected {count} numbers")
        return [number(value) for value in values]


@component
class Profile:
    """LinEst, moved between the slices of the query by where its margins are high along the scan.

    LinEst tells the prior from the support's size and the slice's position, whatever the query shows. Here a slice whose
    largest margins are higher than in other slices gets a larger prior, and the others a smaller one; the number of
    foreground pixels in the query stays. Of a query of one slice it is LinEst, so that is what is fitted.

    Shapes:
        evidence of `query` slices, all of one scan -> log-odds `query`.

    Raises:
        FssegError: When called before it was fitted.
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
            Location,
            Field(description="LinEst's: whose slice position is a regressor"),
        ] = "query",
    ) -> None:
        self.strength = strength
        self.share = share
        self.estimate = LinEst(location=location)

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"]:
        prior = self.estimate(evidence)
        margins = evidence.margin.flatten(1)
        pixels = max(1, round(self.share * margins.shape[1]))
        largest = margins.topk(pixels, dim=1).values.mean(dim=1)
        moved = prior + self.strength * (largest - largest.max())
        count = (margins > -prior[:, None]).sum()
        # The same amount in the query: its slices, moved, as one that has so many foreground pixels.
        return moved + ideal_prior((margins + moved[:, None])[None], count[None])

    def describe(self, evidence: Evidence) -> Float[Tensor, "query way regressor"]:
        """Returns the regressors of LinEst."""
        return self.estimate.describe(evidence)

    def fit(
        self,
        described: list[Float[np.ndarray, "_way regressor"]],
        ideal: IdealPriors,
    ) -> None:
        """Fits LinEst to the ideal priors of episodes."""
        self.estimate.fit(described, ideal)

    def state(self) -> dict[str, Any]:
        """Returns the coefficients of LinEst."""
        return self.estimate.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes the coefficients of LinEst."""
        self.estimate.load_state(state)


def _not_calibrated(policy: str) -> FssegError:
    return FssegError(
        f"threshold {policy}: it was not calibrated, expected a call of fit or load_state first; "
        "`fsseg run` does it, in Python see fsseg.calibrate"
    )
