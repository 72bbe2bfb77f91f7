"""The trained parts of a segmenter as safetensors: names and numbers, nothing that could run."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.interfaces import Trained
from fsseg.system.files import replacing

State = dict[str, Tensor]
"""A module's tensors by name."""

ALWAYS = ("backbone", "head")
"""The parts that every training has."""

PARTS = (*ALWAYS, "prototypes", "threshold", "losses")
"""The parts that a training may have; those of several losses are told apart behind the name."""


def save_trained(path: Path, parts: Mapping[str, Trained]) -> None:
    """Writes the states of the trained parts by name, from whatever device they are on."""
    save_states(path, {name: part.state_dict() for name, part in parts.items()})


def save_states(
    path: Path, states: dict[str, State], metadata: dict[str, str] | None = None
) -> None:
    """Writes the states of trained parts by name, with words beside them."""
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
    """Reads the states of the trained parts by name, on the CPU.

    Raises:
        FssegError: The file is no safetensors.
    """
    states, _ = load_states(path)
    return states


def load_into(module: nn.Module, state: State, what: str) -> None:
    """Loads a state into a module that has just these tensors.

    Args:
        module: The module.
        state: Its tensors by name.
        what: What messages call it: where the state is from, and whose it is.

    Raises:
        FssegError: Tensors are missing or too many, of other shapes, or of whole numbers in place of others.
    """
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        expected = _described(own.get(name))
        got = _described(state.get(name))
        if expected != got:
            raise FssegError(
                f"{what}: {name} is {got}, expected {expected}; run the recipe again, or export it again"
            )
    module.load_state_dict(state)


def _described(tensor: Tensor | None) -> str:
    """A tensor in words, as far as another has to be like it."""
    if tensor is None:
        return "not there"
    kind = "numbers" if tensor.is_floating_point() else f"{tensor.dtype}".removeprefix("torch.")
    return f"{kind} of shape {list(tensor.shape)}"


def load_states(path: Path) -> tuple[dict[str, State], dict[str, str]]:
    """Reads the states of the trained parts by name, on the CPU, and the words beside them.

    Files of earlier versions hold a backbone and a head alone.

    Raises:
        FssegError: The file is no safetensors, holds tensors of something else, or numbers that are not finite in single
            precision.
    """
    states: dict[str, State] = {part: {} for part in ALWAYS}
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                part, _, name = key.partition(".")
                if part not in PARTS:
                    raise FssegError(
                        f"{path}: holds a tensor {key!r}, expected names that begin with {' or '.join(PARTS)} and a dot; "
                        "make the file again"
                    )
                states.setdefault(part, {})[name] = _finite(path, key, file.get_tensor(key))
            return states, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FssegError(
            f"{path}: cannot be read ({error}), expected safetensors; make the file again"
        ) from None


def _finite(path: Path, key: str, tensor: Tensor) -> Tensor:
    """The tensor; raises FssegError where a number of it is not finite in single precision, in which it is used."""
    if tensor.is_floating_point() and not tensor.float().isfinite().all():
        raise FssegError(
            f"{path}: {key} is not finite, expected weights that are numbers; the file is damaged, or its training diverged: "
            "train again, with a lower learning rate"
        )
    return tensor
