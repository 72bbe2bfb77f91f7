"""The paper's backbone: a dilated ResNet-101 with a linear projection."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fsseg.model.backbones.channels import ChannelMap, Context, InChannels, fit_channels
from fsseg.model.backbones.weights import load_weights
from fsseg.plugins.options import component


@component
class DeepLabResNet101(nn.Module):
    """ResNet-101 with output stride 8 and a 1x1 convolution from 2048 to 256 channels.

    The encoder of DeepLabV3 without its head, as ADNet and TPM use it: the last two stages are dilated instead of
    strided (their first block keeps the dilation of the stage before), the projection has no bias, normalisation or
    activation. Batch normalisation is not frozen.

    Attributes:
        channels: Channels of the features.
        stride: Pixels of the image per cell of the features: 8.
        intensity: The rule by which a scan's intensities are scaled.
        context: Neighbouring slices on each side that are further channels.
        in_channels: Channels of a scan.

    Shapes:
        images `slice 3 height width`, or with `in_channels (2 context + 1)` in place of 3 where that is not 1, -> features
        `slice channels height/8 width/8`.

    Raises:
        FssegError: The weights cannot be had, or are those of another network.
    """

    def __init__(
        self,
        *,
        weights: Annotated[
            str,
            Field(
                description='ImageNet weights of the encoder: "none", "timm" (downloads once), '
                "or a path to .safetensors or .pth"
            ),
        ] = "none",
        channels: Annotated[int, Field(ge=1, description="width of the projection")] = 256,
        context: Context = 0,
        in_channels: InChannels = 1,
        channel_map: ChannelMap = "first_layer",
        intensity: Annotated[
            Literal["percentile", "zscore"],
            Field(description="zscore: as published; percentile: 1..99.5 to [-1, 1]"),
        ] = "zscore",
        seed: Annotated[
            int, Field(ge=0, description="seed of the weights that are not loaded")
        ] = 0,
    ) -> None:
        import timm  # here, since listing components or loading ours needs it not

        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # timm initialises from the global generator; ours is put back
            self.encoder = timm.create_model(
                "resnet101.tv_in1k", features_only=True, out_indices=(4,), output_stride=8
            )
            load_weights(self.encoder, "resnet101.tv_in1k", weights)
            self.entry = fit_channels(self.encoder, in_channels, context, channel_map)
            self.projection = nn.Conv2d(2048, channels, kernel_size=1, bias=False)
        self.to(memory_format=torch.channels_last)
        self.channels = channels
        self.stride = 8
        self.intensity = intensity
        self.context = context
        self.in_channels = in_channels

    def forward(
        self, images: Float[Tensor, "slice input height width"]
    ) -> Float[Tensor, "slice channel h w"]:
        return self.projection(self.encoder(self.entry(images))[0])
