"""Tensor arithmetic that several kinds of components share: resizing, pooling, cosines, the ideal prior, the decision."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from fsseg.data.grids import WorkingGrid
from fsseg.types import margin, winner

_SIGN, _BITS = 2**31, 2**32 - 1
"""The bit of a float32's sign, and all its bits, as whole numbers."""


def resize(
    maps: Float[Tensor, "batch channel h w"], size: tuple[int, int], align_corners: bool = False
) -> Float[Tensor, "batch channel height width"]:
    """Bilinear resize. `align_corners=True` is what the published codes use for everything but features."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


@lru_cache(maxsize=64)
def _resize_matrix(
    fine: int, coarse: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "fine coarse"]:
    """The bilinear resize (align_corners=False) of a line of `coarse` values to `fine` values, as a matrix.

    Kept on the device: sending it there in every step would make the host wait.
    """
    identity = torch.eye(coarse, dtype=torch.float64)[None]
    return (
        F.interpolate(identity, size=fine, mode="linear", align_corners=False)[0]
        .T.contiguous()
        .to(device, dtype)
    )


def pooling_weights(
    masks: Bool[Tensor, "*batch height width"],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*batch h w"]:
    """Weights on the feature grid whose weighted sum of features equals the sum over mask pixels of resized features.

    Resizing is linear, so `sum_x mask(x) resize(F)(x) = sum_g (resize^T mask)(g) F(g)`: one small mask is pushed
    through the adjoint instead of hundreds of channels through the resize. Exact up to round-off.
    """
    (height, width), (h, w) = masks.shape[-2:], size
    rows = _resize_matrix(height, h, masks.device, dtype)
    columns = _resize_matrix(width, w, masks.device, dtype)
    return rows.T @ masks.to(dtype) @ columns


def cosine(
    features: Float[Tensor, "query channel h w"], prototypes: Float[Tensor, "way proto channel"]
) -> Float[Tensor, "query way proto h w"]:
    """Cosine similarity of every feature vector with every prototype."""
    return torch.einsum(
        "qcyx,wpc->qwpyx", F.normalize(features, dim=1), F.normalize(prototypes, dim=2)
    )


def squared_distance(
    features: Float[Tensor, "query channel h w"], prototypes: Float[Tensor, "way proto channel"]
) -> Float[Tensor, "query way proto h w"]:
    """Squared Euclidean distance of every feature vector to every prototype."""
    products = torch.einsum("qcyx,wpc->qwpyx", features, prototypes)
    lengths = (
        features.square().sum(dim=1)[:, None, None]
        + prototypes.square().sum(dim=2)[None, :, :, None, None]
    )
    return (lengths - 2 * products).clamp(min=0)


def ideal_prior(
    margins: Float[Tensor, "query height width"], counts: Int[Tensor, "query"]
) -> Float[Tensor, "query"]:
    """Log-odds of the prior under which exactly `counts` pixels of each slice become foreground.

    A pixel is foreground where `margin > t`, and the ideal t is the midpoint of the k-th and (k+1)-th largest margin;
    the prior's log-odds are -t. Where those two are equal, or no float lies between them, t is the lower one, so only
    pixels tied at the boundary fall to the background. No foreground (or nothing but) puts t at the largest margin
    (or one unit below the smallest).
    """
    values = margins.flatten(1)
    values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    total = values.shape[1]
    rank = counts.clamp(min=1)
    above = nth_largest(values, rank)
    smaller = values.masked_fill(values >= above[:, None], -torch.inf).amax(dim=1)
    tied = (values >= above[:, None]).sum(dim=1) > rank
    below = torch.where(tied | (rank == total), above, smaller)
    middle = below + (above - below) / 2
    middle = torch.where(middle < above, middle, below)
    threshold = torch.where(counts == 0, above, torch.where(counts == total, below - 1, middle))
    return -threshold


def nth_largest(
    values: Float[Tensor, "query pixel"], rank: Int[Tensor, "query"]
) -> Float[Tensor, "query"]:
    """The rank-th largest value of each row, counted from 1."""
    # On the host the ranks are at hand; elsewhere reading them would wait.
    return (
        nth_by_partition(values, rank)
        if values.device.type == "cpu"
        else nth_by_counting(values, rank)
    )


def nth_by_partition(
    values: Float[Tensor, "query pixel"], rank: Int[Tensor, "query"]
) -> Float[Tensor, "query"]:
    """The rank-th largest value of each row, by one selection per row."""
    rows, places = values.detach().numpy(), (values.shape[1] - rank).tolist()
    return values.new_tensor([np.partition(row, place)[place] for row, place in zip(rows, places)])


def nth_by_counting(
    values: Float[Tensor, "query pixel"], rank: Int[Tensor, "query"]
) -> Float[Tensor, "query"]:
    """The rank-th largest value of each row of float32, without reading the ranks on the host and without a sort.

    A float's bits, read as a whole number, are in the order of the floats (after a flip for negative ones). So the
    number that is looked for is found eight bits at a time, from the highest: count how many begin with each.
    """
    bits = values.view(torch.int32).long()
    falling = torch.where(
        bits < 0, bits & _BITS, _BITS - (bits | _SIGN)
    )  # the largest float has the smallest number
    among, left, found = torch.ones_like(falling), rank, torch.zeros_like(rank)
    for shift in (24, 16, 8, 0):
        digits = (falling >> shift) & 255
        counts = falling.new_zeros(len(falling), 256).scatter_add_(1, digits, among)
        up_to = counts.cumsum(dim=1)
        digit = (up_to < left[:, None]).sum(dim=1, keepdim=True)
        left = left - (up_to - counts).gather(1, digit)[:, 0]
        among = among * (digits == digit)
        found = (found << 8) + digit[:, 0]
    bits = torch.where(found >= _SIGN, found, (_BITS - found) ^ _SIGN)
    return torch.where(bits >= _SIGN, bits - _SIGN * 2, bits).to(torch.int32).view(torch.float32)


def per_way(
    prior: Float[Tensor, "query"] | Float[Tensor, "query way"], ways: int
) -> Float[Tensor, "query way"]:
    """One prior per slice and way; a single value per slice holds for all ways."""
    return prior[:, None].expand(-1, ways) if prior.ndim == 1 else prior


def raise_foreground(
    logits: Float[Tensor, "query class height width"],
    prior: Float[Tensor, "query"] | Float[Tensor, "query way"],
) -> Float[Tensor, "query class height width"]:
    """The logits under a prior: every foreground logit is raised by the prior's log-odds."""
    raised = logits[:, 1:] + per_way(prior, logits.shape[1] - 1)[:, :, None, None]
    return torch.cat([logits[:, :1], raised], dim=1)


def decide(
    logits: Float[Tensor, "query class height width"],
    prior: Float[Tensor, "query"] | Float[Tensor, "query way"],
) -> UInt8[Tensor, "query height width"]:
    """The class with the largest logit under the prior; a tie with the background is background.

    Foreground is decided by `margin > -prior` and not by comparing raised logits: the addition would round, and an
    oracle would miss its count by a pixel.
    """
    if prior.ndim == 1:
        return decide_alike(margin(logits), winner(logits), prior)
    base = prior.amax(dim=1)
    shifted = logits[:, 1:] + (prior - base[:, None])[:, :, None, None]
    even = torch.cat([logits[:, :1], shifted], dim=1)
    return decide_alike(margin(even), winner(even), base)


def decide_alike(
    margins: Float[Tensor, "query height width"],
    winners: UInt8[Tensor, "query height width"],
    prior: Float[Tensor, "query"],
) -> UInt8[Tensor, "query height width"]:
    """The decision where all ways of a slice share a prior: the winner, wherever it beats the background."""
    return winners * (margins > -prior[:, None, None])


def restore_labels(
    scores: Float[Tensor, "slice class h w"], working: WorkingGrid
) -> UInt8[Tensor, "slice height width"]:
    """The class of the largest score on the scan's own grid, bilinear; background where the working grid ends."""
    restored, inside = restore(scores, working)
    return (torch.stack([one.argmax(dim=0) for one in restored]) * inside).to(torch.uint8)


def restore(
    values: Float[Tensor, "slice channel h w"], working: WorkingGrid
) -> tuple[Iterator[Float[Tensor, "channel height width"]], Bool[Tensor, "height width"]]:
    """Values on the scan's own grid, bilinear, slice by slice (it may be large), and where the working grid covers it."""
    y, x = (torch.from_numpy(working.positions(axis)).to(values) for axis in (0, 1))
    centres = torch.stack(torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")[::-1], dim=-1)[None]
    inside = ((y > 0) & (y < 1))[:, None] & ((x > 0) & (x < 1))
    own = (
        F.grid_sample(one[None], centres, padding_mode="border", align_corners=False)[0]
        for one in values
    )
    return own, inside
