"""Which device computes, and what is particular about it. The only module that names a kind of accelerator."""

import torch
from torch import Tensor

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


def send(values: Tensor, device: torch.device) -> Tensor:
    """The same values on a device, without waiting for it; themselves where they are there already."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)  # of other memory the copy would wait for the device
    return values.to(device)
