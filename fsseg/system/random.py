"""The state of the generators that code may draw from without naming one: torch's, numpy's and Python's own.

What fsseg draws it draws from generators of its own. Components of others may not; with these, a stage begins at a state
that follows from its seed alone, and a training that is taken up again goes on with the state it had.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsseg.system.devices import random_state, set_random_state


@dataclass(frozen=True)
class Generators:
    """The states at one moment; `device` is None for a CPU."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    device: Tensor | None

    @staticmethod
    def now(device: torch.device) -> "Generators":
        """The states as they are."""
        return Generators(
            random.getstate(), np.random.get_state(), torch.get_rng_state(), random_state(device)
        )

    @staticmethod
    def seeded(device: torch.device, *seeds: int) -> "Generators":
        """States that follow from these numbers."""
        with preserved(device):
            words = np.random.SeedSequence(seeds).generate_state(3)
            random.seed(int(words[0]))
            np.random.seed(int(words[1]))
            torch.manual_seed(int(words[2]))
            return Generators.now(device)

    def take_over(self, device: torch.device) -> None:
        """Makes them the states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        set_random_state(self.device, device)

    def dumps(self) -> dict[str, Any]:
        """As plain values."""
        name, words, *rest = self.numpy
        return {
            "python": [self.python[0], list(self.python[1]), self.python[2]],
            "numpy": [name, words.tolist(), *rest],
            "torch": self.torch.numpy().tobytes().hex(),
            "device": None if self.device is None else self.device.numpy().tobytes().hex(),
        }

    @staticmethod
    def loads(values: dict[str, Any]) -> "Generators":
        """From plain values; raises ValueError, TypeError or KeyError for what are none."""
        version, words, gauss = values["python"]
        name, key, *rest = values["numpy"]
        device = None if values["device"] is None else _tensor(values["device"])
        python, numpy = (
            (version, tuple(words), gauss),
            (name, np.array(key, dtype=np.uint32), *rest),
        )
        return Generators(python, numpy, _tensor(values["torch"]), device)


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """After this block the states are as before it."""
    outer = Generators.now(device)
    try:
        yield
    finally:
        outer.take_over(device)


@contextmanager
def seeded(device: torch.device, *seeds: int) -> Iterator[None]:
    """In this block all generators begin at a state that follows from these numbers; afterwards they are as before."""
    with preserved(device):
        Generators.seeded(device, *seeds).take_over(device)
        yield


def _tensor(hexadecimal: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytes.fromhex(hexadecimal), dtype=np.uint8).copy())
