"""The speed of a training: what a recipe leaves open is decided for a device and a network."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch

from fsseg.interfaces import Backbone
from fsseg.recipe.tables import SpeedTable
from fsseg.system.devices import gains_from_bfloat16, is_accelerator
from fsseg.training.episodes import EpisodeSampler


@dataclass(frozen=True)
class Speed:
    """How a training is run on a device, with everything that a recipe leaves open decided.

    Attributes:
        precision: Of the network, "float32" or "bfloat16"; cosines, margins and losses are float32
            in any case.
        capture: True where steps have fixed shapes and are recorded if the device can.
        channels_last: True where the network's weights have their channels last.
        fused: True where the optimiser updates all weights in one go.
    """

    precision: str
    capture: bool
    channels_last: bool
    fused: bool

    @property
    def memory_format(self) -> torch.memory_format:
        """The order of the axes of the network's weights in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def precision_of_network(self, device: torch.device) -> AbstractContextManager:
        """Within this block the network computes with its precision."""
        return torch.autocast(
            device.type,
            torch.bfloat16,
            enabled=self.precision == "bfloat16",
            cache_enabled=False,  # each weight is used once in a step
        )


def choose_speed(
    table: SpeedTable,
    device: torch.device,
    backbone: Backbone,
    components: Sequence[Any],
    sampler: EpisodeSampler,
) -> Speed:
    """Decides what the recipe leaves open.

    Args:
        table: The recipe's.
        device: Where the training computes.
        backbone: The network, whose layers tell if bfloat16 is faster.
        components: What computes with the network; only what never asks the host can have fixed shapes. None for one that
            the training does not have.
        sampler: Where episodes come from; only slices of one size have fixed shapes.
    """
    precision = table.precision
    if precision == "auto":
        precision = (
            "bfloat16"
            if gains_from_bfloat16(device, cast(torch.nn.Module, backbone))
            else "float32"
        )
    can_capture = _have_fixed_shapes(components, sampler)
    return Speed(
        precision=precision,
        capture=can_capture and _wants_capture(table, device),
        channels_last=table.channels_last,
        fused=table.fused,
    )


def _wants_capture(table: SpeedTable, device: torch.device) -> bool:
    if table.capture == "auto":
        return table.fused and is_accelerator(device)
    return table.capture == "on"


def _have_fixed_shapes(components: Sequence[Any], sampler: EpisodeSampler) -> bool:
    there = [component for component in components if component is not None]
    say_so = [getattr(component, "fixed_shape", False) for component in there]
    return all(say_so) and sampler.slice_size is not None
