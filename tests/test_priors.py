import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsseg.model.priors import clip_prior, fit_plane, fit_pooled, log_odds, pool_ways


def test_clipping_survives_any_log_odds():
    assert clip_prior(np.array([-1e6, 0.0, 1e6])).tolist() == [1e-3, 0.5, 1 - 1e-3]


@given(
    st.lists(st.floats(-8, 8), min_size=1, max_size=5),
    st.lists(st.floats(-8, 8), min_size=5, max_size=5),
)
@settings(deadline=None)
def test_pooling_equals_the_published_shares(foreground, background):
    """pi = mean e^f / (mean e^f + sum e^b), written out in probabilities."""
    f, b = np.array(foreground), np.array(background[: len(foreground)])
    share = np.exp(f).mean() / (np.exp(f).mean() + np.exp(b).sum())
    pooled = pool_ways(torch.from_numpy(f), torch.from_numpy(b))
    assert pooled.sigmoid().item() == pytest.approx(share, rel=1e-9)
    assert pool_ways(torch.from_numpy(f)).exp().item() == pytest.approx(np.exp(f).mean(), rel=1e-9)


def test_ways_that_are_not_there_do_not_count():
    with_gap = torch.tensor([[1.0, -torch.inf, 2.0]])
    assert torch.equal(pool_ways(with_gap), pool_ways(torch.tensor([[1.0, 2.0]])))


def test_the_prior_of_equal_ways_does_not_depend_on_their_number():
    values = [pool_ways(torch.full((1, ways), -1.7)).item() for ways in (1, 2, 5)]
    assert values == pytest.approx([-1.7] * 3, abs=1e-6)


def test_least_squares_against_the_normal_equations():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=40)
    design = np.column_stack([x, np.ones(40)])
    expected = np.linalg.solve(design.T @ design, design.T @ y)
    assert fit_plane(x, y) == pytest.approx(list(expected), rel=1e-6)


def test_the_pooled_fit_is_where_a_plain_divergence_is_smallest():
    """Against a slow loop over episodes and a search around the optimum; the data do not lie on any plane."""
    rng = np.random.default_rng(2)
    described = [rng.uniform(size=(int(rng.integers(1, 6)), 2)) * [0.25, 0.2] for _ in range(40)]
    ideal = rng.normal(-1, 1, size=40)

    def divergence(coefficients):
        total = 0.0
        for ways, log_odds_ in zip(described, ideal):
            target = 1 / (1 + np.exp(-log_odds_))
            odds = np.mean(
                [np.exp(ways[c] @ coefficients[:2] + coefficients[2]) for c in range(len(ways))]
            )
            p = odds / (1 + odds)
            total += target * np.log(target / p) + (1 - target) * np.log((1 - target) / (1 - p))
        return total / len(described)

    found = np.array(fit_pooled(described, ideal))
    best = divergence(found)
    assert best < divergence([0.0, 0.0, log_odds(float((1 / (1 + np.exp(-ideal))).mean()))])
    for _ in range(200):
        assert divergence(found + rng.normal(size=3) * 0.05) >= best
