"""The changes that a training step makes: to the weights, and to the averages of the score scale."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.interfaces import Optimiser as OptimiserComponent
from fsseg.model.ops import ideal_prior, resize
from fsseg.plugins.blame import described
from fsseg.recipe.tables import TrainingTable
from fsseg.recipe.updates import optimiser_of
from fsseg.system.devices import is_accelerator
from fsseg.training.course import Course
from fsseg.types import ScoreScale, margin

LEAST_DISTANCE = 1e-3
"""The running average of the distance threshold stays so far from 0 and from the square root of 2, as published."""

STATE = "optimiser"
"""The names of the optimiser's tensors in snapshots begin so."""


class Optimiser:
    """The optimiser of a training, with the rate of each step, and gradients that are clipped.

    Attributes:
        rate: The learning rate of the last step, or of the first where there was none.
        unrecordable: Why steps cannot be recorded on a GPU; None where they can.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        options: TrainingTable,
        device: torch.device,
        *,
        fused: bool,
        component: OptimiserComponent | None = None,
    ) -> None:
        """Begins with an empty state.

        Args:
            parameters: What is trained.
            options: The optimiser, its schedules and the limit of gradients.
            device: Where the parameters are.
            fused: True to update all of them in one go.
            component: Makes the optimiser; that of the options when omitted.

        Raises:
            FssegError: A component gives something else than an optimiser or a scheduler.
        """
        self._parameters = parameters
        self._clip = options.gradient_clip
        component = component or optimiser_of(options).build("optimiser")
        self._optimiser = build_optimiser(component, parameters, fused=fused)
        self._course = Course(options, self._optimiser)
        self.unrecordable: str | None = None
        if not getattr(component, "capturable", False):
            self.unrecordable = f"{described('optimiser', component)} cannot be recorded"
        elif is_accelerator(device):
            # A recording reads the rate from where it lies; a CPU takes the number itself, with all its digits.
            for group in self._optimiser.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=device)
        self.rate = self._course.at(0)[0]["lr"]

    def prepare(self, step: int) -> float:
        """Sets the numbers of a step, counted from 0; returns its learning rate."""
        of_groups = self._course.at(step)
        for group, numbers in zip(self._optimiser.param_groups, of_groups):
            for name, value in numbers.items():
                if isinstance(group[name], Tensor):
                    group[name].fill_(value)
                elif group[name] != value:
                    group[name] = value
                    self._note_change(name)
        self.rate = of_groups[0]["lr"]
        return self.rate

    def _note_change(self, name: str) -> None:
        """A recording has no number of the host's that changes."""
        if self.unrecordable is None and name != "lr":
            self.unrecordable = f"the schedule moves {name}"

    def update(self, loss: Float[Tensor, ""]) -> None:
        """Moves the parameters down the loss; each element of a gradient is clipped first."""
        loss.backward()
        nn.utils.clip_grad_value_(self._parameters, self._clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """The tensors that the optimiser keeps, by names that `has` knows; not copied.

        Raises:
            FssegError: It keeps something else than tensors, numbers and texts.
        """
        return {name: value for name, value in self._entries().items() if isinstance(value, Tensor)}

    def values(self) -> dict[str, Any]:
        """The numbers and texts that it keeps, and which of its tensors lie on the host."""
        entries = self._entries()
        plain = {name: value for name, value in entries.items() if not isinstance(value, Tensor)}
        on_host = []
        for name in entries.keys() - plain.keys():
            parameter = self._parameter_of(name)
            if entries[name].device != parameter.device:
                on_host.append(name)
        groups = [_plain_values(group) for group in self._optimiser.param_groups]
        return {"values": plain, "on_host": sorted(on_host), "groups": groups}

    def _parameter_of(self, name: str) -> nn.Parameter:
        """The parameter of which an entry is."""
        _, number, _ = name.split(".", 2)
        return self._parameters[int(number)]

    def _entries(self) -> dict[str, Any]:
        """All that it keeps of each parameter, by number and name."""
        entries = {}
        for number, parameter in enumerate(self._parameters):
            for name, value in self._optimiser.state.get(parameter, {}).items():
                if value is None:
                    continue
                if not isinstance(value, Tensor | bool | int | float | str):
                    raise FssegError(
                        f"training.optimiser: {type(self._optimiser).__name__} keeps {type(value).__name__} as {name}, "
                        "expected tensors, numbers and texts, from which a training can go on; take another optimiser"
                    )
                entries[f"{STATE}.{number}.{name}"] = value
        return entries

    def has(self, name: str) -> bool:
        """True for the name of a tensor that may be of a state."""
        part, number, _ = [*name.split(".", 2), "", ""][:3]
        return part == STATE and number.isdecimal() and int(number) < len(self._parameters)

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Takes over the state that `state` and `values` gave.

        Raises:
            KeyError: It is of another optimiser.
        """
        kept: dict[str, Any] = {name: value for name, value in tensors.items() if self.has(name)}
        kept |= values["values"]
        on_host = set(values["on_host"])
        for group, plain in zip(self._optimiser.param_groups, values["groups"], strict=True):
            for name in plain:
                group[name] = tuple(plain[name]) if isinstance(group[name], tuple) else plain[name]
        for name, value in kept.items():
            key = name.split(".", 2)[2]
            parameter = self._parameter_of(name)
            if isinstance(value, Tensor):
                value = _placed(value, parameter, on_host=name in on_host)
            self._optimiser.state[parameter][key] = value


def build_optimiser(
    component: OptimiserComponent, parameters: Sequence[nn.Parameter], *, fused: bool
) -> torch.optim.Optimizer:
    """The optimiser that a component makes of these parameters.

    Raises:
        FssegError: It makes something else.
    """
    made = component(parameters, fused=fused)
    if not isinstance(made, torch.optim.Optimizer):
        raise FssegError(
            f"{described('optimiser', component)}: gives {type(made).__name__}, expected a torch.optim.Optimizer; "
            "return one from __call__"
        )
    return made


def _plain_values(group: dict[str, Any]) -> dict[str, Any]:
    """The numbers, texts and tuples of numbers of a group of parameters."""
    kinds = (bool, int, float, str, tuple)
    return {name: value for name, value in group.items() if isinstance(value, kinds)}


def _placed(value: Tensor, parameter: nn.Parameter, *, on_host: bool) -> Tensor:
    """A tensor of a state where it was, in memory as the parameter if it is of its shape."""
    if on_host:
        return value.cpu().clone()
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).detach().copy_(value)
    return value.to(parameter.device, copy=True)


@torch.no_grad()
def update_averages(
    score: ScoreScale,
    logits: Float[Tensor, "query class h w"],
    target: Int[Tensor, "query height width"],
    rate: float,
) -> None:
    """Moves the averages of the ideal distance threshold and of the sigmas towards this episode's.

    `average <- average + rate * (value - average)`, in place: the averages are the head's own
    buffers, so that they are saved and loaded with it. The ideal distance threshold (IDT, Sec. 3.4
    of the paper) is the one at which as many pixels of the query are foreground as truly are.

    Args:
        score: The score scale before the step's update.
        logits: The query's class logits at an even prior, background first.
        target: The query's classes, 0 for the background.
        rate: The share of the new value; 0.001 in the published code.
    """
    height, width = target.shape[-2:]
    margins = resize(margin(logits)[:, None], (height, width))[:, 0]
    counts = (target > 0).sum(dim=(1, 2))
    prior = ideal_prior(margins, counts)
    distance = score.distance_at_prior(prior).mean()
    largest = math.sqrt(2) - LEAST_DISTANCE
    score.average_distance.lerp_(distance, rate)
    score.average_distance.clamp_(LEAST_DISTANCE, largest)
    score.average_sigmas.lerp_(score.sigmas, rate)
