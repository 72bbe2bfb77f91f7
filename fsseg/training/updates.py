"""The changes that a training step makes: to the weights, and to the averages of the score scale."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsseg.model.ops import ideal_prior, resize
from fsseg.recipe.tables import TrainingTable
from fsseg.system.devices import is_accelerator
from fsseg.types import ScoreScale, margin

LEAST_DISTANCE = 1e-3
"""The running average of the distance threshold stays so far from 0 and from the square root of 2, as published."""

STATE = "optimiser"
"""The names of the optimiser's tensors in snapshots begin so."""


class Optimiser:
    """SGD with momentum and weight decay, clipped gradients, and a rate that falls in steps.

    The rate of step n, counted from 0, is `learning_rate * decay ** (n // decay_every)`.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        options: TrainingTable,
        device: torch.device,
        *,
        fused: bool,
    ) -> None:
        """Begins without momentum.

        Args:
            parameters: What is trained.
            options: Rate, decay, momentum, weight decay and the limit of gradients.
            device: Where the parameters are.
            fused: True to update all of them in one go.
        """
        self._parameters = parameters
        self._options = options
        # A recording reads the rate from where it lies; a CPU takes the number itself, with all its digits.
        self._rate: Tensor | None = None
        if is_accelerator(device):
            self._rate = torch.tensor(options.learning_rate, device=device)
        self._sgd = torch.optim.SGD(
            parameters,
            lr=options.learning_rate if self._rate is None else self._rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=fused,
        )

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        decays = step // self._options.decay_every
        return self._options.learning_rate * self._options.decay**decays

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate of the next update."""
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self._sgd.param_groups:
            group["lr"] = rate

    def update(self, loss: Float[Tensor, ""]) -> None:
        """Moves the parameters down the loss; each element of a gradient is clipped first."""
        loss.backward()
        nn.utils.clip_grad_value_(self._parameters, self._options.gradient_clip)
        self._sgd.step()
        self._sgd.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """The momenta so far, by names that `shapes` knows."""
        tensors = {}
        for number, parameter in enumerate(self._parameters):
            state = self._sgd.state[parameter]
            for name, value in state.items():
                if value is not None:
                    tensors[f"{STATE}.{number}.{name}"] = value
        return tensors

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of every tensor that a state may have."""
        shapes = {}
        for number, parameter in enumerate(self._parameters):
            shapes[f"{STATE}.{number}.momentum_buffer"] = parameter.shape
        return shapes

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes over those of the tensors that are of a state."""
        for name, value in tensors.items():
            part, _, place = name.partition(".")
            if part != STATE:
                continue
            number, key = place.split(".")
            parameter = self._parameters[int(number)]
            momentum = torch.empty_like(parameter).detach().copy_(value)
            self._sgd.state[parameter][key] = momentum


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
