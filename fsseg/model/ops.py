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

Logits = Float[Tensor, "query class height width"]
"""Class logits at image size, background first."""

Prior = Float[Tensor, "query"] | Float[Tensor, "query way"]
"""Log-odds of the foreground, per slice or per slice and way."""

Labels = UInt8[Tensor, "query height width"]
"""The class of each pixel: 0 is background, way k is k + 1."""

Size = tuple[int, int]
"""Height and width."""

_SIGN = 2**31
"""The bit of a float32's sign, as a whole number."""

_BITS = 2**32 - 1
"""All bits of a float32, as a whole number."""


def resize(
    maps: Float[Tensor, "batch channel h w"], size: Size, align_corners: bool = False
) -> Float[Tensor, "batch channel height width"]:
    """Resizes maps to another grid, bilinearly.

    Args:
        maps: The maps.
        size: Height and width to resize to; maps that have them are returned as they are.
        align_corners: As of `torch.nn.functional.interpolate`; True is what the published codes use for everything but
            features.
    """
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
    identity = torch.eye(coarse, dtype=torch.float64)
    resized = F.interpolate(identity[None], size=fine, mode="linear", align_corners=False)
    return resized[0].T.contiguous().to(device, dtype)


def pooling_weights(
    masks: Bool[Tensor, "*batch height width"],
    size: Size,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*batch h w"]:
    """Weights on the feature grid whose weighted sum of features equals the sum over mask pixels of resized features.

    Resizing is linear, so `sum_x mask(x) resize(F)(x) = sum_g (resize^T mask)(g) F(g)`: one small mask is pushed
    through the adjoint instead of hundreds of channels through the resize. Exact up to round-off.

    Args:
        masks: The masks, at image size.
        size: Height and width of the feature grid.
        dtype: The type of the weights.
    """
    height, width = masks.shape[-2:]
    h, w = size
    rows = _resize_matrix(height, h, masks.device, dtype)
    columns = _resize_matrix(width, w, masks.device, dtype)
    return rows.T @ masks.to(dtype) @ columns


def cosine(
    features: Float[Tensor, "query channel h w"], prototypes: Float[Tensor, "way proto channel"]
) -> Float[Tensor, "query way proto h w"]:
    """Cosine similarity of every feature vector with every prototype."""
    unit_features = F.normalize(features, dim=1)
    unit_prototypes = F.normalize(prototypes, dim=2)
    return torch.einsum("qcyx,wpc->qwpyx", unit_features, unit_prototypes)


def squared_distance(
    features: Float[Tensor, "query channel h w"], prototypes: Float[Tensor, "way proto channel"]
) -> Float[Tensor, "query way proto h w"]:
    """Squared Euclidean distance of every feature vector to every prototype."""
    products = torch.einsum("qcyx,wpc->qwpyx", features, prototypes)
    of_features = features.square().sum(dim=1)
    of_prototypes = prototypes.square().sum(dim=2)
    lengths = of_features[:, None, None] + of_prototypes[None, :, :, None, None]
    return (lengths - 2 * products).clamp(min=0)


def ideal_prior(
    margins: Float[Tensor, "query height width"], counts: Int[Tensor, "query"]
) -> Float[Tensor, "query"]:
    """Log-odds of the prior under which exactly `counts` pixels of each slice become foreground (TPM paper, Sec. 3.4).

    A pixel is foreground where `margin > t`, and the ideal t is the midpoint of the k-th and (k+1)-th largest margin;
    the prior's log-odds are -t. Where those two are equal, or no float lies between them, t is the lower one, so only
    pixels tied at the boundary fall to the background. No foreground (or nothing but) puts t at the largest margin
    (or one unit below the smallest).
    """
    values = margins.flatten(1)
    if values.dtype in (torch.bfloat16, torch.float16):
        values = values.float()
    total = values.shape[1]
    rank = counts.clamp(min=1)
    above = nth_largest(values, rank)
    is_above = values >= above[:, None]
    smaller = values.masked_fill(is_above, -torch.inf).amax(dim=1)
    is_tied = is_above.sum(dim=1) > rank
    below = torch.where(is_tied | (rank == total), above, smaller)
    middle = below + (above - below) / 2
    middle = torch.where(middle < above, middle, below)
    threshold = torch.where(counts == total, below - 1, middle)
    threshold = torch.where(counts == 0, above, threshold)
    return -threshold


def nth_largest(
    values: Float[Tensor, "query pixel"], rank: Int[Tensor, "query"]
) -> Float[Tensor, "query"]:
    """The rank-th largest value of each row, counted from 1."""
    if values.device.type == "cpu":  # the ranks are at hand; elsewhere reading them would wait
        return nth_by_partition(values, rank)
    return nth_by_counting(values, rank)


def nth_by_partition(
    values: Float[Tensor, "query pixel"], rank: Int[Tensor, "query"]
) -> Float[Tensor, "query"]:
    """The rank-th largest value of each row, by one selection per row."""
    places = (values.shape[1] - rank).tolist()
    chosen = []
    for row, place in zip(values.detach().numpy(), places):
        chosen.append(np.partition(row, place)[place])
    return values.new_tensor(chosen)


def nth_by_counting(
    values: Float[Tensor, "query pixel"], rank: Int[Tensor, "query"]
) -> Float[Tensor, "query"]:
    """The rank-th largest value of each row of float32, without reading the ranks on the host and without a sort.

    A float's bits, read as a whole number, are in the order of the floats (after a flip for negative ones). So the
    number that is looked for is made eight bits at a time, from the highest: count how many begin with each.
    """
    bits = values.view(torch.int32).long()
    flipped = torch.where(bits < 0, bits & _BITS, _BITS - (bits | _SIGN))
    # The largest float has the smallest of these numbers.
    is_candidate = torch.ones_like(flipped)
    remaining = rank
    number = torch.zeros_like(rank)
    for shift in (24, 16, 8, 0):
        digits = (flipped >> shift) & 255
        counts = flipped.new_zeros(len(flipped), 256).scatter_add_(1, digits, is_candidate)
        up_to = counts.cumsum(dim=1)
        digit = (up_to < remaining[:, None]).sum(dim=1, keepdim=True)
        remaining = remaining - (up_to - counts).gather(1, digit)[:, 0]
        is_candidate = is_candidate * (digits == digit)
        number = (number << 8) + digit[:, 0]
    bits = torch.where(number >= _SIGN, number, (_BITS - number) ^ _SIGN)
    signed = torch.where(bits >= _SIGN, bits - _SIGN * 2, bits)
    return signed.to(torch.int32).view(torch.float32)


def per_way(prior: Prior, ways: int) -> Float[Tensor, "query way"]:
    """One prior per slice and way, where a single value per slice holds for all ways."""
    if prior.ndim == 2:
        return prior
    return prior[:, None].expand(-1, ways)


def raise_foreground(
    logits: Logits,
    prior: Prior,
) -> Logits:
    """The logits under a prior, which raises every foreground logit by its log-odds."""
    background, foreground = logits[:, :1], logits[:, 1:]
    of_ways = per_way(prior, foreground.shape[1])
    raised = foreground + of_ways[:, :, None, None]
    return torch.cat([background, raised], dim=1)


def decide(
    logits: Logits,
    prior: Prior,
) -> Labels:
    """The class with the largest logit under the prior; a tie with the background is background.

    Foreground is decided by `margin > -prior` and not by comparing raised logits: the addition would round, and an
    oracle would miss its count by a pixel.
    """
    if prior.ndim == 1:
        return decide_alike(margin(logits), winner(logits), prior)
    largest = prior.amax(dim=1)
    even = raise_foreground(logits, prior - largest[:, None])
    return decide_alike(margin(even), winner(even), largest)


def decide_alike(
    margins: Float[Tensor, "query height width"],
    winners: Labels,
    prior: Float[Tensor, "query"],
) -> Labels:
    """The decision where all ways of a slice share a prior: the winner, wherever it beats the background."""
    return winners * (margins > -prior[:, None, None])


def restore_labels(
    scores: Float[Tensor, "slice class h w"], working: WorkingGrid
) -> UInt8[Tensor, "slice height width"]:
    """The class of the largest score on the scan's own grid, bilinear; background where the working grid ends."""
    restored, inside = restore(scores, working)
    labels = torch.stack([of_slice.argmax(dim=0) for of_slice in restored])
    return (labels * inside).to(torch.uint8)


def restore(
    values: Float[Tensor, "slice channel h w"], working: WorkingGrid
) -> tuple[Iterator[Float[Tensor, "channel height width"]], Bool[Tensor, "height width"]]:
    """Takes values from the working grid back to the scan's own, bilinear.

    Args:
        values: Values on the working grid, or on a coarser one over the same area.
        working: The working grid.

    Returns:
        The values slice by slice, since all of them may be large, and where the working grid covers the scan's own.
    """
    y = torch.from_numpy(working.positions(0)).to(values)
    x = torch.from_numpy(working.positions(1)).to(values)
    rows, columns = torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")
    centres = torch.stack([columns, rows], dim=-1)[None]
    inside_rows = (y > 0) & (y < 1)
    inside_columns = (x > 0) & (x < 1)
    inside = inside_rows[:, None] & inside_columns

    def sample(of_slice: Float[Tensor, "channel h w"]) -> Float[Tensor, "channel height width"]:
        return F.grid_sample(of_slice[None], centres, padding_mode="border", align_corners=False)[0]

    return map(sample, values), inside
