"""A chain of refiners: the grid on which each gets its margins, and the orders that make sense."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.interfaces import Refiner
from fsseg.model.ops import resize
from fsseg.plugins.blame import described
from fsseg.types import QueryVolume

Resolution = Literal["features", "image", "any"]
"""Where a refiner works: on the cells of the features, on the pixels of the image, or on what it gets."""

Margins = Float[Tensor, "slice way h w"]

OnOtherGrid = Float[Tensor, "slice way other_h other_w"]
"""Margins on a grid that may be another."""

CERTAIN = 1e30
"""A margin beyond which nothing is more certain: what is infinite is resized as this."""


def resolution_of(refiner: Any) -> Resolution:
    """The grid on which a refiner works, "features" for one that says nothing.

    Raises:
        FssegError: It says something else.
    """
    resolution: Any = getattr(refiner, "resolution", "features")
    if resolution not in get_args(Resolution):
        known = " or ".join(f'"{each}"' for each in get_args(Resolution))
        raise FssegError(
            f"{described('refiner', refiner)}: its resolution is {resolution!r}, expected {known}"
        )
    return resolution


def require_order(refiners: Sequence[Refiner]) -> None:
    """Checks that no refiner that works on features comes after one that works on the image, whose detail it would lose.

    Raises:
        FssegError: One does; the message names both.
    """
    finer = None
    for refiner in refiners:
        resolution = resolution_of(refiner)
        if resolution == "image":
            finer = refiner
        if resolution == "features" and finer is not None:
            raise FssegError(
                f"refiners: {described('refiner', refiner)} works on the features and comes after "
                f"{described('refiner', finer)}, which works on the image; expected it before, put it there"
            )


def refine(
    refiners: Sequence[Refiner],
    margins: Margins,
    volume: QueryVolume,
    *,
    align_corners: bool,
) -> OnOtherGrid:
    """Lets refiners decide one after the other, each on its own grid.

    Args:
        refiners: The refiners, in an order that `require_order` takes.
        margins: Margins under the prior, on the cells of the features or finer.
        volume: What else they may look at.
        align_corners: How margins are brought to the image, as of `fsseg.model.ops.resize`.

    Returns:
        The margins on the grid of the last refiner.

    Raises:
        FssegError: A refiner gives margins of another shape.
    """
    for refiner in refiners:
        margins = _on_grid_of(refiner, margins, volume, align_corners)
        refined = refiner(margins, volume)
        if refined.shape != margins.shape:
            raise FssegError(
                f"{described('refiner', refiner)}: it gives margins of shape {tuple(refined.shape)}, expected "
                f"{tuple(margins.shape)} as it gets"
            )
        margins = refined
    return margins


def _on_grid_of(
    refiner: Refiner, margins: Margins, volume: QueryVolume, align_corners: bool
) -> OnOtherGrid:
    """The margins on the grid on which a refiner works."""
    resolution = resolution_of(refiner)
    if resolution == "image":
        height, width = volume.query.images.shape[-2:]
        return to_size(margins, (height, width), align_corners=align_corners)
    cells = volume.features.shape[-2:]
    if resolution == "any" or margins.shape[-2:] == cells:
        return margins
    bounded = margins.clamp(-CERTAIN, CERTAIN)
    return F.interpolate(bounded, tuple(cells), mode="bilinear", antialias=True)


def to_size(margins: Margins, size: tuple[int, int], *, align_corners: bool) -> OnOtherGrid:
    """Margins on a finer grid; infinite ones, which times a weight of 0 would be NaN, stay as certain as any can be."""
    if margins.shape[-2:] == size:
        return margins
    return resize(margins.clamp(-CERTAIN, CERTAIN), size, align_corners)
