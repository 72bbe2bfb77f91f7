"""Any `features_only` network as a backbone: transformers where timm can, one sentence before training where it cannot."""

import subprocess
import sys

import pytest
import timm
import torch
from helpers import TinyBackbone, make_folder, write_recipe
from safetensors.torch import save_file

import fsseg
from fsseg import FssegError, TimmBackbone
from fsseg.model.backbones.sizes import try_sizes
from fsseg.runs.data import RunData
from fsseg.system.progress import Silent

SWIN = "swin_s3_tiny_224"


@pytest.mark.parametrize(
    "model, stride, options, cells",
    [
        ("test_vit", 16, {}, (4, 5)),
        ("test_vit2", 16, {}, (4, 5)),
        ("test_byobnet", 8, {}, (7, 10)),
        ("dla34", 4, {}, (16, 20)),
    ],
)
def test_networks_take_slices_of_any_size(model, stride, options, cells):
    """By hand: 64 x 80 pixels, or 50 x 76, which a transformer fills up to whole patches."""
    size = (64, 80) if model == "dla34" else (50, 76)
    backbone = TimmBackbone(model=model, strides=[stride], channels=8, **options)
    with torch.no_grad():
        assert backbone(torch.randn(2, 3, *size)).shape == (2, 8, *cells)
    assert backbone.stride == stride


def test_a_transformer_is_its_last_blocks_and_not_its_first():
    backbone = TimmBackbone(model="test_vit", strides=[16], channels=None, normalise=False).eval()
    whole = timm.create_model("test_vit", dynamic_img_size=True).eval()
    own = {
        name.removeprefix("model."): value for name, value in backbone.network.state_dict().items()
    }
    whole.load_state_dict(own, strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        last = whole.forward_intermediates(images, norm=False, intermediates_only=True)[-1]
        assert torch.allclose(backbone(images), last, atol=1e-5)


def test_a_network_whose_stages_begin_at_one_has_the_strides_it_says():
    """dla34 numbers its stages from 1: stage 0 has stride 1."""
    backbone = TimmBackbone(model="dla34", strides=[2], channels=8)
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 64, 64)).shape[-2:] == (32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, stride, options, cells",
    [
        ("swin_tiny_patch4_window7_224", 8, {}, (7, 10)),
        ("swinv2_tiny_window8_256", 16, {}, (4, 5)),
        ("eva02_tiny_patch14_224", 14, {}, (4, 6)),
        ("beit_base_patch16_224", 16, {"image_size": [50, 76]}, (3, 4)),
        ("mixer_s32_224", 32, {"image_size": [50, 76]}, (1, 2)),
    ],
)
def test_large_transformers_take_slices_of_any_size(model, stride, options, cells):
    test_networks_take_slices_of_any_size(model, stride, options, cells)


class Fixed(torch.nn.Module):
    """Stands for a network of timm that is made for slices of 64 x 64."""

    output_fmt = "NHWC"

    def __init__(self):
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 64, 64), "architecture": "no_such"}
        self.layer = torch.nn.Conv2d(3, 8, 8, 8)

    def forward(self, images):
        assert images.shape[-2:] == (64, 64), "Input doesn't match model (64).\nSecond line"
        return [self.layer(images).movedim(1, -1)]


def fixed():
    backbone = TimmBackbone(model="test_byobnet", strides=[8], channels=None)
    backbone.network, backbone.picked, backbone.channels = Fixed(), [0], 8
    return backbone


def test_channels_that_come_last_are_brought_forward():
    assert fixed()(torch.randn(1, 3, 64, 64)).shape == (1, 8, 8, 8)


def test_a_size_that_a_network_does_not_take_is_named_with_one_that_it_does():
    told = (
        r"takes no slices of 50 x 76 \(AssertionError: Input doesn't match model \(64\)\.\); "
        "set grid.size to 64, or choose another model$"
    )
    with pytest.raises(FssegError, match=told):
        fixed()(torch.zeros(1, 3, 50, 76))


def test_an_error_for_another_reason_keeps_its_traceback(monkeypatch):
    backbone = fixed()
    backbone(torch.zeros(1, 3, 64, 64))

    def broken(images):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(backbone.network.layer, "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        backbone(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    "options, told",
    [
        (
            {"model": "resnet18", "image_size": [64, 64]},
            "with image_size = .* leave image_size out",
        ),
        ({"model": "test_vit", "output_stride": 8}, "with output_stride = 8 .*leave output_stride"),
        ({"model": "test_vit", "strides": [8]}, r"stages of stride \[16, 16, 16\], expected \[8\]"),
        ({"model": "resnet18", "image_size": [0, 64]}, r"image_size\.0: expected greater than or"),
    ],
)
def test_what_timm_cannot_make_is_one_sentence(options, told):
    with pytest.raises(FssegError, match=told):
        TimmBackbone(**{"strides": [16]} | options)


@pytest.mark.parametrize("model, stride", [("test_vit", 16), ("test_byobnet", 8)])
def test_weights_of_the_whole_network_are_found_under_the_names_of_its_part(
    tmp_path, model, stride
):
    whole = timm.create_model(model)
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    backbone = TimmBackbone(model=model, strides=[stride], weights=str(tmp_path / "w.safetensors"))
    given = whole.state_dict()
    for name, value in backbone.network.state_dict().items():
        parts = name.removeprefix("model.").replace("stages_", "stages.")
        assert torch.equal(value, given[parts])


def test_weights_for_slices_of_another_size_are_refused(tmp_path):
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(FssegError, match=r"pos_embed of shape .*leave image_size out"):
        TimmBackbone(
            model="test_vit",
            strides=[16],
            image_size=[64, 64],
            weights=str(tmp_path / "w.safetensors"),
        )


class Fickle(TinyBackbone):
    """Its features are not what it declares."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, images):
        return self.change(super().forward(images))


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda x: x[:, :4], r"features have shape \[1, 4, 8, 8\], expected \[1, 8, h, w\]"),
        (lambda x: x / 0, "its features are not finite"),
    ],
)
def test_a_backbone_is_tried_before_anything_is_trained(change, told):
    with pytest.raises(
        FssegError,
        match=f"backbone fickle: for a slice of 32 x 32 its? .*{told}".replace("its? ", ""),
    ):
        try_sizes("fickle", Fickle(change), {(32, 32)})


def test_of_many_sizes_some_are_tried_and_the_network_stays_as_it_was():
    seen = []
    backbone = Fickle(lambda x: seen.append(tuple(x.shape[-2:])) or x).train()
    try_sizes("fickle", backbone, {(4 * edge, 8) for edge in range(1, 101)})
    assert len(seen) == 8 and seen[0] == (1, 2) and seen[-1] == (100, 2) and backbone.training


def test_a_run_says_so_while_it_is_planned(tmp_path, monkeypatch):
    path = write_recipe(tmp_path, make_folder(tmp_path / "scans"))
    backbone = {"name": "timm", "model": "tresnet_m", "strides": [8]}
    monkeypatch.setattr(
        "fsseg.model.backbones.timm.make_network", lambda *_: (_tiny_network(), [0], 1)
    )
    recipe = fsseg.load_recipe(path, {"backbone": backbone, "grid.size": 50})
    with pytest.raises(FssegError, match="takes no slices of 50 x 50 .*set grid.size to 64"):
        _ = RunData(recipe, Silent()).backbone


def _tiny_network():
    network = Fixed()
    network.feature_info = timm.create_model("test_byobnet", features_only=True).feature_info
    return network


@pytest.mark.processes
def test_timm_is_imported_where_it_is_used():
    words = "import sys, fsseg.model.backbones.timm, fsseg.model.backbones.deeplab; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
