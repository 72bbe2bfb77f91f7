"""Trained backbones and heads as safetensors: names and numbers, nothing that could run."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PARTS = ("backbone", "head")


def save_trained(path: Path, backbone: nn.Module, head: nn.Module) -> None:
    """Writes the states of both, from whatever device they are on."""
    tensors = {
        f"{part}.{name}": value.contiguous().cpu()
        for part, module in zip(PARTS, (backbone, head), strict=True)
        for name, value in module.state_dict().items()
    }
    save_file(tensors, path)


def load_trained(path: Path) -> dict[str, dict[str, Tensor]]:
    """The state dictionaries of "backbone" and "head", on the CPU."""
    states: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, value in load_file(path).items():
        part, _, rest = name.partition(".")
        states[part][rest] = value
    return states
