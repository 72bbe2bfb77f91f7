"""Contracts of what a training is made of: episodes, augmentations, losses, optimisers, schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from fsseg.training.drawn import SliceFacts
    from fsseg.training.pairs import Pair
    from fsseg.training.scans import TrainingScan
    from fsseg.training.step import TrainingStep


@runtime_checkable
class EpisodeSource(Protocol):
    """Draws the two slices of a training episode, and the region that both show.

    Four things more it may have:

    * `classes`, names of the dataset's classes whose labels it needs; a recipe that evaluates one of them is refused.
    * `regions(volume, supervoxels)`, which makes the regions of a scan (int32, 0 is never drawn) where they are not its
      supervoxels. The volume has the labels of `classes` alone; calling `supervoxels` cuts it.
    * `usable(scans)`, the scans that it can draw from, which `pair` is then given; it raises DataError where there is none.
    * `others(scan, pair, count, rng)`, so many further regions of the support at most, for episodes of several classes; without
      it each is tried for among all regions of the scan, as published.
    """

    def pair(self, scans: Sequence[TrainingScan], rng: np.random.Generator) -> Pair:
        """Draws a pair from this generator alone; `scan.table` has the pixels of each region in each slice."""
        ...


@runtime_checkable
class Augmentation(Protocol):
    """Changes a slice of a training episode, and its masks where it moves pixels.

    All that is random is drawn first, on the host; the slice is then changed on the device without asking the host for a
    value, by operations whose shapes do not depend on what was drawn, so that a training step can be recorded.

    One that has a method `plainly`, with the arguments of a call, has it called in place of the call where the host may be
    asked; it gives the same, perhaps sooner.
    """

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Float[np.ndarray, "number"]:
        """Draws the numbers for one slice, from this generator alone; as many each time for slices of one shape."""
        ...

    def __call__(
        self,
        image: Float[Tensor, "*channel height width"],
        masks: Bool[Tensor, "way height width"],
        numbers: Float[Tensor, "number"],
    ) -> tuple[Float[Tensor, "*channel height width"], Bool[Tensor, "way height width"]]:
        """Changes a slice, by these numbers.

        Args:
            image: The slice, after the backbone's intensity rule; a scan of several channels has an axis of them.
            masks: The ways in it.
            numbers: What `draw` drew.

        Returns:
            The image and its masks, in the shapes and types that they had. Masks that stay where they are are handed on
            as they are; those that move leave something of a way, or the slice stays as it was.
        """
        ...


@runtime_checkable
class Loss(Protocol):
    """Says how badly a training step went; training minimises the weighted sum of its losses.

    One that lacks `fixed_shape` is taken for one that has it False. One with parameters is an nn.Module, which is trained
    with the network.
    """

    fixed_shape: ClassVar[bool] = False
    """True for one whose operations are the same for every episode and never ask the host for a value: training with it
    can be recorded on a GPU."""

    def __call__(self, step: TrainingStep) -> Float[Tensor, ""]:
        """The loss as one number, which is finite and has a gradient; a step is described in `fsseg.TrainingStep`."""
        ...


@runtime_checkable
class BringsLosses(Protocol):
    """A backbone, head, extractor or threshold that brings further losses into the trainings that name it.

    Where it says `fixed_shape = True`, its losses promise what those of `Loss` do.
    """

    def further_losses(
        self,
    ) -> dict[str, tuple[float, Callable[[TrainingStep], Float[Tensor, ""]]]]:
        """By the name that is its column in the training's log, each loss with its weight, often an option.

        Asked for once, when a training begins.
        """
        ...


@runtime_checkable
class Optimiser(Protocol):
    """Makes the optimiser of what is trained; a class that lacks the attribute is taken to have it at its default."""

    capturable: ClassVar[bool] = False
    """True for one whose step never asks the host for a value and takes its rate from a tensor: training with it can be
    recorded on a GPU."""

    def __call__(self, parameters: Sequence[nn.Parameter], fused: bool) -> Optimizer:
        """Makes an optimiser of torch's, or of a class that inherits from `torch.optim.Optimizer`.

        What it keeps of a parameter in its `state` are tensors, numbers and texts, so that training can go on from a
        file. Each of its groups has a rate, `lr`.

        Args:
            parameters: What is trained, on the device.
            fused: True where the recipe wants all of them updated in one go, for optimisers that can.
        """
        ...


@runtime_checkable
class Schedule(Protocol):
    """Moves the learning rate of an optimiser from step to step."""

    def __call__(self, optimiser: Optimizer, steps: int) -> LRScheduler:
        """Makes a scheduler of torch's, or of a class that inherits from `LRScheduler`.

        A schedule knows the step and nothing else, so that a training can go on anywhere. It moves `lr`, `momentum` or
        `betas` of groups. The optimiser is a stand-in: it has the numbers of the real one, and no weights.

        Args:
            optimiser: Whose rate it moves.
            steps: The steps that it is for: the training's, or those up to the next milestone.
        """
        ...
