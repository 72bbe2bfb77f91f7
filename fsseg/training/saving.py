"""All that a training is at one moment, and what keeps it where it survives the process."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fsseg.training.log import PENDING

if TYPE_CHECKING:
    from fsseg.training.loop import Training


class Owner(Protocol):
    """Has tensors in snapshots besides the trained parts."""

    def has(self, name: str) -> bool:
        """True for the name of a tensor that may be one of its own."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """All that a training is at one moment.

    Attributes:
        step: The number of steps done.
        tensors: States of the trained parts and of the optimiser, and the losses since the log's last record.
        values: The log's records, the optimiser's numbers, and the states of the generators that components may draw
            from.
    """

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def require_tensors(self, shapes: Mapping[str, torch.Size], others: Iterable[Owner]) -> None:
        """Checks that its tensors are those of a training.

        Args:
            shapes: The shapes of the tensors that have to be there.
            others: What knows the names of those that may be there besides.

        Raises:
            ValueError: One is missing, or not what the training has.
        """
        for name, value in self.tensors.items():
            is_known = name == PENDING or any(other.has(name) for other in others)
            if not is_known and shapes.get(name) != value.shape:
                raise ValueError(f"{name} is not what this training has")
        if shapes.keys() - self.tensors.keys():
            raise ValueError("a part is missing")


@runtime_checkable
class Saver(Protocol):
    """Keeps a training's state where it survives the process."""

    def is_due(self, step: int) -> bool:
        """True when the training should be saved after so many steps."""
        ...

    def save(self, training: "Training") -> None:
        """Saves the training as it is."""
        ...

    def resume(self, training: "Training") -> None:
        """Brings the training to where it was saved last, if it was."""
        ...
