"""The TPM head against the paper's equations, written out plainly in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, MultivariateNormal, Normal

from fsseg import AdNet, FssegError, Prototypes, Tpm


def random_case(seed, ways=1, protos=1, channels=6):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, channels, 3, 4, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(ways, protos, channels, generator=generator, dtype=torch.float64)
    weights = torch.rand(ways, protos, generator=generator, dtype=torch.float64) + 0.1
    return features, Prototypes(prototypes, weights / weights.sum(dim=1, keepdim=True))


@settings(deadline=None, max_examples=60)
@given(
    alpha=st.floats(1, 60),
    above=st.floats(0.01, 1.9),
    dimension=st.sampled_from([1, 2, 256]),
    form=st.sampled_from(["softplus", "plain"]),
    seed=st.integers(0, 1000),
)
def test_theorem_3_1_one_prototype_equals_adnet(alpha, above, dimension, form, seed):
    options = {
        "alpha": alpha,
        "initial_threshold": alpha * (above - 1),
        "form": form,
        "dimension": dimension,
    }
    features, prototypes = random_case(seed)
    adnet, tpm = AdNet(**options).double(), Tpm(**options).double()
    tpm.load_state_dict(adnet.state_dict())
    expected = adnet(features, prototypes).softmax(dim=1)
    assert torch.allclose(tpm(features, prototypes).softmax(dim=1), expected, rtol=0, atol=1e-6)


def test_adnet_is_equation_2():
    features, prototypes = random_case(3)
    head = AdNet(alpha=20.0, initial_threshold=-7.0).double()
    score = -20.0 * torch.cosine_similarity(
        features, prototypes.foreground[0, 0][None, :, None, None], dim=1
    )
    expected = 1 - torch.sigmoid(0.5 * (score + 7.0))
    assert torch.allclose(head(features, prototypes).softmax(dim=1)[:, 1], expected, atol=1e-6)


@pytest.mark.parametrize("space", ["sphere", "euclidean"])
@pytest.mark.parametrize("ways, protos", [(1, 1), (1, 4), (3, 1), (3, 4)])
def test_equations_8_and_9(space, ways, protos):
    """Bayes' theorem on the Gaussian mixtures, term by term; ways share the prior equally. d = channels here."""
    sigmas, channels = (0.4, 0.9), 6
    features, prototypes = random_case(5, ways, protos, channels)
    head = Tpm(sigmas=sigmas, dimension=channels, space=space).double()
    points, centres = features.movedim(1, -1), prototypes.foreground
    if space == "sphere":
        points = points / points.norm(dim=-1, keepdim=True)
        centres = centres / centres.norm(dim=-1, keepdim=True)

    def density(way, sigma):
        total = 0
        for j in range(protos):
            normal = MultivariateNormal(
                centres[way, j], sigma**2 * torch.eye(channels, dtype=torch.float64)
            )
            total = total + prototypes.weights[way, j] * normal.log_prob(points).exp()
        return total

    foreground = [0.5 / ways * density(way, sigmas[0]) for way in range(ways)]
    background = sum(0.5 / ways * density(way, sigmas[1]) for way in range(ways))
    joint = torch.stack([background, *foreground], dim=1)
    expected = joint / joint.sum(dim=1, keepdim=True)
    assert torch.allclose(head(features, prototypes).softmax(dim=1), expected, rtol=0, atol=1e-6)


def test_sigmas_of_the_default_threshold():
    """Hand-computed values: T_S = -10, -15 and -5 at alpha = 20, d = 1."""
    for threshold, sigma_f, sigma_b in [
        (-10, 0.31622058, 46.931297),
        (-15, 0.315161, 3.83944),
        (-5, 0.316228, 571.753),
    ]:
        score = Tpm(initial_threshold=float(threshold)).score
        assert score.sigmas.tolist() == pytest.approx([sigma_f, sigma_b], rel=1e-4)
    assert Tpm().score.distance.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "distance, prior",
    [
        (0.4, 0.014774),
        (0.6, 0.039166),
        (0.8, 0.141851),
        (0.9, 0.278885),
        (1, 0.5),
        (1.1, 0.740775),
        (1.2, 0.900250),
    ],
)
def test_distance_to_prior_and_back(distance, prior):
    score = Tpm().double().score
    log_odds = score.prior_at_distance(torch.tensor(distance, dtype=torch.float64))
    assert torch.sigmoid(log_odds).item() == pytest.approx(prior, abs=2e-6)
    assert score.distance_at_prior(log_odds).item() == pytest.approx(distance, abs=1e-9)


def test_the_averaged_prior_follows_from_the_averages():
    """At the start the averages are those of T_D = 1, so the prior is even; a nearer threshold asks for less."""
    head = Tpm()
    assert head.score.average_prior.item() == pytest.approx(0, abs=1e-4)
    head.score_threshold.average_distance.fill_(0.8)
    assert torch.sigmoid(head.score.average_prior).item() == pytest.approx(0.141851, abs=1e-4)


def test_given_sigmas_have_their_own_score_scale():
    head = Tpm(sigmas=(0.3, 0.7))
    alpha = 2 * (1 / 0.09 - 1 / 0.49)
    assert head.score.alpha.item() == pytest.approx(alpha, rel=1e-5)
    assert head.score.threshold.item() == pytest.approx(2 * math.log(0.7 / 0.3) - alpha, rel=1e-5)
    assert head.score.sigmas.tolist() == pytest.approx([0.3, 0.7], rel=1e-4)


def test_one_dimensional_normals_confirm_the_log_densities():
    """An independent check of the d = 1 normalisation used by the published code."""
    head = Tpm(sigmas=(0.5, 2.0), space="euclidean", dimension=1).double()
    features = torch.linspace(-3, 3, 12, dtype=torch.float64).view(1, 1, 3, 4)
    prototypes = Prototypes(
        torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    )
    normals = [Independent(Normal(torch.zeros(1, dtype=torch.float64), s), 1) for s in (2.0, 0.5)]
    expected = torch.stack([n.log_prob(features.movedim(1, -1)) for n in normals], dim=1).softmax(
        dim=1
    )
    assert torch.allclose(head(features, prototypes).softmax(dim=1), expected, atol=1e-7)


def test_what_heads_refuse():
    features, prototypes = random_case(0, ways=2)
    with pytest.raises(FssegError, match="2 ways with 1 prototypes each, expected one of one"):
        AdNet().double()(features, prototypes)
    with pytest.raises(FssegError, match="0 < foreground < background"):
        Tpm(sigmas=(1.0, 0.5))
    with pytest.raises(FssegError, match="more than -alpha"):
        AdNet(initial_threshold=-20.0)


def test_a_checkpoint_in_another_form_is_refused():
    with pytest.raises(RuntimeError):
        Tpm(form="plain").load_state_dict(AdNet(form="softplus").state_dict())
