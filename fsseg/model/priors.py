"""Class priors as numbers: probabilities and log-odds, and linear models of ideal priors."""

from collections.abc import Callable

import numpy as np
import scipy.optimize
import torch
from jaxtyping import Float
from torch import Tensor

LOWEST_PRIOR = 1e-3
"""Ideal priors are clipped to [1e-3, 1 - 1e-3] before their log-odds are averaged or regressed, as published."""


def clip_prior(log_odds: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Probabilities of these log-odds, clipped to what a regression can use."""
    with np.errstate(over="ignore"):
        return np.clip(1 / (1 + np.exp(-log_odds)), LOWEST_PRIOR, 1 - LOWEST_PRIOR)


def log_odds(prior: float) -> float:
    """Log-odds of a probability."""
    return float(np.log(prior) - np.log1p(-prior))


def linear(
    described: Float[Tensor, "*any regressor"], coefficients: list[float] | Tensor
) -> Float[Tensor, "*any"]:
    """Slopes times regressors plus the intercept, which is the last coefficient; in double precision."""
    *_, regressors = described.shape
    weights = torch.as_tensor(coefficients, dtype=torch.float64, device=described.device)
    return described.double() @ weights[:regressors] + weights[regressors:].sum()


def pool_ways(
    foreground: Float[Tensor, "*any way"], background: Float[Tensor, "*any way"] | None = None
) -> Float[Tensor, "*any"]:
    """Log-odds of the foreground as a whole from exponents of each way; a way of minus infinity is not there.

    Without a background it is `log mean_c exp(f_c)`, which does not depend on the number of ways. With one it is the
    published `log mean_c exp(f_c) - log sum_c exp(b_c)`, which falls with their number.
    """
    ways = foreground.isfinite().sum(dim=-1).to(foreground)
    pooled = foreground.logsumexp(dim=-1) - ways.log()
    return pooled if background is None else pooled - background.logsumexp(dim=-1)


def fit_plane(
    described: Float[np.ndarray, "n regressor"], ideal: Float[np.ndarray, "n"]
) -> list[float]:
    """Ordinary least squares with intercept on clipped log-odds: the slopes, then the intercept."""
    prior = clip_prior(ideal)
    design = np.column_stack([described.astype(np.float64), np.ones(len(described))])
    solution, *_ = np.linalg.lstsq(design, np.log(prior / (1 - prior)), rcond=None)
    return [float(value) for value in solution]


def fit_pooled(
    described: list[Float[np.ndarray, "_way regressor"]], ideal: Float[np.ndarray, "episode"]
) -> list[float]:
    """One plane for all ways whose pooled log-odds (see `pool_ways`) fit best: the slopes, then the intercept.

    Best is the smallest Kullback-Leibler divergence between Bernoulli variables of the ideal and the estimated prior.
    """
    padded = _pad(described)
    target = torch.from_numpy(clip_prior(ideal))

    def divergence(coefficients: Tensor) -> Tensor:
        exponents = linear(padded.nan_to_num(), coefficients).masked_fill(
            padded.isnan().any(dim=-1), -torch.inf
        )
        return _divergence(pool_ways(exponents), target)

    start = [0.0] * padded.shape[-1] + [log_odds(float(target.mean()))]
    return _minimise(divergence, start)


PUBLISHED_STEPS, PUBLISHED_RATE = 1000, 0.1


def fit_published(
    described: list[Float[np.ndarray, "_way regressor"]], ideal: Float[np.ndarray, "episode"]
) -> tuple[list[float], list[float]]:
    """The published model of several ways: coefficients of the foreground, and frozen ones of the background.

    Only episodes with most ways count. The background's slopes keep their random start and its intercept is 0: a slip
    that is part of what was published. Ours are drawn from a seed of their own, so that two fits agree.
    """
    most = max(len(ways) for ways in described)
    chosen = [number for number, ways in enumerate(described) if len(ways) == most]
    padded = _pad([described[number] for number in chosen])
    target = torch.from_numpy(clip_prior(ideal[chosen]))
    regressors = padded.shape[-1]
    generator = torch.Generator().manual_seed(0)
    drawn = (
        2 * torch.rand(2, regressors + 1, generator=generator, dtype=torch.float64) - 1
    ) / regressors**0.5
    background = torch.cat([drawn[1, :regressors], drawn.new_zeros(1)])
    foreground = drawn[0].clone().requires_grad_()
    optimiser = torch.optim.Adam([foreground], lr=PUBLISHED_RATE)
    with torch.enable_grad():
        for _ in range(PUBLISHED_STEPS):
            optimiser.zero_grad()
            estimate = pool_ways(linear(padded, foreground), linear(padded, background))
            (
                _divergence(estimate, target) / 2
            ).backward()  # the published mean is over both outcomes
            optimiser.step()
    return foreground.tolist(), background.tolist()


def _pad(
    described: list[Float[np.ndarray, "_way regressor"]],
) -> Float[Tensor, "episode way regressor"]:
    """Episodes with fewer ways than others are filled up with NaN."""
    return torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(ways.astype(np.float64)) for ways in described],
        batch_first=True,
        padding_value=torch.nan,
    )


def _divergence(estimate: Float[Tensor, "n"], target: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Mean Kullback-Leibler divergence of Bernoulli variables: ideal probabilities from estimated log-odds."""
    cross = torch.nn.functional.binary_cross_entropy_with_logits(estimate, target)
    entropy = -(target * target.log() + (1 - target) * (-target).log1p()).mean()
    return cross - entropy


def _minimise(loss: Callable[[Tensor], Tensor], start: list[float]) -> list[float]:
    def value_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():  # calibration runs without
            there = torch.from_numpy(point.copy()).requires_grad_()
            value = loss(there)
            value.backward()
        return value.item(), there.grad.numpy()

    found = scipy.optimize.minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14}
    )
    return found.x.tolist()
