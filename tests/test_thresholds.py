import math

import numpy as np
import pytest
import torch

from fsseg import AdNet, AvgEst, CeT, Evidence, Fixed, FssegError, LinEst, Ocp
from fsseg.ops import decide
from fsseg.thresholds import clip_prior


def evidence(queries=3, size=8, ways=1, score=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(ways, 1, size, size, dtype=torch.bool)
    masks[:, :, :2] = True
    return Evidence(
        logits=torch.randn(queries, ways + 1, size, size, generator=generator),
        features=torch.randn(queries, 4, 2, 2, generator=generator),
        support_masks=masks,
        support_location=torch.full((ways, 1), 0.25),
        query_location=torch.linspace(0, 1, queries),
        score=score,
    )


def test_ce_t_keeps_the_even_prior():
    assert CeT()(evidence()).tolist() == [0, 0, 0]


def test_fixed_prior_score_and_distance():
    score = AdNet(alpha=20.0, initial_threshold=-10.0).score
    seen = evidence(score=score)
    assert Fixed(prior=0.2)(seen).tolist() == pytest.approx([math.log(0.25)] * 3)
    # A score T in place of T_S adds (T - T_S) / 2; the distance of T = -12 is sqrt(2 (1 - 12/20)).
    assert Fixed(score=-12.0)(seen).tolist() == pytest.approx([-1.0] * 3, abs=1e-5)
    assert Fixed(distance=math.sqrt(0.8))(seen).tolist() == pytest.approx([-1.0] * 3, abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"prior": 0.5, "score": -10.0}])
def test_fixed_takes_exactly_one(options):
    with pytest.raises(FssegError, match="expected exactly one of prior, score, distance"):
        Fixed(**options)


def test_a_score_needs_a_head_with_one():
    with pytest.raises(FssegError, match="has no score threshold"):
        Fixed(score=-10.0)(evidence())
    with pytest.raises(FssegError, match="has no score threshold"):
        AvgEst(source="training")(evidence())


def test_avg_est_is_the_mean_of_clipped_probabilities():
    policy = AvgEst()
    ideal = np.array([-20.0, 0.0, 1.0])
    policy.fit(np.zeros((3, 0)), ideal)
    expected = (1e-3 + 0.5 + 1 / (1 + math.exp(-1))) / 3
    assert policy.state() == {"prior": pytest.approx(expected)}
    assert policy(evidence()).tolist() == pytest.approx([math.log(expected / (1 - expected))] * 3)


def test_avg_est_from_training():
    head = AdNet()
    head.score_threshold.average_distance.fill_(0.8)
    prior = AvgEst(source="training")(evidence(score=head.score))
    assert torch.sigmoid(prior).tolist() == pytest.approx([0.141851] * 3, abs=1e-4)


def test_lin_est_recovers_a_plane():
    policy = LinEst()
    described = np.random.default_rng(0).uniform(size=(50, 2)) * [0.25, 0.3]
    policy.fit(described, described @ [-2.0, 10.0] - 1.5)
    assert policy.coefficients == pytest.approx([-2.0, 10.0, -1.5])
    # Support size 2/8; query locations 0, .5 and 1.
    expected = [-2 * 0.25 + 2.5 - 1.5, 2.5 - 1.5, -2 * 0.25 + 2.5 - 1.5]
    assert policy(evidence()).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("location, columns", [("query", [[0.25, 0.25], [0, 0.25], [0.25, 0.25]]),
                                               ("support", [[0.0625, 0.25]] * 3), ("none", [[0.25]] * 3)])  # fmt: skip
def test_lin_est_regressors(location, columns):
    assert LinEst(location=location).describe(evidence()).numpy() == pytest.approx(np.array(columns))


def test_lin_est_is_clipped():
    policy = LinEst(location="none")
    policy.load_state({"coefficients": [1000.0, 0.0]})
    assert torch.sigmoid(policy(evidence())).tolist() == pytest.approx([0.999] * 3, abs=1e-6)


def test_ocp_counts_per_slice():
    seen = evidence(ways=2)
    target = torch.zeros(3, 8, 8, dtype=torch.long)
    target[1, :3] = 1
    target[2] = 2
    marked = decide(seen.logits, Ocp()(seen, target)) > 0
    assert marked.sum(dim=(1, 2)).tolist() == [0, 24, 64]


@pytest.mark.parametrize("policy", [AvgEst(), LinEst()])
def test_an_estimate_needs_calibration(policy):
    with pytest.raises(FssegError, match="it was not calibrated"):
        policy(evidence())


def test_clipping_survives_any_log_odds():
    assert clip_prior(np.array([-1e6, 0.0, 1e6])).tolist() == [1e-3, 0.5, 1 - 1e-3]
