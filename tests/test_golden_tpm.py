"""The published code's numbers on synthetic features, reproduced in the `reference` mode."""

import numpy as np
import pytest
import torch
from helpers import NoBackbone

from fsseg import (
    AvgEst,
    CeT,
    EmGmm,
    LinEst,
    MaskedAverage,
    Ocp,
    Prototypes,
    Query,
    Segmenter,
    Support,
    Tpm,
)


@pytest.fixture
def golden(shared):
    return np.load(shared / "golden" / "tpm_single.npz")


@pytest.fixture
def parts(golden):
    """Support, its features, query and its features."""
    shape = tuple(golden["mask_shape"])
    masks = torch.from_numpy(
        np.unpackbits(golden["masks"])[: np.prod(shape)].reshape(shape).astype(bool)
    )
    features = torch.from_numpy(golden["features"])
    location = float(golden["supp_idx"]) / (float(golden["n_slices"]) - 1)
    support = Support(torch.zeros(1, 1, 256, 256), masks[None, :1], torch.tensor([[location]]))
    query = Query(torch.zeros(4, 256, 256), torch.linspace(0, 1, 4))
    return support, features[None, :1], query, features[1:], masks[1:].long()


def head_for(golden, prototypes):
    """One prototype uses the learned T_S, five use the stored sigmas."""
    if prototypes == "map":
        return Tpm(alpha=float(golden["alpha"]), initial_threshold=float(golden["T_S"]))
    return Tpm(sigmas=(float(golden["sig1"][0]), float(golden["sig2"][0])))


def policy_for(golden, name, prototypes):
    if name == "CE-T":
        return CeT()
    if name == "AvgEst":
        policy = AvgEst()
        policy.load_state(
            {"prior": float(golden["p_F_hat" if prototypes == "map" else "p_F_MP_hats_mn"])}
        )
        return policy
    policy = LinEst(location="support")
    policy.load_state(
        {
            "coefficients": golden[
                "lin_single" if prototypes == "map" else "lin_multi_proto"
            ].tolist()
        }
    )
    return policy


@pytest.mark.parametrize("name", ["CE-T", "AvgEst", "LinEst"])
@pytest.mark.parametrize("prototypes", ["map", "em"])
def test_probabilities_equal_the_published_ones(golden, parts, name, prototypes):
    support, support_features, query, query_features, _ = parts
    if prototypes == "map":
        made = MaskedAverage()(support_features, support.masks)
    else:
        made = Prototypes(
            torch.from_numpy(golden["em_protos"])[None],
            torch.from_numpy(golden["em_weights"])[None],
        )
    segmenter = Segmenter(
        NoBackbone(),
        MaskedAverage(),
        head_for(golden, prototypes),
        policy_for(golden, name, prototypes),
        mode="reference",
    )
    with torch.no_grad():
        result = segmenter.segment(
            support, made, query, query_features, support_features=support_features
        )
    suffix = "" if prototypes == "map" else "_MP"
    probability = result.probabilities[:, 1]
    np.testing.assert_allclose(
        probability[:, ::16, ::16], golden[f"prob_{name}{suffix}"], rtol=0, atol=1e-5
    )
    assert result.labels.sum(dim=(1, 2)).tolist() == golden[f"count_{name}{suffix}"].tolist()


def test_em_finds_the_published_prototypes(golden, parts):
    support, support_features, *_ = parts
    made = EmGmm(count=5, seed=7, sigma=float(golden["sig1"][0]))(support_features, support.masks)
    np.testing.assert_allclose(made.foreground[0], golden["em_protos"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(made.weights[0], golden["em_weights"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["default", "reference"])
@pytest.mark.parametrize("prototypes", ["map", "em"])
def test_the_oracle_predicts_the_true_number_of_pixels(golden, parts, mode, prototypes):
    """The published code predicts one pixel too many; ours exactly the truth, none in the empty slice."""
    support, support_features, query, query_features, target = parts
    extractor = MaskedAverage() if prototypes == "map" else EmGmm(count=5)
    segmenter = Segmenter(NoBackbone(), extractor, head_for(golden, prototypes), Ocp(), mode=mode)
    made = extractor(support_features, support.masks)
    full = torch.cat([target, torch.ones_like(target[:1])])
    query = Query(torch.zeros(5, 256, 256), torch.linspace(0, 1, 5))
    features = torch.cat([query_features, query_features[:1]])
    with torch.no_grad():
        result = segmenter.segment(
            support, made, query, features, full, support_features=support_features
        )
    assert result.labels.sum(dim=(1, 2)).tolist() == [6124, 6128, 6126, 0, 256 * 256]
