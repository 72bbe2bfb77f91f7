"""Whether a backbone can do what it is asked for, found out before anything is trained."""

from collections.abc import Collection
from typing import cast

import torch
from torch import nn

from fsseg.errors import FssegError
from fsseg.interfaces import Backbone
from fsseg.model.inputs import slice_channels_of
from fsseg.model.segmenter import encode

MOST_TRIED = 8
"""Sizes that are tried at most, from the smallest to the largest."""


@torch.no_grad()
def try_sizes(name: str, backbone: Backbone, sizes: Collection[tuple[int, int]]) -> None:
    """Has a backbone encode a slice of noise of each of these sizes, of many of some of them.

    Args:
        name: The backbone's name in recipes.
        backbone: The backbone; it stays as it is.
        sizes: Heights and widths of the slices that it is to take.

    Raises:
        FssegError: It does not take one of them, or its features are not what it declares, or not finite.
    """
    network = cast(nn.Module, backbone)
    was_training = network.training
    network.eval()
    generator = torch.Generator().manual_seed(0)
    channels = slice_channels_of(backbone)
    in_order = sorted(sizes)
    every = max(1, (len(in_order) - 1) / (MOST_TRIED - 1))
    tried = {in_order[round(number * every)] for number in range(min(len(in_order), MOST_TRIED))}
    for height, width in sorted(tried):
        example = torch.randn(channels, height, width, generator=generator)
        features = encode(backbone, example[None])
        shape = list(features.shape)
        what = f"backbone {name}: for a slice of {height} x {width}"
        if len(shape) != 4 or shape[:2] != [1, backbone.channels]:
            raise FssegError(
                f"{what} its features have shape {shape}, expected [1, {backbone.channels}, h, w], as it declares; "
                "correct the backbone"
            )
        if not features.isfinite().all():
            raise FssegError(
                f"{what} its features are not finite, expected numbers; see that its weights are whole, or take others"
            )
    network.train(was_training)
