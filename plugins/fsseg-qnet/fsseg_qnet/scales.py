"""Two scales of features in one tensor, so that they pass wherever features do: channels [fine; coarse].

The coarse features are repeated twice along each side and cut to the fine grid. Taking every second cell gives them
back exactly, also where a side is odd.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def pack(
    fine: Float[Tensor, "*any channel h w"], coarse: Float[Tensor, "*any channel half_h half_w"]
) -> Float[Tensor, "*any both h w"]:
    """Both scales in one tensor; the coarse grid has half as many cells along each side, rounded up."""
    height, width = fine.shape[-2:]
    repeated = coarse.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)[
        ..., :height, :width
    ]
    return torch.cat([fine, repeated], dim=-3)


def unpack(
    features: Float[Tensor, "*any both h w"],
) -> tuple[Float[Tensor, "*any channel h w"], Float[Tensor, "*any channel half_h half_w"]]:
    """The fine and the coarse features, each on its own grid."""
    fine, repeated = features.chunk(2, dim=-3)
    return fine, repeated[..., ::2, ::2]
