"""What a training minimises: the weighted sum of its losses, each checked, named and logged by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.plugins.blame import described
from fsseg.recipe.losses import LOG_COLUMNS, losses_of
from fsseg.recipe.tables import TrainingTable
from fsseg.training.step import TrainingStep

Value = Float[Tensor, ""]
"""A loss."""


@dataclass(frozen=True)
class WeightedLoss:
    """A loss with its weight in the sum.

    Attributes:
        name: Its name, which is its column in the training's log.
        weight: Its weight; with 0 it is logged alone.
        loss: Works it out.
        label: What messages call it, with the distribution that it is from.
        fixed_shape: True where its operations are the same for every episode and never ask the host for a value.
    """

    name: str
    weight: float
    loss: Callable[[TrainingStep], Value]
    label: str
    fixed_shape: bool = False

    def __call__(self, step: TrainingStep) -> Value:
        """The loss of a step, before its weight.

        Raises:
            FssegError: It is not one number, or has a weight and no gradient.
        """
        value: Any = self.loss(step)
        if not isinstance(value, Tensor):
            self._refuse(f"a {type(value).__name__}", "return a tensor")
        if value.shape != ():
            self._refuse(f"a tensor of shape {list(value.shape)}", "take its mean or its sum")
        if not value.is_floating_point():
            self._refuse(f"a tensor of {value.dtype}", "return a floating-point number")
        if self.weight and not value.requires_grad:
            self._refuse(
                "a number without a gradient",
                "compute it from what is trained, without detach, no_grad or NumPy, leave it out, or give it the weight 0, "
                "with which it is logged alone",
            )
        return value

    def _refuse(self, got: str, remedy: str) -> None:
        raise FssegError(f"{self.label}: gave {got}, expected one number with a gradient; {remedy}")


def losses_for(options: TrainingTable, components: Mapping[str, Any]) -> list[WeightedLoss]:
    """The losses of a training: those that its table lists, and those that its components bring.

    Args:
        options: The recipe's table of the training.
        components: Its backbone, head, prototypes and threshold by kind.

    Raises:
        FssegError: Two have the same name, or a component brings something else than losses.
    """
    losses = []
    for table in losses_of(options):
        loss = table.build("loss")
        fixed_shape = getattr(loss, "fixed_shape", False)
        label = described("loss", loss)
        losses.append(WeightedLoss(table.name, table.weight, loss, label, fixed_shape))
    for kind, component in components.items():
        if hasattr(component, "further_losses"):
            losses += _brought(kind, component)
    _require_distinct(losses)
    return losses


def _brought(kind: str, component: Any) -> list[WeightedLoss]:
    """The losses that a component brings."""
    label = described(kind, component)
    brought = component.further_losses()
    losses = []
    try:
        for name, (weight, loss) in brought.items():
            if not (isinstance(name, str) and weight >= 0 and callable(loss)):
                raise TypeError
            fixed_shape = getattr(component, "fixed_shape", False)
            losses.append(
                WeightedLoss(name, weight, loss, f"loss {name!r} of {label}", fixed_shape)
            )
    except (AttributeError, TypeError, ValueError):
        raise FssegError(
            f"{label}: further_losses gave {brought!r}, expected a weight from 0 and a function by name, such as "
            '{"coarse": (0.5, self.coarse_loss)}'
        ) from None
    return losses


def _require_distinct(losses: Sequence[WeightedLoss]) -> None:
    """Raises FssegError for names that would share a column of the log."""
    seen: dict[str, WeightedLoss] = {}
    for loss in losses:
        if loss.name in LOG_COLUMNS:
            raise FssegError(
                f"{loss.label}: {loss.name!r} is the name of another column of the training's log; rename the loss"
            )
        if loss.name in seen:
            raise FssegError(
                f"{loss.label} and {seen[loss.name].label} have one name, expected a column of the log for each; rename one "
                "of them"
            )
        seen[loss.name] = loss


class Objective:
    """The sum that a training minimises.

    Attributes:
        losses: The losses with their weights.
        values: Their latest values, before the weights, in one place on the device.
    """

    def __init__(self, losses: Sequence[WeightedLoss], device: torch.device) -> None:
        """Moves losses with parameters to the device."""
        self.losses = tuple(losses)
        self.values = torch.zeros(len(losses), device=device)
        for part in self.parts.values():
            part.to(device)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The losses that are modules, by the names of their parts."""
        modules = {}
        for loss in self.losses:
            if isinstance(loss.loss, nn.Module):
                modules[f"losses.{loss.name}"] = loss.loss
        return modules

    @property
    def labels(self) -> dict[str, str]:
        """What messages call the losses, by name."""
        return {loss.name: loss.label for loss in self.losses}

    def __call__(self, step: TrainingStep) -> Value:
        """The weighted sum, `sum_i weight_i loss_i`; keeps the losses in `values`.

        Raises:
            FssegError: A loss is not one number with a gradient.
        """
        values = []
        for loss in self.losses:
            values.append(loss(step))
        total = self.losses[0].weight * values[0]
        for loss, value in zip(self.losses[1:], values[1:]):
            total = total + loss.weight * value
        self.values.copy_(torch.stack(values).detach())
        return total
