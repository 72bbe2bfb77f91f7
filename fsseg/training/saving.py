"""All that a training is at one moment, and what keeps it where it survives the process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from fsseg.training.loop import Training


@dataclass(frozen=True)
class Snapshot:
    """All that a training is at one moment.

    Attributes:
        step: The number of steps done.
        tensors: States of backbone, head and optimiser, and the losses since the log's last record.
        values: The log's records, and the states of the generators that components may draw from.
    """

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


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
