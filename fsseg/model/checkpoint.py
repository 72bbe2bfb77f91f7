"""Trained backbones and heads as safetensors: names and numbers, nothing that could run."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.interfaces import Backbone, Head
from fsseg.system.files import replacing

State = dict[str, Tensor]
"""A module's tensors by name."""

PARTS = ("backbone", "head")


def save_trained(path: Path, backbone: Backbone, head: Head) -> None:
    """Writes the states of a backbone and a head, from whatever device they are on."""
    save_states(path, {"backbone": backbone.state_dict(), "head": head.state_dict()})


def save_states(
    path: Path, states: dict[str, State], metadata: dict[str, str] | None = None
) -> None:
    """Writes the states of "backbone" and "head", with words beside them."""
    tensors: State = {}
    for part, state in states.items():
        for name, value in state.items():
            tensors[f"{part}.{name}"] = value.contiguous().cpu()
    write_tensors(path, tensors, metadata)


def write_tensors(path: Path, tensors: State, metadata: dict[str, str] | None = None) -> None:
    """Writes contiguous tensors of the CPU; the file is on the disk, and whole, before it has its name.

    Raises:
        FssegError: The disk is full; the library's own writer would say that in an error of its own.
    """
    with replacing(path, durable=True) as unfinished:
        unfinished.write_bytes(save(tensors, metadata))


def load_trained(path: Path) -> dict[str, State]:
    """Reads the states of "backbone" and "head", on the CPU.

    Raises:
        FssegError: The file is no safetensors.
    """
    states, _ = load_states(path)
    return states


def load_states(path: Path) -> tuple[dict[str, State], dict[str, str]]:
    """Reads the states of "backbone" and "head", on the CPU, and the words beside them.

    Raises:
        FssegError: The file is no safetensors.
    """
    states: dict[str, State] = {part: {} for part in PARTS}
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                part, _, name = key.partition(".")
                states.setdefault(part, {})[name] = file.get_tensor(key)
            return states, file.metadata() or {}
    except SafetensorError as error:
        raise FssegError(
            f"{path}: cannot be read ({error}), expected safetensors; make the file again"
        ) from None
