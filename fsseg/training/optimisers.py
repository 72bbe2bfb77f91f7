"""The optimisers: those of torch, each under its name there, with its arguments as options."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from fsseg.errors import OptionsError
from fsseg.plugins.options import component
from fsseg.recipe.updates import DECIDED_OF_OPTIMISERS
from fsseg.system.devices import is_accelerator
from fsseg.training.signatures import Options, constructor_of

MEANINGS = {
    "lr": "learning rate at the start; a schedule moves it",
    "weight_decay": "share of a weight that is added to its gradient, or taken from it where decay is decoupled",
    "decoupled_weight_decay": "weight decay apart from the gradient, as in AdamW",
    "momentum": "share of the last update in the next one",
    "dampening": "share of the gradient that momentum leaves out",
    "nesterov": "look ahead along the momentum",
    "betas": "shares that the running means of the gradient and of its square keep",
    "eps": "added to what is divided by (of Adafactor: to squared gradients, and the least scale of weights)",
    "amsgrad": "divide by the largest mean of squares so far",
    "alpha": "share that the running mean of squares keeps (of ASGD: exponent of the rate's decay)",
    "centered": "divide by the variance of the gradient",
    "rho": "share that the running means of squares keep",
    "lr_decay": "by which the rate falls with the number of steps",
    "initial_accumulator_value": "sum of squares at the start",
    "lambd": "by which the rate decays",
    "t0": "step at which averaging begins",
    "momentum_decay": "by which the momentum grows towards its limit",
    "etas": "factors on a weight's step where its gradient changes sign, and where it keeps it",
    "step_sizes": "smallest and largest step of a weight",
    "beta2_decay": "exponent of the running mean's share",
    "d": "limit of an update's root mean square",
}
"""What torch's options mean, by name."""

FUSED_ON_ACCELERATORS = ("SGD", "Adam", "AdamW")
"""Those whose update of all weights in one go torch has for GPUs as well."""


class TorchOptimiser:
    """What the optimisers of torch have in common; a subclass names its class of torch.

    Attributes:
        torch_class: The class of torch.
        capturable: True where torch can record its step on a GPU.
        options: The options that were written.
    """

    torch_class: ClassVar[type[Optimizer]]
    capturable: ClassVar[bool] = False

    options: Options

    def __init_subclass__(
        cls, of: type[Optimizer], changes: dict[str, tuple[Any, Any]] | None = None
    ) -> None:
        changed: Any = cls
        changed.torch_class = of
        changed.__init__ = constructor_of(of, DECIDED_OF_OPTIMISERS, MEANINGS, changes or {}, _keep)
        # The step of SGD has no number that the host counts.
        changed.capturable = of is torch.optim.SGD or "capturable" in _arguments(of)
        component(cls)

    def __call__(self, parameters: Sequence[nn.Parameter], fused: bool) -> Optimizer:
        """The optimiser of these weights.

        Args:
            parameters: What is trained.
            fused: True to update all of them in one go, where torch can.
        """
        options = dict(self.options)
        accelerated = is_accelerator(parameters[0].device)
        arguments = _arguments(self.torch_class)
        if "fused" in arguments and (
            not accelerated or self.torch_class.__name__ in FUSED_ON_ACCELERATORS
        ):
            options["fused"] = fused
        if "capturable" in arguments:
            # Also where steps are not recorded: digits do not depend on it then.
            options["capturable"] = accelerated
        made: Any = self.torch_class
        return made(parameters, **options)


def _arguments(torch_class: type) -> Any:
    return inspect.signature(torch_class).parameters


def _keep(optimiser: Any, options: Options) -> None:
    """Keeps the options, if torch takes them.

    Raises:
        OptionsError: It does not.
    """
    options = {name: value for name, value in options.items() if value is not None}
    refused = _refusal(optimiser.torch_class, options)
    if refused:
        at_fault = [
            name
            for name in options
            if not _refusal(optimiser.torch_class, {k: v for k, v in options.items() if k != name})
        ]
        name = optimiser.torch_class.__name__
        sentence = f"torch.optim.{name} refuses it ({refused}); give what its documentation allows"
        key = at_fault[0] if at_fault else next(iter(options))
        raise OptionsError(type(optimiser), [(key, sentence)])
    optimiser.options = options


def _refusal(torch_class: Any, options: Options) -> str:
    """What torch says against these options; empty if nothing."""
    try:
        torch_class([nn.Parameter(torch.zeros(1))], **options)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


class SGD(TorchOptimiser, of=torch.optim.SGD):
    """Stochastic gradient descent, with momentum if wanted.

    With the published numbers it is what a recipe trains with that names no optimiser.
    """


class Adam(TorchOptimiser, of=torch.optim.Adam):
    """Steps scaled by running means of the gradient and of its square (Kingma and Ba, 2015)."""


class AdamW(TorchOptimiser, of=torch.optim.AdamW):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019)."""


class NAdam(TorchOptimiser, of=torch.optim.NAdam):
    """Adam with Nesterov's momentum (Dozat, 2016)."""


class RAdam(TorchOptimiser, of=torch.optim.RAdam):
    """Adam whose first steps are corrected for the variance of its means (Liu et al., 2020)."""


class Adamax(TorchOptimiser, of=torch.optim.Adamax):
    """Adam with the largest gradient in place of the mean of squares (Kingma and Ba, 2015)."""


class Adafactor(
    TorchOptimiser,
    of=torch.optim.Adafactor,
    changes={"eps": (tuple[float, float] | None, None)},  # torch's default holds a None
):
    """Means of squares kept by rows and columns, which takes less memory (Shazeer and Stern, 2018).

    Its step cannot be recorded on a GPU; steps run plain there, which is slower.
    """


class Adadelta(TorchOptimiser, of=torch.optim.Adadelta):
    """Steps scaled by running means of squared gradients and squared steps (Zeiler, 2012)."""


class Adagrad(TorchOptimiser, of=torch.optim.Adagrad):
    """Steps scaled by the sum of all squared gradients (Duchi et al., 2011).

    Its step cannot be recorded on a GPU; steps run plain there, which is slower.
    """


class ASGD(TorchOptimiser, of=torch.optim.ASGD):
    """Stochastic gradient descent whose rate decays by itself (Polyak and Juditsky, 1992).

    What is trained, saved and evaluated are the weights themselves, not their average.
    """


class RMSprop(TorchOptimiser, of=torch.optim.RMSprop):
    """Steps scaled by a running mean of squared gradients (Hinton, 2012)."""


class Rprop(TorchOptimiser, of=torch.optim.Rprop):
    """Steps by the sign of the gradient alone (Riedmiller and Braun, 1993)."""
