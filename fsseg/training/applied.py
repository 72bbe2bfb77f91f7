"""The augmentations of an episode as they are applied: recorded, or where the host may be asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsseg.system.devices import send
from fsseg.training.drawn import Applied, Entry

Index = Int[Tensor, ""]
"""0 for the support, 1 for the query; on the device, so that the host need not be asked."""

Image = Float[Tensor, "*channel height width"]
Masks = Bool[Tensor, "way height width"]


@dataclass(frozen=True)
class Placed:
    """An augmentation of one slice as tensors, whose shapes do not depend on the draw.

    Attributes:
        number: The augmentation, by its place in the list.
        on: The slice.
        is_applied: Whether anything is done.
        numbers: The augmentation's numbers.
    """

    number: int
    on: Index
    is_applied: Bool[Tensor, ""]
    numbers: Float[Tensor, "number"]

    @staticmethod
    def of(applied: Applied) -> "Placed":
        """The tensors of what was drawn."""
        return Placed(
            number=applied.number,
            on=torch.tensor(applied.on),
            is_applied=torch.tensor(applied.is_applied),
            numbers=torch.from_numpy(applied.numbers),
        )

    def to(self, device: torch.device) -> "Placed":
        """The same on another device; the host does not wait for it."""
        return Placed(
            number=self.number,
            on=send(self.on, device),
            is_applied=send(self.is_applied, device),
            numbers=send(self.numbers, device),
        )

    def copy_(self, other: "Placed") -> None:
        """Takes the values of another draw, in place."""
        self.on.copy_(other.on, non_blocking=True)
        self.is_applied.copy_(other.is_applied, non_blocking=True)
        self.numbers.copy_(other.numbers, non_blocking=True)


def apply_recorded(
    entries: Sequence[Entry],
    placed: Sequence[Placed],
    images: Float[Tensor, "2 *channel height width"],
    masks: Bool[Tensor, "2 way height width"],
) -> tuple[Float[Tensor, "2 *channel height width"], Bool[Tensor, "2 way height width"]]:
    """Augments support and query by a fixed sequence of operations, without asking the host for anything."""
    for each in placed:
        entry = entries[each.number]
        image = _pick(images, each.on)
        mask = _pick(masks, each.on)
        new_image, new_mask = _call(entry, entry.augmentation, image, mask, each.numbers)
        has_moved = new_mask is not mask
        if entry.chance < 1:
            new_image = torch.where(each.is_applied, new_image, image)
            new_mask = torch.where(each.is_applied, new_mask, mask)
        images = _put(images, each.on, new_image)
        if has_moved:
            masks = _put(masks, each.on, new_mask)
    return images, masks


def apply_plainly(
    entries: Sequence[Entry],
    drawn: Sequence[Applied],
    images: Sequence[Image],
    masks: Sequence[Masks],
) -> tuple[list[Image], list[Masks]]:
    """Augments support and query where the host may be asked, and looks at what comes out.

    Args:
        entries: The augmentations.
        drawn: What was drawn.
        images: The image of the support, and that of the query.
        masks: The ways in each.

    Raises:
        PluginError: An augmentation gives values that are not finite, or leaves nothing of the masks that it was given.
    """
    new_images, new_masks = _apply_all(entries, drawn, images, masks, look=False)
    if not all(_is_finite(image) for image in new_images):
        _apply_all(entries, drawn, images, masks, look=True)
    return new_images, new_masks


def _apply_all(
    entries: Sequence[Entry],
    drawn: Sequence[Applied],
    images: Sequence[Image],
    masks: Sequence[Masks],
    *,
    look: bool,
) -> tuple[list[Image], list[Masks]]:
    """Augments support and query; with `look`, each new image is looked at."""
    new_images = list(images)
    new_masks = list(masks)
    for each in drawn:
        if not each.is_applied:
            continue
        entry = entries[each.number]
        image = new_images[each.on]
        mask = new_masks[each.on]
        call = getattr(entry.augmentation, "plainly", entry.augmentation)
        numbers = torch.from_numpy(each.numbers).to(image.device)
        new_image, new_mask = _call(entry, call, image, mask, numbers)
        if new_mask is not mask:
            _require_some_left(entry, mask, new_mask)
        if look and not _is_finite(new_image):
            raise entry.refusal(
                "gives intensities that are not finite",
                "finite ones: guard divisions, logarithms and powers",
            )
        new_images[each.on] = new_image
        new_masks[each.on] = new_mask
    return new_images, new_masks


def _call(
    entry: Entry, call: Any, image: Image, masks: Masks, numbers: Float[Tensor, "number"]
) -> tuple[Image, Masks]:
    """What an augmentation makes of a slice, whose shapes and types are looked at, which asks the device for nothing."""
    answer = call(image, masks, numbers)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise entry.refusal(f"gives {type(answer).__name__}", "a pair of image and masks")
    new_image, new_masks = answer
    for name, before, after in (("an image", image, new_image), ("masks", masks, new_masks)):
        if _kind(before) != _kind(after):
            raise entry.refusal(
                f"gives {name} of {_kind(after)}", f"{_kind(before)}, as it was given"
            )
    return new_image, new_masks


def _kind(value: Any) -> str:
    """Shape and type in words."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{' x '.join(map(str, value.shape))} {str(value.dtype).removeprefix('torch.')}"


def _require_some_left(entry: Entry, before: Masks, after: Masks) -> None:
    if not after.any() and before.any():
        raise entry.refusal(
            "leaves nothing of the masks of a slice",
            "masks that move with the pixels, and the slice as it was where nothing of them would be left",
        )


def _is_finite(image: Image) -> bool:
    """True for finite intensities; a sum tells quickly unless it is too large itself."""
    return bool(image.sum().isfinite()) or bool(image.isfinite().all())


def _pick(values: Tensor, index: Index) -> Tensor:
    """Gives `values[index]`, without asking the host for the index."""
    [value] = values.index_select(0, index[None])
    return value


def _put(values: Tensor, index: Index, value: Tensor) -> Tensor:
    """Gives a copy of `values` with another value at the index."""
    return values.index_copy(0, index[None], value[None])
