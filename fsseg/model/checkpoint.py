"""Trained backbones and heads as safetensors: names and numbers, nothing that could run."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.system.files import replacing

PARTS = ("backbone", "head")


def save_trained(path: Path, backbone: nn.Module, head: nn.Module) -> None:
    """Writes the states of both, from whatever device they are on."""
    save_states(
        path,
        {part: module.state_dict() for part, module in zip(PARTS, (backbone, head), strict=True)},
    )


def save_states(
    path: Path, states: dict[str, dict[str, Tensor]], metadata: dict[str, str] | None = None
) -> None:
    """Writes the state dictionaries of "backbone" and "head", with words beside them."""
    tensors = {
        f"{part}.{name}": value.contiguous().cpu()
        for part, state in states.items()
        for name, value in state.items()
    }
    write_tensors(path, tensors, metadata)


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes contiguous tensors of the CPU; the file is on the disk, and whole, before it has its name.

    Raises FssegError for a disk that is full: the library's own writer says that in an error of its own.
    """
    with replacing(path, durable=True) as unfinished:
        unfinished.write_bytes(save(tensors, metadata))


def load_trained(path: Path) -> dict[str, dict[str, Tensor]]:
    """The state dictionaries of "backbone" and "head", on the CPU."""
    return load_states(path)[0]


def load_states(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """The same, and the words beside them; raises FssegError for a file that is no safetensors."""
    states: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                part, _, rest = name.partition(".")
                states.setdefault(part, {})[rest] = file.get_tensor(name)
            return states, file.metadata() or {}
    except SafetensorError as error:
        raise FssegError(
            f"{path}: cannot be read ({error}), expected safetensors; make the file again"
        ) from None
