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
from torch import device as Device

from fsseg.system.devices import random_state, set_random_state


@dataclass(frozen=True)
class Generators:
    """The states at one moment; `device` is None for a CPU."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    device: Tensor | None

    @staticmethod
    def now(device: Device) -> "Generators":
        """Returns the states as they are."""
        numpy_state: Any = np.random.get_state()
        device_state = random_state(device)
        return Generators(random.getstate(), numpy_state, torch.get_rng_state(), device_state)

    @staticmethod
    def seeded(device: Device, *seeds: int) -> "Generators":
        """Returns states that follow from these numbers."""
        with preserved(device):
            words = np.random.SeedSequence(seeds).generate_state(3)
            random.seed(int(words[0]))
            np.random.seed(int(words[1]))
            torch.manual_seed(int(words[2]))
            return Generators.now(device)

    def take_over(self, device: Device) -> None:
        """Makes the generators go on from these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        set_random_state(self.device, device)

    def dumps(self) -> dict[str, Any]:
        """Returns the states as plain values, from which `loads` makes them again."""
        version, words, gauss = self.python
        name, key, *rest = self.numpy
        return {
            "python": [version, list(words), gauss],
            "numpy": [name, key.tolist(), *rest],
            "torch": _hexadecimal(self.torch),
            "device": None if self.device is None else _hexadecimal(self.device),
        }

    @staticmethod
    def loads(values: dict[str, Any]) -> "Generators":
        """Returns the states of `dumps`; raises ValueError, TypeError or KeyError for values that are none."""
        version, words, gauss = values["python"]
        name, key, *rest = values["numpy"]
        device = None if values["device"] is None else _tensor(values["device"])
        return Generators(
            python=(version, tuple(words), gauss),
            numpy=(name, np.array(key, dtype=np.uint32), *rest),
            torch=_tensor(values["torch"]),
            device=device,
        )


@contextmanager
def preserved(device: Device) -> Iterator[None]:
    """Keeps the states: after this block they are as before it."""
    outer = Generators.now(device)
    try:
        yield
    finally:
        outer.take_over(device)


@contextmanager
def seeded(device: Device, *seeds: int) -> Iterator[None]:
    """Lets all generators begin at a state that follows from these numbers in this block; afterwards they are as before."""
    with preserved(device):
        Generators.seeded(device, *seeds).take_over(device)
        yield


def _hexadecimal(state: Tensor) -> str:
    return state.numpy().tobytes().hex()


def _tensor(hexadecimal: str) -> Tensor:
    state = np.frombuffer(bytes.fromhex(hexadecimal), dtype=np.uint8)
    return torch.from_numpy(state.copy())
