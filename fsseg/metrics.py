"""Counts of voxels, from which every overlap measure follows."""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor


class Counts(NamedTuple):
    """Voxels that are the class in both, in the prediction, in the truth."""

    intersection: int
    predicted: int
    actual: int


def count_overlap(predicted: Bool[Tensor, "slice height width"], actual: Bool[Tensor, "slice height width"]) -> Counts:
    """Counts over the whole volume."""
    counts = torch.stack([(predicted & actual).sum(), predicted.sum(), actual.sum()])
    return Counts(*counts.tolist())
