"""Class heads: from query features and prototypes to class logits, background first, at an even prior."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.model.ops import cosine, squared_distance
from fsseg.types import Prototypes, ScoreScale

Alpha = Annotated[float, Field(gt=0, description="scale of the cosine in the anomaly score")]
InitialThreshold = Annotated[
    float, Field(description="the score threshold T_S before training; above -alpha")
]
Form = Annotated[
    Literal["softplus", "plain"],
    Field(
        description="how T_S is learned: d softplus(x) - alpha, which keeps it above -alpha, or x itself"
    ),
]
Dimension = Annotated[
    int, Field(ge=1, description="d in the Gaussians' normalisation; the paper uses 1")
]


class ScoreThreshold(nn.Module):
    """The learned score threshold T_S of ADNet and TPM, and the running averages that training keeps beside it.

    Both heads hold their state here, so a checkpoint trained with one loads into the other. The published codes learn
    x in `T_S = d softplus(x) - alpha` (at an even prior), which keeps sigma_B above sigma_F; ADNet learned T_S itself.
    The name of the parameter is its form, so a checkpoint cannot be read in the wrong form.
    """

    def __init__(self, alpha: float, initial: float, form: str, dimension: int) -> None:
        super().__init__()
        if form == "softplus" and initial <= -alpha:
            raise FssegError(
                f"head: initial_threshold is {initial:g}, expected more than -alpha = {-alpha:g}; "
                "a smaller score threshold marks nothing as foreground"
            )
        self.form, self.dimension = form, dimension
        raw = initial if form == "plain" else _inverse_softplus((initial + alpha) / dimension)
        self.register_parameter(form, nn.Parameter(torch.tensor(raw)))
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("average_distance", torch.tensor(1.0))
        self.register_buffer("average_sigmas", torch.ones(2))
        self.average_sigmas.copy_(self().sigmas.detach())

    def forward(self) -> ScoreScale:
        raw = getattr(self, self.form)
        threshold = (
            raw
            if self.form == "plain"
            else self.dimension * nn.functional.softplus(raw) - self.alpha
        )
        return ScoreScale(
            self.alpha, threshold, self.dimension, self.average_distance, self.average_sigmas
        )


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


class AdNet(nn.Module):
    """ADNet's head: one way, one prototype; foreground is what is close enough to it (Hansen et al., 2022, Eq. 2).

    The anomaly score is `S = -alpha cos(f, p)` and `P(foreground) = 1 - sigmoid((S - T_S) / 2)`, so the logits are 0
    for the background and `(T_S - S) / 2` for the foreground.
    """

    def __init__(
        self,
        *,
        alpha: Alpha = 20.0,
        initial_threshold: InitialThreshold = -10.0,
        form: Form = "softplus",
        dimension: Dimension = 1,
    ) -> None:
        super().__init__()
        self.score_threshold = ScoreThreshold(alpha, initial_threshold, form, dimension)

    @property
    def score(self) -> ScoreScale:
        """The score scale with the current T_S."""
        return self.score_threshold()

    @property
    def sigma(self) -> Float[Tensor, ""]:
        """Standard deviation of the foreground around its prototype."""
        return self.score.sigmas[0]

    def forward(
        self, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        """Raises FssegError for more than one way or prototype: that is what TPM adds."""
        ways, protos, _ = prototypes.foreground.shape
        if (ways, protos) != (1, 1):
            raise FssegError(
                f"head adnet: got {ways} ways with {protos} prototypes each, expected one of one; "
                'use head = "tpm", which equals it for one prototype and takes any number'
            )
        return _log_odds(self.score, features, prototypes)


class AdNetPp(nn.Module):
    """ADNet++'s head: ADNet for every way by itself, and the most likely way where several say foreground.

    Each way has one prototype and `P_c = 1 - sigmoid((S_c - T_S) / 2)`; the background's probability is
    `1 - max_c P_c`, so foreground is where the largest exceeds one half (Hansen et al., 2023, without its uncertainty
    and refinement modules, as the TPM paper compares with it). The logits are the log-odds of each way, and 0 for the
    background. The published comparison normalises every way by the densities of the last one, which distorts the others; here
    each way is normalised by its own.
    """

    def __init__(
        self,
        *,
        alpha: Alpha = 20.0,
        initial_threshold: InitialThreshold = -10.0,
        form: Form = "softplus",
        dimension: Dimension = 1,
    ) -> None:
        super().__init__()
        self.score_threshold = ScoreThreshold(alpha, initial_threshold, form, dimension)

    @property
    def score(self) -> ScoreScale:
        """The score scale with the current T_S."""
        return self.score_threshold()

    @property
    def sigma(self) -> Float[Tensor, ""]:
        """Standard deviation of the foreground around its prototype."""
        return self.score.sigmas[0]

    def forward(
        self, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        """Raises FssegError for more than one prototype in a way."""
        ways, protos, _ = prototypes.foreground.shape
        if protos != 1:
            raise FssegError(
                f"head adnetpp: got {protos} prototypes in each of {ways} ways, expected one; "
                'use head = "tpm", which takes any number'
            )
        return _log_odds(self.score, features, prototypes)


def _log_odds(
    score: ScoreScale, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
) -> Float[Tensor, "query class h w"]:
    """Log-odds of each way's foreground after 0 for the background; ways without weight are out of the question."""
    foreground = 0.5 * (
        score.threshold + score.alpha * cosine(features, prototypes.foreground)[:, :, 0]
    )
    foreground = foreground + _log_weights(prototypes)[:, :, 0]
    return torch.cat([torch.zeros_like(foreground[:, :1]), foreground], dim=1)


def _log_weights(prototypes: Prototypes) -> Float[Tensor, "1 way proto 1 1"]:
    """Logarithms of the weights; that of 0 is so low that it counts for nothing, but keeps gradients finite."""
    weights = prototypes.weights.clamp(min=torch.finfo(prototypes.weights.dtype).tiny)
    return weights.log()[None, :, :, None, None]


class Tpm(nn.Module):
    """The tied prototype model: foreground and background are Gaussians (or mixtures) around the same prototypes.

    Foreground component j of a way has standard deviation sigma_F, its tied background twin sigma_B > sigma_F, so
    near a prototype the foreground wins and far from all of them the background does (Kim et al., Eq. 3, 8 and 9).
    The sigmas follow from alpha and the learned T_S (Eq. 6); with one prototype on the sphere the head equals ADNet
    (Theorem 3.1). Ways share the foreground prior equally.
    """

    def __init__(
        self,
        *,
        alpha: Alpha = 20.0,
        initial_threshold: InitialThreshold = -10.0,
        form: Form = "softplus",
        dimension: Dimension = 1,
        space: Annotated[
            Literal["sphere", "euclidean"],
            Field(description="distances between unit vectors, or between features"),
        ] = "sphere",
        sigmas: Annotated[
            Literal["learned", "averaged"] | tuple[float, float],
            Field(
                description="from the learned T_S; from the running average of training, as the published code does "
                "for several prototypes; or given as [foreground, background]"
            ),
        ] = "learned",
    ) -> None:
        super().__init__()
        if not isinstance(sigmas, str) and not 0 < sigmas[0] < sigmas[1]:
            raise FssegError(
                f"head tpm: sigmas is {list(sigmas)}, expected 0 < foreground < background; "
                "the background is the wider of the two"
            )
        self.space, self.sigmas = space, sigmas
        self.score_threshold = ScoreThreshold(alpha, initial_threshold, form, dimension)

    @property
    def score(self) -> ScoreScale:
        """The score scale that corresponds to the sigmas in use."""
        score = self.score_threshold()
        if self.sigmas == "learned":
            return score
        sigma_f, sigma_b = self._sigmas(score)
        alpha = 2 * (1 / sigma_f**2 - 1 / sigma_b**2)
        threshold = 2 * score.dimension * (sigma_b / sigma_f).log() - alpha
        return ScoreScale(
            alpha, threshold, score.dimension, score.average_distance, score.average_sigmas
        )

    @property
    def sigma(self) -> Float[Tensor, ""]:
        """Standard deviation of the foreground around its prototypes."""
        return self._sigmas(self.score_threshold())[0]

    def _sigmas(self, score: ScoreScale) -> Float[Tensor, "2"]:
        if self.sigmas == "learned":
            return score.sigmas
        return (
            score.average_sigmas
            if self.sigmas == "averaged"
            else score.alpha.new_tensor(self.sigmas)
        )

    def forward(
        self, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        score = self.score_threshold()
        sigma_f, sigma_b = self._sigmas(score)
        if self.space == "sphere":  # ||f - p||^2 / 2 = 1 - cos
            energy = 1 - cosine(features, prototypes.foreground)
        else:
            energy = squared_distance(features, prototypes.foreground) / 2
        log_weights = _log_weights(prototypes)
        foreground = (log_weights - energy / sigma_f**2).logsumexp(
            dim=2
        ) - score.dimension * sigma_f.log()
        background = (log_weights - energy / sigma_b**2).logsumexp(
            dim=2
        ) - score.dimension * sigma_b.log()
        return torch.cat([background.logsumexp(dim=1, keepdim=True), foreground], dim=1)
