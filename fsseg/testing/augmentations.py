"""Checks of augmentations."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import same
from fsseg.testing.reads import HostReads
from fsseg.training.drawn import SliceFacts

DRAWS = 8
"""Draws that are looked at."""

SHAPES = ((samples.SIZE, samples.SIZE), (24, 40), (2, samples.SIZE, samples.SIZE))
"""Shapes of slices: square, wide, and of two channels."""

LEAST_LIKENESS = 0.4
"""Correlation of an image that shows its mask alone with that mask, at least, on average."""


@check("augmentation")
def check_numbers(subject: Subject) -> None:
    """It draws finite numbers on one axis, as many each time for slices of one shape, the same from the same generator."""
    instance = subject.build()
    for shape in SHAPES:
        lengths = set()
        for seed in range(DRAWS):
            numbers = _draw(instance, shape, seed)
            if numbers.ndim != 1 or not np.isfinite(numbers).all():
                subject.fail(
                    f"expected finite numbers on one axis, got shape {numbers.shape}: {numbers[:3]}"
                )
            if not np.array_equal(numbers, _draw(instance, shape, seed)):
                subject.fail(
                    "expected the same numbers from the same generator, got others; draw from nothing else"
                )
            lengths.add(len(numbers))
        if len(lengths) > 1:
            subject.fail(
                f"expected as many numbers each time, got {sorted(lengths)}; also draw those that are not needed"
            )


@check("augmentation")
def check_image_and_masks(subject: Subject) -> None:
    """It gives an image and masks of the shapes and types that it got, and finite intensities, also of several channels."""
    instance = subject.build()
    for shape in SHAPES:
        for seed in range(DRAWS):
            image, masks = _slice(shape)
            changed = instance(image, masks, _numbers(instance, shape, seed))
            if not isinstance(changed, tuple) or len(changed) != 2:
                subject.fail(f"expected an image and its masks, got {type(changed).__name__}")
            for what, before, after in zip(("the image", "the masks"), (image, masks), changed):
                if before.shape != after.shape or before.dtype != after.dtype:
                    subject.fail(
                        f"expected {what} as {before.dtype} of {tuple(before.shape)}, got {after.dtype} of "
                        f"{tuple(after.shape)}"
                    )
            if not changed[0].isfinite().all():
                subject.fail("expected finite intensities, got some that are not")


@check("augmentation")
def check_flat_images(subject: Subject) -> None:
    """A slice of one intensity, as beside a body, gives finite intensities."""
    instance = subject.build()
    shape = SHAPES[0]
    _, masks = _slice(shape)
    for seed in range(DRAWS):
        for level in (0.0, -1.5):
            image, _ = instance(torch.full(shape, level), masks, _numbers(instance, shape, seed))
            if not image.isfinite().all():
                subject.fail(
                    f"expected finite intensities for a slice of {level} everywhere, got some that are not; guard "
                    "divisions by the range or the spread"
                )


@check("augmentation")
def check_masks_stay_on_their_image(subject: Subject) -> None:
    """Masks go where their pixels go, and something is left of them: of an image that shows its mask alone, both are alike."""
    instance = subject.build()
    shape = SHAPES[0]
    _, masks = _slice(shape)
    masks = masks[:1]
    likeness = []
    for seed in range(4 * DRAWS):
        image, moved = instance(masks[0].float(), masks, _numbers(instance, shape, seed))
        if not moved.any():
            subject.fail(
                "expected something left of the masks, got none; leave the slice as it was where they would move out of it"
            )
        likeness.append(_likeness(image, moved[0].float()))
    if np.mean(likeness) < LEAST_LIKENESS:
        subject.fail(
            f"expected masks where their image is, got a correlation of {np.mean(likeness):.2f} between an image that shows "
            "its mask alone and that mask; move masks as you move pixels, and nothing else"
        )


@check("augmentation")
def check_host_is_not_asked(subject: Subject) -> None:
    """A call asks a device for no value, so that a training step can be recorded."""
    instance = subject.build()
    for shape in SHAPES:
        image, masks = _slice(shape)
        numbers = _numbers(instance, shape, 0)
        with HostReads() as reads:
            instance(image, masks, numbers)
        if reads.seen:
            subject.fail(
                f"expected no question to the device, got {reads.seen[0]}; use torch.where in place of if, draw what is "
                "random in draw, and index with tensors by index_select"
            )


@check("augmentation")
def check_plainly(subject: Subject) -> None:
    """One with a method `plainly` gives there what it gives when it is called."""
    instance = subject.build()
    if not hasattr(instance, "plainly"):
        raise NotApplicable("it has no method plainly")
    for shape in SHAPES:
        for seed in range(DRAWS):
            image, masks = _slice(shape)
            numbers = _numbers(instance, shape, seed)
            if not same(instance(image, masks, numbers), instance.plainly(image, masks, numbers)):
                subject.fail("expected the same from `plainly` as from a call, got another slice")


def _draw(instance: Any, shape: tuple[int, ...], seed: int) -> np.ndarray:
    about = SliceFacts(shape, fill=0.5, is_query=bool(seed % 2))
    return np.asarray(instance.draw(np.random.default_rng(seed), about), dtype=np.float32)


def _numbers(instance: Any, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(_draw(instance, shape, seed))


def _slice(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A slice with two ways in it."""
    image = samples.random(*shape)
    height, width = shape[-2:]
    discs = samples.masks(2, size=max(height, width))[:, 0]
    return image, discs[:, :height, :width].contiguous()


def _likeness(image: Tensor, mask: Tensor) -> float:
    """The size of the correlation: an augmentation may turn dark into bright."""
    if image.std() < 1e-6:
        return 1.0  # it shows nothing, and nothing in the wrong place
    joined = torch.stack([image.flatten(), mask.flatten()])
    return float(torch.corrcoef(joined)[0, 1].abs())
