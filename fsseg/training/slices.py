"""The slices of a training scan that an episode is made of, with their neighbours where the backbone sees those."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsseg.training.scans import TrainingScan


def slices_of(
    scan: TrainingScan, slices: Sequence[int], context: int, *, hides: bool
) -> Float[Tensor, "some *channel height width"]:
    """Some slices of a scan, each with its neighbours as further channels.

    Args:
        scan: The scan.
        slices: The numbers of the slices.
        context: Neighbours on each side; with 0 a slice has the channels of its scan alone.
        hides: Whether slices without any region are hidden from training; they are nobody's neighbours then.
    """
    if context == 0:
        return pick(scan.images, slices)
    with_neighbours = []
    for number in slices:
        numbers = neighbours(scan, number, context, hides=hides)
        images = pick(scan.images, numbers)
        height, width = images.shape[-2:]
        with_neighbours.append(images.reshape(-1, height, width))
    return torch.stack(with_neighbours)


def neighbours(scan: TrainingScan, number: int, context: int, *, hides: bool) -> list[int]:
    """The numbers of a slice and its neighbours, in order; the last that there is on a side is repeated.

    Args:
        scan: The scan.
        number: The slice.
        context: Neighbours on each side.
        hides: Whether slices without any region are hidden from training, which the scan ends with then.
    """
    is_shown: Bool[np.ndarray, "slice"] = np.ones(len(scan.images), dtype=bool)
    if hides:
        is_shown = np.asarray(scan.table.counts.any(axis=0))
    numbers = [number]
    for step in (-1, 1):
        last = number
        for _ in range(context):
            following = last + step
            if 0 <= following < len(is_shown) and is_shown[following]:
                last = following
            numbers = [last, *numbers] if step < 0 else [*numbers, last]
    return numbers


def pick(values: Tensor, slices: Sequence[int]) -> Tensor:
    """Some slices of a scan; one by one, so that no others are read from disk."""
    return torch.stack([values[number] for number in slices])
