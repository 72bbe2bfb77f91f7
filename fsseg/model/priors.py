"""Class priors as numbers: probabilities and log-odds, and linear models of ideal priors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fsseg.errors import FssegError
from fsseg.types import Evidence, ScoreScale

Regressors = Float[np.ndarray, "_way regressor"]
"""The regressors of an episode's ways."""

LOWEST_PRIOR = 1e-3
"""Ideal priors are clipped to [1e-3, 1 - 1e-3] before their log-odds are averaged or regressed, as published."""


def clip_prior(log_odds: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Probabilities of these log-odds, clipped to what a regression can use."""
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-log_odds))
    return np.clip(probabilities, LOWEST_PRIOR, 1 - LOWEST_PRIOR)


def number(value: Any) -> float:
    """A number of a state that was read; raises ValueError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"got {value!r}, expected a finite number")
    return float(value)


def log_odds(prior: float) -> float:
    """Log-odds of a probability."""
    return float(np.log(prior) - np.log1p(-prior))


def for_all_slices(
    prior: Float[Tensor, ""],
    evidence: Evidence,
) -> Float[Tensor, "query"]:
    """One prior for every slice of the query."""
    return prior.to(evidence.query_location).expand_as(evidence.query_location)


def score_scale(evidence: Evidence, policy: str) -> ScoreScale:
    """The head's score scale; raises FssegError for a head that has none."""
    if evidence.score is None:
        raise FssegError(
            f"threshold {policy}: the head has no score threshold, expected one of the ADNet family; "
            "use a policy that works on priors, such as ce_t"
        )
    return evidence.score


def linear(
    described: Float[Tensor, "*any regressor"], coefficients: list[float] | Tensor
) -> Float[Tensor, "*any"]:
    """The value of a plane in double precision: slopes times regressors, plus the last coefficient, the intercept."""
    regressors = described.shape[-1]
    weights = torch.as_tensor(coefficients, dtype=torch.float64, device=described.device)
    slopes, intercept = weights[:regressors], weights[regressors:].sum()
    return described.double() @ slopes + intercept


def pool_ways(
    foreground: Float[Tensor, "*any way"],
    background: Float[Tensor, "*any way"] | None = None,
) -> Float[Tensor, "*any"]:
    """Log-odds of the foreground as a whole, from the exponents of each way.

    A way of minus infinity is not there.
    Without a background it is `log mean_c exp(f_c)`, which does not depend on the number of ways. With one it is the
    published `log mean_c exp(f_c) - log sum_c exp(b_c)`, which falls with their number.
    """
    ways = foreground.isfinite().sum(dim=-1).to(foreground)
    pooled = foreground.logsumexp(dim=-1) - ways.log()
    return pooled if background is None else pooled - background.logsumexp(dim=-1)


def fit_plane(
    described: Float[np.ndarray, "n regressor"],
    ideal: Float[np.ndarray, "n"],
) -> list[float]:
    """Fits a plane to clipped log-odds by ordinary least squares.

    Args:
        described: The regressors of each ideal prior.
        ideal: The ideal priors in log-odds.

    Returns:
        The slopes, then the intercept.
    """
    prior = clip_prior(ideal)
    target = np.log(prior / (1 - prior))
    ones = np.ones(len(described))
    design = np.column_stack([described.astype(np.float64), ones])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    return solution.tolist()


def fit_pooled(
    described: list[Regressors],
    ideal: Float[np.ndarray, "episode"],
) -> list[float]:
    """Fits one plane for all ways, whose pooled log-odds (see `pool_ways`) are compared with the ideal ones.

    Best is the smallest Kullback-Leibler divergence between Bernoulli variables of the ideal and the estimated prior.

    Args:
        described: The regressors of the ways of each episode.
        ideal: The ideal prior of each episode in log-odds.

    Returns:
        The slopes, then the intercept.
    """
    regressors = _pad(described)
    is_missing = regressors.isnan().any(dim=-1)
    target = torch.from_numpy(clip_prior(ideal))

    def divergence(coefficients: Tensor) -> Tensor:
        exponents = linear(regressors.nan_to_num(), coefficients)
        estimate = pool_ways(exponents.masked_fill(is_missing, -torch.inf))
        return _divergence(estimate, target)

    slopes = [0.0] * regressors.shape[-1]
    intercept = log_odds(float(target.mean()))
    return _minimise(divergence, [*slopes, intercept])


PUBLISHED_STEPS = 1000
PUBLISHED_RATE = 0.1


def fit_published(
    described: list[Regressors], ideal: Float[np.ndarray, "episode"]
) -> tuple[list[float], list[float]]:
    """Fits the published model of several ways.

    Only episodes with most ways count. The background's slopes keep their random start and its intercept is 0: a slip
    that is part of what was published. Ours are drawn from a seed of their own, so that two fits agree.

    Args:
        described: The regressors of the ways of each episode.
        ideal: The ideal prior of each episode in log-odds.

    Returns:
        The coefficients of the foreground, and the frozen ones of the background; each slopes, then the intercept.
    """
    most = max(len(ways) for ways in described)
    chosen = [number for number, ways in enumerate(described) if len(ways) == most]
    regressors = _pad([described[number] for number in chosen])
    target = torch.from_numpy(clip_prior(ideal[chosen]))
    foreground, background = _published_start(regressors.shape[-1])
    foreground.requires_grad_()
    optimiser = torch.optim.Adam([foreground], lr=PUBLISHED_RATE)
    with torch.enable_grad():
        for _ in range(PUBLISHED_STEPS):
            optimiser.zero_grad()
            estimate = pool_ways(linear(regressors, foreground), linear(regressors, background))
            loss = _divergence(estimate, target) / 2  # the published mean is over both outcomes
            loss.backward()
            optimiser.step()
    return foreground.tolist(), background.tolist()


def _published_start(regressors: int) -> tuple[Float[Tensor, "coefficient"], ...]:
    """Coefficients of the foreground and of the background, as a linear layer draws them."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(2, regressors + 1, generator=generator, dtype=torch.float64)
    foreground, background = (2 * uniform - 1) / regressors**0.5
    background[regressors] = 0
    return foreground.clone(), background.clone()


def _pad(
    described: list[Regressors],
) -> Float[Tensor, "episode way regressor"]:
    """The regressors of all episodes, filled up with NaN where an episode has fewer ways than others."""
    doubles = [torch.from_numpy(ways.astype(np.float64)) for ways in described]
    return pad_sequence(doubles, batch_first=True, padding_value=torch.nan)


def _divergence(
    estimate: Float[Tensor, "n"],
    target: Float[Tensor, "n"],
) -> Float[Tensor, ""]:
    """Mean Kullback-Leibler divergence of Bernoulli variables: ideal probabilities from estimated log-odds."""
    cross = F.binary_cross_entropy_with_logits(estimate, target)
    of_foreground = target * target.log()
    of_background = (1 - target) * (-target).log1p()
    entropy = -(of_foreground + of_background).mean()
    return cross - entropy


def _minimise(
    loss: Callable[[Tensor], Tensor],
    start: list[float],
) -> list[float]:
    """The point where a loss is least, searched from a start."""

    def value_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():  # calibration runs without
            leaf = torch.from_numpy(point.copy()).requires_grad_()
            value = loss(leaf)
            [gradient] = torch.autograd.grad(value, leaf)
        return value.item(), gradient.numpy()

    least = scipy.optimize.minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14}
    )
    return least.x.tolist()
