"""Class heads: from query features and prototypes to class logits, background first, at an even prior."""

import abc
import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.model.ops import cosine, squared_distance
from fsseg.plugins.options import component
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

    All heads of the family hold their state here, so a checkpoint trained with one loads into another. The published
    codes learn x in `T_S = d softplus(x) - alpha` (at an even prior), which keeps sigma_B above sigma_F; ADNet learned
    T_S itself. The name of the parameter is its form, so a checkpoint cannot be read in the wrong form.

    Args:
        alpha: Scale of the cosine.
        initial: T_S before training.
        form: "softplus" or "plain".
        dimension: d in the Gaussians' normalisation.

    Raises:
        FssegError: In the form "softplus" T_S cannot begin at -alpha or below.
    """

    alpha: Tensor
    average_distance: Tensor
    average_sigmas: Tensor

    def __init__(
        self,
        alpha: float,
        initial: float,
        form: str,
        dimension: int,
    ) -> None:
        super().__init__()
        if form == "softplus" and initial <= -alpha:
            raise FssegError(
                f"head: initial_threshold is {initial:g}, expected more than -alpha = {-alpha:g}; "
                "a smaller score threshold marks nothing as foreground"
            )
        self.form = form
        self.dimension = dimension
        raw = initial
        if form == "softplus":
            raw = _inverse_softplus((initial + alpha) / dimension)
        self.register_parameter(form, nn.Parameter(torch.tensor(raw)))
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("average_distance", torch.tensor(1.0))
        self.register_buffer("average_sigmas", torch.ones(2))
        self.average_sigmas.copy_(self().sigmas.detach())

    def forward(self) -> ScoreScale:
        """The score scale with the current T_S, through which gradients flow to the parameter."""
        threshold = getattr(self, self.form)
        if self.form == "softplus":
            threshold = self.dimension * F.softplus(threshold) - self.alpha
        return ScoreScale(
            self.alpha, threshold, self.dimension, self.average_distance, self.average_sigmas
        )


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


class _ScoreHead(nn.Module):
    """The parts that the heads of the ADNet family have in common."""

    trained_options: ClassVar[tuple[str, ...]] = ("alpha", "initial_threshold", "form", "dimension")
    """Options that are a part of the trained state, or say what it means."""

    score_threshold: ScoreThreshold

    @property
    def score(self) -> ScoreScale:
        """The score scale with the current T_S."""
        return self.score_threshold()

    @property
    def sigma(self) -> Float[Tensor, ""]:
        """Standard deviation of the foreground around its prototype."""
        return self.score.sigmas[0]


class _AnomalyHead(_ScoreHead, abc.ABC):
    """The log-odds of each way by itself from the anomaly score of its one prototype."""

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

    @abc.abstractmethod
    def _refuse(self, ways: int, count: int) -> None:
        """Raises FssegError for numbers of ways, and of prototypes in each, that the head does not take."""

    def forward(
        self, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        ways, count, _ = prototypes.foreground.shape
        self._refuse(ways, count)
        score = self.score
        similarity = cosine(features, prototypes.foreground)[:, :, 0]
        foreground = 0.5 * (score.threshold + score.alpha * similarity)
        foreground = foreground + _log_weights(prototypes)[:, :, 0]
        background = torch.zeros_like(foreground[:, :1])
        return torch.cat([background, foreground], dim=1)


@component
class AdNet(_AnomalyHead):
    """ADNet's head: one way, one prototype; foreground is what is close enough to it (Hansen et al., 2022).

    The anomaly score of a feature f is `S = -alpha cos(f, p)`, and (TPM paper, Eq. 2)

        P(foreground) = 1 - sigmoid((S - T_S) / 2),

    so the logits are 0 for the background and `(T_S - S) / 2` for the foreground.

    Shapes:
        features `query channel h w`, prototypes `1 1 channel` -> logits `query 2 h w`.

    Raises:
        FssegError: When called with more than one way or prototype: that is what TPM adds.

    Example:
        >>> import torch
        >>> from fsseg import AdNet, Prototypes
        >>> head = AdNet(alpha=20.0, initial_threshold=-10.0)
        >>> feature = torch.tensor([0.6, 0.8])[None, :, None, None]
        >>> along = Prototypes(torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1))
        >>> head(feature, along).flatten().tolist()  # (T_S + 20 * 0.6) / 2
        [0.0, 1.0]
    """

    def _refuse(self, ways: int, count: int) -> None:
        if (ways, count) != (1, 1):
            raise FssegError(
                f"head adnet: got {ways} ways with {count} prototypes each, expected one of one; "
                'use head = "tpm", which equals it for one prototype and takes any number'
            )


@component
class AdNetPp(_AnomalyHead):
    """ADNet++'s head: ADNet for every way by itself, and the most likely way where several say foreground.

    Each way has one prototype and `P_c = 1 - sigmoid((S_c - T_S) / 2)`; the background's probability is
    `1 - max_c P_c`, so foreground is where the largest exceeds one half (Hansen et al., 2023, without its uncertainty
    and refinement modules, as the TPM paper compares with it). The logits are the log-odds of each way, and 0 for the
    background. The published comparison normalises every way by the densities of the last one, which distorts the
    others; here each way is normalised by its own.

    Shapes:
        features `query channel h w`, prototypes `way 1 channel` -> logits `query way+1 h w`.

    Raises:
        FssegError: When called with more than one prototype in a way.

    Example:
        >>> import torch
        >>> from fsseg import AdNetPp, Prototypes
        >>> feature = torch.tensor([0.6, 0.8])[None, :, None, None]
        >>> axes = Prototypes(torch.eye(2)[:, None], torch.ones(2, 1))
        >>> AdNetPp()(feature, axes).flatten().tolist()  # the second way: (-10 + 20 * 0.8) / 2
        [0.0, 1.0, 3.0]
    """

    def _refuse(self, ways: int, count: int) -> None:
        if count != 1:
            raise FssegError(
                f"head adnetpp: got {count} prototypes in each of {ways} ways, expected one; "
                'use head = "tpm", which takes any number'
            )


def _log_weights(prototypes: Prototypes) -> Float[Tensor, "1 way proto 1 1"]:
    """Logarithms of the weights; that of 0 is so low that it counts for nothing, but keeps gradients finite."""
    least = torch.finfo(prototypes.weights.dtype).tiny
    weights = prototypes.weights.clamp(min=least)
    return weights.log()[None, :, :, None, None]


@component
class Tpm(_ScoreHead):
    """The tied prototype model: foreground and background are Gaussians (or mixtures) around the same prototypes.

    Prototype j of way c, of weight w, is the mean of a foreground component with the standard deviation sigma_F and of
    its tied background twin with sigma_B > sigma_F, so near a prototype the foreground wins and far from all of them
    the background does (Kim et al., Eq. 3, 8 and 9):

        logit_c = log sum_j w_cj N(f; p_cj, sigma_F^2 I)
        logit_background = log sum_cj w_cj N(f; p_cj, sigma_B^2 I)

    The sigmas follow from alpha and the learned T_S (Eq. 6); with one prototype on the sphere the head equals ADNet
    (Theorem 3.1). Ways share the foreground prior equally.

    Shapes:
        features `query channel h w`, prototypes `way proto channel` -> logits `query way+1 h w`.

    Raises:
        FssegError: The sigmas are not 0 < foreground < background, or T_S begins too low.

    Example:
        >>> import torch
        >>> from fsseg import AdNet, Prototypes, Tpm
        >>> features = torch.randn(2, 8, 4, 4)
        >>> prototypes = Prototypes(torch.randn(1, 1, 8), torch.ones(1, 1))
        >>> tpm, adnet = (head(features, prototypes) for head in (Tpm(), AdNet()))
        >>> bool(torch.allclose(tpm[:, 1] - tpm[:, 0], adnet[:, 1], atol=1e-4))  # Theorem 3.1
        True
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
        self.space = space
        self.sigmas = sigmas
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
        if self.sigmas == "averaged":
            return score.average_sigmas
        return score.alpha.new_tensor(self.sigmas)

    def forward(
        self, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        score = self.score_threshold()
        sigma_f, sigma_b = self._sigmas(score)
        energy = self._energy(features, prototypes.foreground)
        log_weights = _log_weights(prototypes)

        def log_density(sigma: Float[Tensor, ""]) -> Float[Tensor, "query way h w"]:
            exponents = log_weights - energy / sigma**2
            return exponents.logsumexp(dim=2) - score.dimension * sigma.log()

        foreground = log_density(sigma_f)
        background = log_density(sigma_b).logsumexp(dim=1, keepdim=True)
        return torch.cat([background, foreground], dim=1)

    def _energy(
        self,
        features: Float[Tensor, "query channel h w"],
        prototypes: Float[Tensor, "way proto channel"],
    ) -> Float[Tensor, "query way proto h w"]:
        """Half the squared distance of every feature to every prototype."""
        if self.space == "sphere":
            return 1 - cosine(features, prototypes)
        return squared_distance(features, prototypes) / 2
