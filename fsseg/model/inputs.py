"""What a backbone is given of a slice: its channels, and those of its neighbours."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fsseg.errors import DataError

PHOTOGRAPH = 3
"""Channels of the images that most networks are made for."""


def context_of(backbone: Any) -> int:
    """The number of neighbouring slices on each side that a backbone sees; 0 for one that says nothing."""
    return int(getattr(backbone, "context", 0))


def scan_channels_of(backbone: Any) -> int:
    """The number of channels that a backbone expects of a scan; 1 for one that says nothing."""
    return int(getattr(backbone, "in_channels", 1))


def channels_of(backbone: Any) -> int:
    """The number of channels of the images that a backbone is called with.

    A single one is handed to it three times, as a network trained on photographs expects; all others as they are.
    """
    wanted = slice_channels_of(backbone)
    return PHOTOGRAPH if wanted == 1 else wanted


def slice_channels_of(backbone: Any) -> int:
    """The number of different channels of a slice: those of the scan, for the slice and for each neighbour."""
    return scan_channels_of(backbone) * (2 * context_of(backbone) + 1)


def with_context(
    images: Float[Tensor, "slice *channel height width"], context: int
) -> Float[Tensor, "slice *channels height width"]:
    """Gives each slice of a scan its neighbours as further channels.

    The channels of the lowest neighbour come first, those of the slice itself are in the middle. The first and the last
    slice are repeated where there are no neighbours. The result is a view of one copy of the scan: a slice that is a
    neighbour of several takes no more memory.

    Args:
        images: All slices of a scan, in order.
        context: Neighbours on each side; with 0 the images are returned as they are.

    Example:
        >>> scan = torch.arange(4.0).view(4, 1, 1)
        >>> with_context(scan, 1)[:, :, 0, 0].tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 3.0]]
    """
    if context == 0:
        return images
    height, width = images.shape[-2:]
    of_slices = images.reshape(len(images), -1, height, width)
    before = of_slices[:1].expand(context, -1, -1, -1)
    after = of_slices[-1:].expand(context, -1, -1, -1)
    padded = torch.cat([before, of_slices, after])
    neighbours = padded.unfold(0, 2 * context + 1, 1)  # slice channel height width neighbour
    return neighbours.movedim(-1, 1).flatten(1, 2)


def network_input(
    backbone: Any, images: Float[Tensor, "slice *channel height width"]
) -> Float[Tensor, "slice input height width"]:
    """The images as a backbone is called with them: with the channels that it declares; one channel three times.

    Raises:
        DataError: The images have another number of channels.
    """
    if images.ndim == 3:
        images = images[:, None]
    wanted = slice_channels_of(backbone)
    channels = images.shape[1]
    if channels != wanted:
        raise DataError(_other_channels(backbone, channels, wanted))
    if wanted == 1:
        return images.expand(-1, PHOTOGRAPH, -1, -1)
    return images


def require_channels(case: str, channels: int, wanted: int) -> None:
    """Raises DataError for a scan that has another number of channels than a backbone expects of scans."""
    if channels != wanted:
        raise DataError(
            f"case {case}: it has {channels} channel(s), expected {wanted} as backbone.in_channels says; give all scans the "
            f"same channels, and set backbone.in_channels to their number (here {channels})"
        )


def _other_channels(backbone: Any, channels: int, wanted: int) -> str:
    """The sentence for images of another number of channels than a backbone wants."""
    context = context_of(backbone)
    of_scan = scan_channels_of(backbone)
    neighbours = f" for each of {2 * context + 1} neighbouring slices" if context else ""
    remedy = f"set in_channels of the backbone to {channels}"
    if context:
        remedy = "give slices with their neighbours, as fsseg.model.inputs.with_context makes them"
    return (
        f"backbone {type(backbone).__name__}: got images of {channels} channels, expected {wanted} "
        f"(in_channels = {of_scan}{neighbours}); {remedy}"
    )
