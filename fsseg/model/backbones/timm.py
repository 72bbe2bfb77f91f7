"""Any timm network as a backbone: one or several stages, normalised, on one grid, projected to a common width."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fsseg.model.backbones.channels import ChannelMap, Context, InChannels, fit_channels
from fsseg.model.backbones.networks import make_network, stages_of
from fsseg.model.backbones.weights import load_weights
from fsseg.model.ops import resize
from fsseg.plugins.options import component

ImageEdge = Annotated[int, Field(ge=1, le=4096)]


Weights = Annotated[
    str,
    Field(
        description='"none", "package" (installed with the demo extra), "timm" (downloads once), '
        "or a path to .safetensors or .pth"
    ),
]

ImageSize = Annotated[
    tuple[ImageEdge, ImageEdge] | None,
    Field(
        description="height and width of all slices, for networks that timm makes for one size alone"
    ),
]


@component
class TimmBackbone(nn.Module):
    """A timm `features_only` network: convolutional, or a transformer that gives maps of features.

    The chosen stages are L2-normalised per position, resized to the finest of their grids, concatenated and projected
    by a 1x1 convolution. Middle stages of a small ImageNet network go far without dilation; the deepest alone do not.

    Transformers (ViT, EVA, Swin) are made for slices of any size where timm can; others (BEiT, CaiT, MaxViT, Hiera) are made for one,
    which `image_size` changes, and refuse slices of another size with a sentence before anything is trained.

    Attributes:
        channels: Channels of the features.
        stride: Pixels of the image per cell of the features: the smallest of the strides.
        intensity: The rule by which a scan's intensities are scaled.
        context: Neighbouring slices on each side that are further channels.
        in_channels: Channels of a scan.

    Shapes:
        images `slice 3 height width`, or with `in_channels (2 context + 1)` in place of 3 where that is not 1, -> features
        `slice channels h w`.

    Raises:
        FssegError: timm has no such network or cannot make it so, it has no such stages, or the weights cannot be had; when
            called, with slices of a size that the network does not take.

    Example:
        >>> import torch
        >>> from fsseg import TimmBackbone
        >>> backbone = TimmBackbone(model="resnet18", strides=[8], channels=32)
        >>> backbone(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self,
        *,
        model: Annotated[
            str, Field(description="timm's name of the network")
        ] = "tf_efficientnet_lite0",
        strides: Annotated[
            list[int],
            Field(min_length=1, description="strides of the stages to use, for example [8, 16]"),
        ] = [8, 16],  # noqa: B006 (never changed)
        channels: Annotated[
            int | None,
            Field(ge=1, description="width of the projection; none keeps the stages' own"),
        ] = 256,
        weights: Weights = "none",
        normalise: Annotated[
            bool, Field(description="give each stage's feature vectors unit length")
        ] = True,
        output_stride: Annotated[
            Literal[8, 16, 32] | None,
            Field(description="dilate instead of striding beyond this, where timm can"),
        ] = None,
        image_size: ImageSize = None,
        context: Context = 0,
        in_channels: InChannels = 1,
        channel_map: ChannelMap = "first_layer",
        intensity: Annotated[
            Literal["percentile", "zscore"],
            Field(
                description="percentile: 1..99.5 to [-1, 1]; zscore: as published for ResNet-101"
            ),
        ] = "percentile",
        seed: Annotated[
            int, Field(ge=0, description="seed of the weights that are not loaded")
        ] = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # timm initialises from the global generator; ours is put back
            network, self.picked, self.multiple = make_network(
                model, strides, output_stride, image_size
            )
            load_weights(network, model, weights)
            self.entry = fit_channels(network, in_channels, context, channel_map)
            of_stages = network.feature_info
            width = sum(of_stages.channels()[stage] for stage in self.picked)
            self.network = network
            self.projection = _projection(width, channels)
        # About 1.4 times faster on a CPU, and what tensor cores want.
        self.to(memory_format=torch.channels_last)
        self._known_sizes: set[tuple[int, int]] = set()
        self.normalise = normalise
        self.intensity = intensity
        self.context = context
        self.in_channels = in_channels
        self.channels = channels or width
        self.stride = min(of_stages.reduction()[stage] for stage in self.picked)

    def forward(
        self, images: Float[Tensor, "slice input height width"]
    ) -> Float[Tensor, "slice channel h w"]:
        outputs = stages_of(self.network, self.entry(images), self.multiple, self._known_sizes)
        stages = [outputs[stage] for stage in self.picked]
        if self.normalise:
            stages = [F.normalize(stage, dim=1) for stage in stages]
        finest = max(stages, key=lambda stage: stage.shape[-2])
        height, width = finest.shape[-2:]
        resized = [resize(stage, (height, width)) for stage in stages]
        return self.projection(torch.cat(resized, dim=1))


def _projection(width: int, channels: int | None) -> nn.Module:
    if channels is None:
        return nn.Identity()
    projection = nn.Conv2d(width, channels, kernel_size=1, bias=False)
    # It keeps angles, on which the prototypes rest, as they are.
    nn.init.orthogonal_(projection.weight)
    return projection
