"""A boundary loss as a plugin: fsseg run RECIPE --plugin docs/examples/boundary_loss.py --set 'training.losses=[...]'."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsseg import TrainingStep, component, hookimpl


def distances(mask: Bool[Tensor, "query height width"]) -> Float[Tensor, "query height width"]:
    """Euclidean distance to the nearest pixel of the mask, by the parabolas of rows, then of columns."""
    squares = torch.where(mask, 0.0, 1e6)
    for _ in range(2):  # along one axis, then along the other
        place = torch.arange(squares.shape[-1], device=mask.device)
        apart = (place[:, None] - place) ** 2
        squares = (squares[..., None, :] + apart).amin(dim=-1).transpose(1, 2)
    return squares.sqrt()


@component
class BoundaryLoss:
    """The foreground's probability times the signed distance to the true boundary (Kervadec et al., 2019)."""

    fixed_shape = True  # the same operations for every episode, none of which asks the host

    def __init__(self) -> None:
        pass

    def __call__(self, step: TrainingStep) -> Float[Tensor, ""]:
        inside = step.episode.target > 0
        signed = torch.where(inside, 1 - distances(~inside), distances(inside))
        has_boundary = (inside.any() & ~inside.all()).float()
        return has_boundary * (signed * (1 - step.log_probability[:, 0].exp())).mean()


@hookimpl
def register_losses(register):
    register("boundary", BoundaryLoss)
