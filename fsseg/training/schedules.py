"""The schedules of the learning rate: those of torch, each under its name there, and the published one."""

import inspect
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from fsseg.plugins.options import component
from fsseg.recipe.updates import DECIDED_OF_SCHEDULES
from fsseg.training.signatures import Options, constructor_of

Count = Annotated[int, Field(ge=1)]

CHANGES: dict[str, tuple[Any, Any]] = {
    "total_iters": (Count | None, None),
    "T_max": (Count | None, None),
    "total_steps": (Count | None, None),
    "step_size_down": (Count | None, None),
    "milestones": (list[Count], ...),
    "step_size": (Count, ...),
    "step_size_up": (Count, ...),
    "T_0": (Count, ...),
    "T_mult": (Count, ...),
}
"""Options of another type than torch's, which does not look whether counts are positive, or of another default."""

LENGTHS = ("total_iters", "T_max", "total_steps")
"""Options that are the steps of the schedule's stretch where they are left out."""

MEANINGS = {
    "step_size": "steps between two decays",
    "gamma": "factor of a decay",
    "milestones": "steps at which the rate decays",
    "factor": "on the rate",
    "start_factor": "on the rate at the start",
    "end_factor": "on the rate at the end",
    "total_iters": "steps until the end is reached; those of the schedule's stretch when omitted",
    "T_max": "steps of half a period; those of the schedule's stretch when omitted",
    "T_0": "steps until the first restart",
    "T_mult": "factor on the steps between two restarts",
    "eta_min": "least rate",
    "power": "of the polynomial",
    "max_lr": "largest rate",
    "base_lr": "least rate",
    "total_steps": "steps of the cycle; those of the schedule's stretch when omitted",
    "pct_start": "share of the cycle in which the rate rises",
    "anneal_strategy": "how the rate falls",
    "cycle_momentum": "move the momentum (or the first of betas) against the rate",
    "base_momentum": "least momentum",
    "max_momentum": "largest momentum",
    "div_factor": "largest rate by that of the start",
    "final_div_factor": "rate of the start by that of the end",
    "three_phase": "a third phase for the end",
    "step_size_up": "steps in which the rate rises",
    "step_size_down": "steps in which it falls; as many as it rises when omitted",
    "mode": "whether cycles stay as large (triangular), halve (triangular2) or decay by gamma (exp_range)",
    "scale_mode": "what gamma's exponent counts",
}
"""What torch's options mean, by name."""


class TorchSchedule:
    """What the schedules of torch have in common; a subclass names its class of torch.

    Attributes:
        torch_class: The class of torch.
        options: The options that were written.
    """

    torch_class: ClassVar[type[LRScheduler]]
    options: Options

    def __init_subclass__(cls, of: type[LRScheduler]) -> None:
        changed: Any = cls
        changed.torch_class = of
        changed.__init__ = constructor_of(of, DECIDED_OF_SCHEDULES, MEANINGS, CHANGES, _keep)
        component(cls)

    def __call__(self, optimiser: Optimizer, steps: int) -> LRScheduler:
        """The scheduler of an optimiser.

        Args:
            optimiser: Whose rate it moves.
            steps: The steps that it is for.
        """
        arguments = inspect.signature(self.torch_class).parameters
        lengths = {name: steps for name in LENGTHS if name in arguments}
        made: Any = self.torch_class
        scheduler = made(optimiser, **(lengths | self.options))
        ends = getattr(scheduler, "total_steps", steps)
        if ends < steps:
            raise ValueError(f"total_steps is {ends}, fewer than the {steps} steps that it is for")
        return scheduler


def _keep(schedule: Any, options: Options) -> None:
    schedule.options = {name: value for name, value in options.items() if value is not None}


@component
class StepDecay:
    """The published schedule: the rate of step n, counted from 0, is `lr * factor ** (n // every)`.

    `StepLR` is the same but for round-off: it multiplies again and again.
    """

    def __init__(
        self,
        *,
        factor: Annotated[float, Field(gt=0, le=1, description="on the rate")] = 0.95,
        every: Annotated[int, Field(ge=1, description="steps between two decays")] = 1000,
    ) -> None:
        self.factor = factor
        self.every = every

    def __call__(self, optimiser: Optimizer, steps: int) -> LRScheduler:
        """The scheduler of an optimiser, whatever the number of steps."""
        return lr_scheduler.LambdaLR(optimiser, lambda step: self.factor ** (step // self.every))


class ConstantLR(TorchSchedule, of=lr_scheduler.ConstantLR):
    """A share of the rate for some steps, then the rate itself."""


class LinearLR(TorchSchedule, of=lr_scheduler.LinearLR):
    """From one share of the rate to another in a line: a warm-up, before the schedule that follows."""


class StepLR(TorchSchedule, of=lr_scheduler.StepLR):
    """A decay every so many steps."""


class MultiStepLR(TorchSchedule, of=lr_scheduler.MultiStepLR):
    """A decay at each of some steps."""


class ExponentialLR(TorchSchedule, of=lr_scheduler.ExponentialLR):
    """A decay in every step."""


class PolynomialLR(TorchSchedule, of=lr_scheduler.PolynomialLR):
    """Down to nothing along a power of the steps that are left (Chen et al., 2018: power 0.9)."""


class CosineAnnealingLR(TorchSchedule, of=lr_scheduler.CosineAnnealingLR):
    """Down along half a cosine, without restarts (Loshchilov and Hutter, 2017)."""


class CosineAnnealingWarmRestarts(TorchSchedule, of=lr_scheduler.CosineAnnealingWarmRestarts):
    """Down along half a cosine, again and again (Loshchilov and Hutter, 2017)."""


class CyclicLR(TorchSchedule, of=lr_scheduler.CyclicLR):
    """Up and down between two rates (Smith, 2017).

    Where it also moves the momentum, steps cannot be recorded on a GPU and run plain, which is slower.
    """


class OneCycleLR(TorchSchedule, of=lr_scheduler.OneCycleLR):
    """Up to the largest rate and down to almost nothing (Smith and Topin, 2018).

    Where it also moves the momentum, steps cannot be recorded on a GPU and run plain, which is slower.
    """
