"""The trained parts of a training: which components are modules, and whether gradients reach them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fsseg.errors import FssegError
from fsseg.model.variants import told_parameters, trainable
from fsseg.plugins.blame import described

ALWAYS_REACHED = ("backbone", "head")
"""Parts that every loss goes through, or that are frozen on purpose."""


def modules_of(components: Mapping[str, Any]) -> dict[str, Any]:
    """Those components, by name, that are modules: they are trained, saved and moved."""
    return {name: part for name, part in components.items() if isinstance(part, nn.Module)}


def begin_training(
    parts: Mapping[str, Any], memory_format: torch.memory_format
) -> list[nn.Parameter]:
    """Puts the parts in training mode, and the backbone's tensors in this order of memory.

    Returns:
        Their parameters that an optimiser is to change.
    """
    parts["backbone"].to(memory_format=memory_format)
    parameters: list[nn.Parameter] = []
    for part in parts.values():
        part.train()
        parameters += part.parameters()
    return [parameter for parameter in parameters if parameter.requires_grad]


class ReachedParts:
    """Watches, without asking the device, whether a gradient reaches each part that is to be trained.

    An extractor that computes without gradients, say, would stay at its initial weights, and nobody would know.
    """

    def __init__(self, parts: Mapping[str, nn.Module], training: str) -> None:
        """Watches from now on.

        Args:
            parts: The trained parts by name.
            training: What messages call the training.
        """
        self._training = training
        self._waiting: dict[str, nn.Module] = {}
        self._handles: dict[str, list[RemovableHandle]] = {}
        for name, part in parts.items():
            if name not in ALWAYS_REACHED and trainable(part):
                self._waiting[name] = part
                self._handles[name] = self._watch(name, part)

    def _watch(self, name: str, part: nn.Module) -> list[RemovableHandle]:
        handles = []
        for parameter in part.parameters():
            if parameter.requires_grad:
                hook = partial(self._reach, name)
                handles.append(parameter.register_post_accumulate_grad_hook(hook))
        return handles

    def _reach(self, name: str, parameter: Tensor) -> None:
        self._waiting.pop(name, None)
        for handle in self._handles.pop(name, []):
            handle.remove()

    def require(self) -> None:
        """Raises FssegError for a part that no gradient has reached so far."""
        for name, part in self._waiting.items():
            kind = name.partition(".")[0].replace("losses", "loss")
            raise FssegError(
                f"{self._training}: {described(kind, part)} has {told_parameters(part)}, and no gradient "
                "reached any, expected its output to depend on them; compute it without detach, no_grad or NumPy, or say "
                "requires_grad_(False) of what is to stay as it is"
            )
