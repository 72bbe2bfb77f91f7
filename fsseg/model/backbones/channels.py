"""Networks that are made for photographs, made to take another number of channels."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.model.inputs import PHOTOGRAPH

Context = Annotated[
    int, Field(ge=0, le=8, description="neighbouring slices on each side that are further channels")
]

InChannels = Annotated[
    int,
    Field(ge=1, le=64, description="channels of a scan, such as the sequences of an examination"),
]

ChannelMap = Annotated[
    Literal["first_layer", "linear"],
    Field(
        description="for other numbers than 1 and 3: widen the first layer, or put a 1x1 convolution to 3 channels in front"
    ),
]


def fit_channels(network: nn.Module, in_channels: int, context: int, how: str) -> nn.Module:
    """Makes a network take images of other than one or three channels, after its weights are loaded.

    Either way it begins as the network for photographs of the slice itself, whose channels are averaged: the first
    layer's new weights are the sum over the three colours, divided among the channels of the slice; the 1x1 convolution
    begins as their mean. The weights of neighbouring slices begin at 0. Nothing is drawn at random.

    Args:
        network: The network, whose first layer is changed in place.
        in_channels: Channels of a scan.
        context: Neighbouring slices on each side.
        how: "first_layer" or "linear".

    Returns:
        What comes before the network.

    Raises:
        FssegError: The network does not begin with a convolution of three channels.
    """
    shares = torch.zeros(2 * context + 1, in_channels)
    shares[context] = 1 / in_channels
    channels = shares.numel()
    if channels in (1, PHOTOGRAPH):
        return nn.Identity()
    by_channel = shares.view(1, channels, 1, 1)
    if how == "linear":
        return _linear(by_channel)
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != PHOTOGRAPH or first.groups != 1:
        raise FssegError(
            "backbone: the network does not begin with a convolution of three channels, which could be widened for "
            f'{channels}; set channel_map to "linear"'
        )
    with torch.no_grad():
        grey = first.weight.sum(dim=1, keepdim=True)
        first.weight = nn.Parameter(grey * by_channel)
    first.in_channels = channels
    return nn.Identity()


def _linear(shares: Float[Tensor, "1 channel 1 1"]) -> nn.Conv2d:
    """A 1x1 convolution to three channels, each of which has these shares of the others."""
    layer = nn.utils.skip_init(nn.Conv2d, shares.shape[1], PHOTOGRAPH, kernel_size=1, bias=False)
    layer.weight = nn.Parameter(shares.repeat(PHOTOGRAPH, 1, 1, 1))
    return layer
