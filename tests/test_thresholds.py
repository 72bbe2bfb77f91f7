import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsseg import AdNet, AvgEst, CeT, Evidence, Fixed, FssegError, LinEst, Ocp, Profile
from fsseg.model.ops import decide
from fsseg.testing import samples
from fsseg.types import IdealPriors


def alone(log_odds):
    """Ideal priors of episodes with one way."""
    return IdealPriors(np.asarray(log_odds), [np.array([value]) for value in log_odds])


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
    policy.fit([np.zeros(0)] * 3, alone([-20.0, 0.0, 1.0]))
    expected = (1e-3 + 0.5 + 1 / (1 + math.exp(-1))) / 3
    assert policy.state() == {"prior": pytest.approx(expected)}
    assert policy(evidence()).tolist() == pytest.approx([math.log(expected / (1 - expected))] * 3)


def test_avg_est_of_classes_by_themselves():
    policy = AvgEst(per_class=True)
    policy.fit(
        [np.zeros(0)] * 2,
        IdealPriors(np.array([5.0, 5.0]), [np.array([0.0, 1.0]), np.array([-1.0])]),
    )
    expected = (0.5 + 1 / (1 + math.exp(-1)) + 1 / (1 + math.e)) / 3
    assert policy.state() == {"prior": pytest.approx(expected)}


@pytest.mark.parametrize(
    "make",
    [
        lambda: AvgEst(source="training", per_class=True),
        lambda: LinEst(several="published", per_class=True),
    ],
)
def test_what_knows_no_classes_cannot_be_asked_for_them(make):
    with pytest.raises(FssegError, match="per_class = true"):
        make()


def test_avg_est_from_training():
    head = AdNet()
    head.score_threshold.average_distance.fill_(0.8)
    prior = AvgEst(source="training")(evidence(score=head.score))
    assert torch.sigmoid(prior).tolist() == pytest.approx([0.141851] * 3, abs=1e-4)


def test_lin_est_recovers_a_plane():
    policy = LinEst()
    described = np.random.default_rng(0).uniform(size=(50, 1, 2)) * [0.25, 0.3]
    policy.fit(list(described), alone(described[:, 0] @ [-2.0, 10.0] - 1.5))
    assert policy.coefficients == pytest.approx([-2.0, 10.0, -1.5])
    # Support size 2/8; query locations 0, .5 and 1.
    expected = [-2 * 0.25 + 2.5 - 1.5, 2.5 - 1.5, -2 * 0.25 + 2.5 - 1.5]
    assert policy(evidence()).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("location, columns", [("query", [[0.25, 0.25], [0, 0.25], [0.25, 0.25]]),
                                               ("support", [[0.0625, 0.25]] * 3), ("none", [[0.25]] * 3)])  # fmt: skip
def test_lin_est_regressors(location, columns):
    described = LinEst(location=location).describe(evidence(ways=2))
    assert described.shape == (3, 2, len(columns[0]))
    assert described[:, 1].numpy() == pytest.approx(np.array(columns))


def several_ways(seed=0, episodes=60):
    """Regressors of two to four ways, and ideal priors of each way and of all together."""
    rng = np.random.default_rng(seed)
    described = [
        rng.uniform(size=(int(rng.integers(2, 5)), 2)) * [0.25, 0.2] for _ in range(episodes)
    ]
    ways = [x @ [-3.0, 8.0] - 2.0 for x in described]
    return described, IdealPriors(np.array([np.log(np.mean(np.exp(u))) for u in ways]), ways)


def test_lin_est_of_several_ways_recovers_the_plane_behind_the_mean_of_exponentials():
    """The repaired prior: sigmoid(log mean_c exp(u_c)), whatever the number of ways."""
    policy = LinEst()
    described, ideal = several_ways()
    policy.fit(described, ideal)
    assert (
        policy.coefficients == pytest.approx([-3.0, 8.0, -2.0], abs=1e-3)
        and policy.background is None
    )
    seen = evidence(ways=3)
    sizes, locations = [0.25] * 3, [0.25, 0.0, 0.25]
    expected = [
        np.log(np.mean([np.exp(-3 * place + 8 * size - 2) for size in sizes]))
        for place in locations
    ]
    assert policy(seen).tolist() == pytest.approx(expected, abs=1e-3)


def test_lin_est_of_classes_by_themselves_is_one_prior_per_way():
    policy = LinEst(per_class=True)
    described, ideal = several_ways()
    policy.fit(described, ideal)
    assert policy.coefficients == pytest.approx([-3.0, 8.0, -2.0], abs=1e-6)
    seen = evidence(ways=2)
    seen.support_masks[1, :, 1] = False  # the second way covers half as much
    expected = [
        [-3 * place + 8 * size - 2 for size in (0.25, 0.125)] for place in (0.25, 0.0, 0.25)
    ]
    np.testing.assert_allclose(policy(seen), expected, atol=1e-5)


@pytest.mark.slow
def test_the_published_prior_of_several_ways_is_fitted_to_episodes_with_most_of_them():
    policy = LinEst(several="published")
    described, ideal = several_ways()
    policy.fit(described, ideal)
    chosen = [i for i, x in enumerate(described) if len(x) == 4]
    other = LinEst(several="published")
    other.fit(
        [described[i] for i in chosen],
        IdealPriors(ideal.together[chosen], [ideal.ways[i] for i in chosen]),
    )
    assert policy.state() == other.state()
    assert policy.background[2] == 0 and all(abs(w) <= 0.7072 for w in policy.background[:2])
    # A plain formulation of the same prior on the episodes it was fitted to: near what is ideal.
    a, b = np.array(policy.coefficients), np.array(policy.background)
    errors = []
    for i in chosen:
        design = np.column_stack([described[i], np.ones(4)])
        foreground, background = np.exp(design @ a).mean(), np.exp(design @ b).sum()
        errors.append(foreground / (foreground + background) - 1 / (1 + np.exp(-ideal.together[i])))
    assert np.abs(errors).max() < 0.01


def test_a_policy_may_return_a_prior_for_every_way():
    """Raising one way alone adds its pixels and takes none from the background's other side."""
    seen = evidence(ways=2)
    even = decide(seen.logits, torch.zeros(3, 2))
    raised = decide(seen.logits, torch.tensor([[0.0, 3.0]] * 3))
    expected = (seen.logits + torch.tensor([0.0, 0.0, 3.0])[:, None, None]).argmax(dim=1)
    assert torch.equal(even, seen.logits.argmax(dim=1).to(torch.uint8))
    assert torch.equal(raised, expected.to(torch.uint8))


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


def profile_of(**options):
    """A policy that was fitted, and LinEst with what it learned."""
    policy, plain = Profile(**options), LinEst()
    for one in (policy, plain):
        one.load_state({"coefficients": [1.0, 2.0, -1.5]})
    return policy, plain, samples.evidence()


def test_the_profile_of_one_slice_is_linest():
    policy, plain, evidence = profile_of()
    for number in range(len(evidence.query_location)):
        one = replace(
            evidence, logits=evidence.logits[number : number + 1], features=evidence.features[number : number + 1],
            query_location=evidence.query_location[number : number + 1],
        )  # fmt: skip
        assert torch.equal(
            one.margin > -policy(one)[:, None, None], one.margin > -plain(one)[:, None, None]
        )


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_profile_moves_foreground_to_slices_with_high_margins(strength):
    """The amount in the query stays; the slices' differences are the strength times those of their largest margins."""
    policy, plain, evidence = profile_of(strength=strength, share=0.1)
    evidence = replace(
        evidence, logits=evidence.logits * torch.tensor([0.5, 1, 1.5, 1, 0.7])[:, None, None, None]
    )
    moved, prior = policy(evidence), plain(evidence)
    found, before = (evidence.margin > -p[:, None, None] for p in (moved, prior))
    assert found.sum() == before.sum()
    largest = evidence.margin.flatten(1).sort(dim=1, descending=True).values[:, :102].mean(dim=1)
    expected = strength * (largest - largest[0])
    assert torch.allclose((moved - prior) - (moved - prior)[0], expected, atol=1e-4)
