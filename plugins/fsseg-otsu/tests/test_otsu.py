import numpy as np
import pytest
import torch

from fsseg import Evidence, registry
from fsseg.testing import parametrize_with_checks


@parametrize_with_checks("threshold/otsu")
def test_contract(check):
    check()


def evidence(margins):
    margins = torch.as_tensor(margins, dtype=torch.float32)
    return Evidence(
        logits=torch.stack([torch.zeros_like(margins), margins], dim=1),
        features=torch.zeros(len(margins), 1, 1, 1),
        support_masks=torch.ones(1, 1, *margins.shape[1:], dtype=torch.bool),
        support_location=torch.zeros(1, 1),
        query_location=torch.zeros(len(margins)),
    )


def slow_otsu(values, bins):
    """The best of all splits at bin edges, by the definition of the variance between the groups."""
    edges = np.linspace(values.min(), values.max(), bins + 1)[1:-1]
    between = [
        (values <= e).mean()
        * (values > e).mean()
        * (values[values > e].mean() - values[values <= e].mean()) ** 2
        for e in edges
    ]
    return max(between)


def test_it_splits_two_groups():
    rng = np.random.default_rng(0)
    low, high = rng.normal(-8, 1, 300), rng.normal(3, 1, 100)
    margins = np.concatenate([low, high]).reshape(1, 20, 20)
    prior = registry().build("threshold", "otsu", {})(evidence(margins))
    assert ((margins > -prior.item()).sum()) == 100


@pytest.mark.parametrize("seed", range(5))
def test_it_maximises_the_variance_between_groups(seed):
    values = np.random.default_rng(seed).gumbel(size=400).astype(np.float32)
    policy = registry().build("threshold", "otsu", {"bins": 64})
    split = -policy(evidence(values.reshape(1, 20, 20))).item()
    below, above = values[values <= split], values[values > split]
    got = len(below) * len(above) / 400**2 * (above.mean() - below.mean()) ** 2
    assert got == pytest.approx(slow_otsu(values, 64), rel=1e-3)


def test_equal_margins_are_background():
    prior = registry().build("threshold", "otsu", {})(evidence(np.full((2, 4, 4), 1.5)))
    assert (-prior).tolist() == [1.5, 1.5]
