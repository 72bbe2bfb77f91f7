import pytest
import safetensors.torch
import torch

from fsseg import FssegError, MaskedAverage, Prototypes, registry
from fsseg.testing import parametrize_with_checks
from fsseg_qnet.backbones import QNetResNet101, load_encoder
from fsseg_qnet.scales import pack, unpack

SMALL = {"model": "resnet10t", "channels": 8}


@parametrize_with_checks("backbone/two_scales", options=SMALL)
def test_contract_of_the_small_backbone(check):
    check()


@pytest.mark.slow
@parametrize_with_checks("backbone/qnet_resnet101", options={"channels": 8})
def test_contract_of_the_papers_backbone(check):
    check()


COARSE = "the coarse scale is resized, so cells beside the mask count a little"


@parametrize_with_checks(
    "prototypes/qnet",
    expected_failures={"check_order_of_pixels": COARSE, "check_outside_the_mask": COARSE},
)
def test_contract_of_the_prototypes(check):
    check()


@parametrize_with_checks("head/qnet", options={"channels": 8})
def test_contract_of_the_head(check):
    check()


@parametrize_with_checks("head/qnet", options={"channels": 8, "refine": "mse"})
def test_contract_of_the_head_with_refinement(check):
    check()


@pytest.mark.parametrize("height, width", [(8, 8), (7, 10), (9, 5)])
def test_both_scales_come_back_as_they_were(height, width):
    fine, coarse = (
        torch.randn(2, 3, height, width),
        torch.randn(2, 3, -(-height // 2), -(-width // 2)),
    )
    back = unpack(pack(fine, coarse))
    assert torch.equal(back[0], fine) and torch.equal(back[1], coarse)


def test_the_papers_backbone_has_strides_four_and_eight():
    """At 64 x 64: 16 x 16 and 8 x 8 cells, and dilations 1/2, 2/4 and 4/4 in the last three stages."""
    backbone = QNetResNet101(channels=6).eval()
    with torch.no_grad():
        fine, coarse = unpack(backbone(torch.randn(1, 3, 64, 64)))
    assert fine.shape == (1, 6, 16, 16) and coarse.shape == (1, 6, 8, 8)
    stages = (backbone.encoder.layer2, backbone.encoder.layer3, backbone.encoder.layer4)
    dilations = [(stage[0].conv2.dilation[0], stage[1].conv2.dilation[0]) for stage in stages]
    assert dilations == [(1, 2), (2, 4), (4, 4)]


@pytest.mark.slow
def test_weights_of_deeplab_are_loaded_and_all_of_them(tmp_path):
    encoder = QNetResNet101(channels=6).encoder
    state = {
        f"backbone.{name}": (value + 1).contiguous() for name, value in encoder.state_dict().items()
    }
    safetensors.torch.save_file(state, tmp_path / "all.safetensors")
    before = encoder.conv1.weight.detach().clone()
    load_encoder(encoder, tmp_path / "all.safetensors")
    torch.testing.assert_close(encoder.conv1.weight, before + 1)
    del state["backbone.layer3.5.conv2.weight"]
    torch.save(state, tmp_path / "one_less.pth")
    with pytest.raises(FssegError, match="expected all; layer3.5.conv2.weight is missing"):
        load_encoder(encoder, tmp_path / "one_less.pth")
    with pytest.raises(FssegError, match="there are no weights nowhere.pth"):
        QNetResNet101(weights="nowhere.pth")


def test_strides_have_to_be_twice_each_other():
    with pytest.raises(
        FssegError, match=r"got strides \[8, 32\], expected the second twice the first"
    ):
        registry().build("backbone", "two_scales", SMALL | {"strides": [8, 32]})


def test_a_prototype_of_each_scale():
    fine, coarse = torch.randn(1, 1, 3, 8, 8), torch.randn(1, 1, 3, 4, 4)
    masks = torch.rand(1, 1, 32, 32) > 0.6
    made = registry().build("prototypes", "qnet", {})(pack(fine, coarse), masks)
    expected = [MaskedAverage()(scale, masks).foreground for scale in (fine, coarse)]
    torch.testing.assert_close(made.foreground, torch.cat(expected, dim=2))


def made_head(**options):
    head = registry().build("head", "qnet", {"channels": 3, **options}).eval()
    with torch.no_grad():
        head.threshold.weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
        head.threshold.bias.fill_(-9.0)
    return head


def test_the_probability_of_both_scales_cell_by_cell():
    fine, coarse, rows = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2), torch.randn(1, 1, 6)
    logits = made_head()(pack(fine, coarse), Prototypes(rows, torch.ones(1, 1)))
    for q in range(2):
        means = coarse[q].mean(dim=(1, 2))
        threshold = float(means[0] - 2 * means[1] + 0.5 * means[2] - 9)

        def probability(feature, row, threshold=threshold):
            score = -20 * torch.nn.functional.cosine_similarity(feature, row, dim=0)
            return 1 - torch.sigmoid(0.5 * (score - threshold))

        corner = 0.9 * probability(
            fine[q, :, 0, 0], rows[0, 0, :3]
        )  # corners are where aligned grids meet
        corner = corner + 0.1 * probability(coarse[q, :, 0, 0], rows[0, 0, 3:])
        torch.testing.assert_close(logits[q, 1, 0, 0].sigmoid(), corner)
    assert not logits[:, 0].any()


def test_the_published_refinement_raises_every_channel():
    """By about 0.01 at each of seven steps, whatever the image: the sign of its gradient is always the same."""
    head = registry().build("head", "qnet", {"channels": 512, "refine": "qnet"}).eval()
    generator = torch.Generator().manual_seed(0)
    scale, start = (
        torch.randn(1, 512, 16, 16, generator=generator),
        torch.randn(1, 512, generator=generator) / 10,
    )
    threshold = torch.tensor([[0.0]])  # about half of the cells are foreground
    moved = head._refined(scale, start, threshold)[0] - start
    assert moved.min() > 0.069 and moved.max() < 0.0701


def test_nothing_moves_where_nothing_is_foreground():
    head = registry().build("head", "qnet", {"channels": 8, "refine": "qnet"}).eval()
    start = torch.randn(1, 8)
    refined = head._refined(torch.randn(1, 8, 4, 4), start, torch.tensor([[-50.0]]))
    torch.testing.assert_close(refined[0], start)


@pytest.mark.slow
def test_the_other_refinement_ends_at_the_querys_mean():
    head = registry().build("head", "qnet", {"channels": 8, "refine": "mse", "steps": 2000}).eval()
    scale = torch.randn(1, 8, 4, 4) + 3
    refined = head._refined(
        scale, torch.ones(1, 8), torch.tensor([[50.0]])
    )  # everything is foreground
    torch.testing.assert_close(refined[0, 0], scale[0].mean(dim=(1, 2)), atol=1e-2, rtol=1e-2)


def test_refinement_is_for_evaluation_and_works_without_gradients():
    plain, refining = made_head(), made_head(refine="mse")
    features, made = torch.randn(2, 6, 4, 4) + 1, Prototypes(torch.ones(1, 1, 6), torch.ones(1, 1))
    with torch.no_grad():
        assert not torch.equal(plain(features, made), refining(features, made))
        torch.testing.assert_close(plain.train()(features, made), refining.train()(features, made))


def test_features_of_another_width_are_refused():
    with pytest.raises(
        FssegError, match="features of 4 channels, expected one and 6; use a backbone of two scales"
    ):
        made_head()(torch.randn(1, 4, 4, 4), Prototypes(torch.randn(1, 1, 4), torch.ones(1, 1)))
