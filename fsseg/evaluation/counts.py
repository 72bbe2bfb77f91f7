"""Counts of voxels, from which every overlap measure follows."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor


class Counts(NamedTuple):
    """Voxels that are the class in both, in the prediction, in the truth."""

    intersection: int
    predicted: int
    actual: int


def count_overlaps(
    pairs: Iterable[tuple[Bool[Tensor, "slice height width"], Bool[Tensor, "slice height width"]]],
) -> list[Counts]:
    """Counts over whole volumes, of what was predicted and what is. However many, the host waits for them once."""
    counts = [
        torch.stack(
            [torch.count_nonzero(found) for found in (predicted & actual, predicted, actual)]
        )
        for predicted, actual in pairs
    ]
    return [Counts(*of_pair) for of_pair in torch.stack(counts).tolist()]
