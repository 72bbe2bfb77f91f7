"""Backbones that give features of two scales, packed into one tensor (see `fsseg_qnet.scales`)."""

from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
import torch
import torchvision
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fsseg import FssegError, TimmBackbone, component
from fsseg_qnet.scales import pack

Intensity = Annotated[
    Literal["percentile", "zscore"],
    Field(description="percentile: 1..99.5 to [-1, 1]; zscore: as published"),
]
Seed = Annotated[int, Field(ge=0, description="seed of the weights that are not loaded")]
Channels = Annotated[
    int, Field(ge=1, description="width of each scale; the features have twice as many channels")
]


@component
class TwoScales(nn.Module):
    """Two stages of a timm network, one with twice the stride of the other, each with a projection of its own."""

    def __init__(
        self,
        *,
        model: Annotated[
            str, Field(description="timm's name of the network")
        ] = "tf_efficientnet_lite0",
        strides: Annotated[
            tuple[int, int],
            Field(
                description="strides of the fine and of the coarse stage, the second twice the first"
            ),
        ] = (8, 16),
        channels: Channels = 256,
        weights: Annotated[str, Field(description='as of the backbone "timm"')] = "none",
        normalise: Annotated[
            bool, Field(description="give each stage's feature vectors unit length")
        ] = True,
        intensity: Intensity = "percentile",
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        if strides[1] != 2 * strides[0]:
            raise FssegError(
                f"backbone two_scales: got strides {list(strides)}, expected the second twice the first"
            )
        inner = TimmBackbone(
            model=model, strides=list(strides), channels=None, weights=weights, seed=seed
        )
        self.network = inner.network
        self.picked = inner.picked
        widths = [self.network.feature_info.channels()[stage] for stage in self.picked]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projections = nn.ModuleList(
                nn.Conv2d(width, channels, 1, bias=False) for width in widths
            )
            for projection in self.projections:
                nn.init.orthogonal_(projection.weight)
        self.to(memory_format=torch.channels_last)
        self.channels = 2 * channels
        self.stride = strides[0]
        self.intensity = intensity
        self.normalise = normalise

    def forward(
        self, images: Float[Tensor, "slice 3 height width"]
    ) -> Float[Tensor, "slice both h w"]:
        """The projected stages, packed."""
        outputs = self.network(images)
        stages = [outputs[stage] for stage in self.picked]
        if self.normalise:
            stages = [nn.functional.normalize(stage, dim=1) for stage in stages]
        fine, coarse = (project(stage) for project, stage in zip(self.projections, stages))
        return pack(fine, coarse)


@component
class QNetResNet101(nn.Module):
    """The paper's backbone: a ResNet-101 that is dilated in its second and third stage and strided in its fourth.

    The third stage, at stride 4, and the fourth, at stride 8, each have a projection without bias, normalisation or
    activation. Published weights are those of DeepLabV3's encoder, trained on COCO; ImageNet's fit as well.
    """

    def __init__(
        self,
        *,
        weights: Annotated[
            str,
            Field(
                description='"none", or a path to .pth or .safetensors with tensors of a ResNet-101'
            ),
        ] = "none",
        channels: Channels = 512,
        intensity: Intensity = "zscore",
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            dilated = [True, True, False]
            self.encoder = torchvision.models.resnet101(
                weights=None, replace_stride_with_dilation=dilated
            )
            self.encoder.fc = nn.Identity()
            self.projections = nn.ModuleList(
                nn.Conv2d(width, channels, 1, bias=False) for width in (1024, 2048)
            )
            for projection in self.projections:
                nn.init.kaiming_normal_(projection.weight, mode="fan_out")
        if weights != "none":
            load_encoder(self.encoder, Path(weights))
        self.to(memory_format=torch.channels_last)
        self.channels = 2 * channels
        self.stride = 4
        self.intensity = intensity

    def forward(
        self, images: Float[Tensor, "slice 3 height width"]
    ) -> Float[Tensor, "slice both h w"]:
        """The two projected stages, packed."""
        net = self.encoder
        stem = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        fine = net.layer3(net.layer2(net.layer1(stem)))
        return pack(self.projections[0](fine), self.projections[1](net.layer4(fine)))


def load_encoder(encoder: nn.Module, file: Path) -> None:
    """Loads a file's tensors, with or without the prefix of DeepLabV3.

    Raises:
        FssegError: There is no such file, or not all of its tensors fit.
    """
    if not file.is_file():
        raise FssegError(
            f"backbone qnet_resnet101: there are no weights {file}, expected a .pth or .safetensors file"
        )
    if file.suffix == ".safetensors":
        state = safetensors.torch.load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    state = {name.removeprefix("backbone."): value for name, value in state.items()}
    wanted = encoder.state_dict()
    fitting = {}
    for name, value in wanted.items():
        if name in state and state[name].shape == value.shape:
            fitting[name] = state[name]
    required = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in required if name not in fitting]
    if missing:
        raise FssegError(
            f"backbone qnet_resnet101: {file} has {len(fitting)} of the {len(wanted)} tensors of a ResNet-101, expected "
            f"all; {missing[0]} is missing or of another shape"
        )
    encoder.load_state_dict(fitting, strict=False)
