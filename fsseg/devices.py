"""Which device computes. The only module that names a kind of accelerator."""

import torch

from fsseg.errors import FssegError


def pick_device(name: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda"; raises FssegError for another name or an accelerator that is not there."""
    if name not in {"auto", "cpu", "cuda"}:
        raise FssegError(f"device: got {name!r}, expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise FssegError(
            "device: cuda was asked for, but torch finds no GPU; use auto or cpu, or install a matching driver"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
