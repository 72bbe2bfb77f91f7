"""Segmenters without prototypes: a whole one stands where a head does, so that everything around a head serves it too."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.interfaces import WholeSegmenter
from fsseg.plugins.blame import described
from fsseg.types import Prototypes, QueryVolume

ABSENT = -1e4
"""The logit of a way that is not there, as in steps of fixed shape, which fill up the ways of an episode."""


class NoPrototypes:
    """The extractor beside a whole segmenter: each way has no prototype at all."""

    fixed_shape: ClassVar[bool] = True
    background: ClassVar[bool] = False

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        """Prototypes `way 0 channel`."""
        ways, _, channels = features.shape[:3]
        return Prototypes(features.new_zeros(ways, 0, channels), features.new_zeros(ways, 0))


class WholeHead(nn.Module):
    """A whole segmenter in the place of a head: it sees images and masks, and no feature.

    Example:
        >>> import torch
        >>> from fsseg import CeT, Query, Segmenter, Support, TimmBackbone
        >>> from fsseg.model.whole import NoPrototypes, WholeHead
        >>> class Brightness:
        ...     def __call__(self, support, query):
        ...         typical = support.images[support.masks].mean()
        ...         foreground = 1 - (query.images - typical).abs()
        ...         return torch.stack([torch.zeros_like(foreground), foreground], dim=1)
        >>> backbone = TimmBackbone(model="resnet18", strides=[8])  # its features are for thresholds and refiners
        >>> segmenter = Segmenter(backbone, NoPrototypes(), WholeHead(Brightness()), CeT()).eval()
        >>> image = torch.zeros(1, 1, 64, 64)
        >>> image[..., 20:40, 20:40] = 5.0
        >>> support = Support(image, image > 0, torch.tensor([[0.5]]))
        >>> with torch.no_grad():
        ...     labels = segmenter(support, Query(image[0], torch.zeros(1))).labels
        >>> int(labels.sum())
        400
    """

    score: ClassVar[None] = None
    sigma: ClassVar[None] = None
    sees_support: ClassVar[bool] = True
    all_at_once: ClassVar[bool] = True

    def __init__(self, segmenter: WholeSegmenter) -> None:
        """Puts a segmenter into a head's place; one that is a module is trained and moved with it."""
        super().__init__()
        self.segmenter: Any = segmenter

    def forward(
        self,
        features: Float[Tensor, "query channel h w"],
        prototypes: Prototypes,
        volume: QueryVolume,
    ) -> Float[Tensor, "query class own_h own_w"]:
        """The segmenter's logits; a way whose masks are empty is not there, and gets none of a pixel.

        Raises:
            FssegError: They are not one for the background and one for each way, of each slice.
        """
        logits = self.segmenter(volume.support, volume.query)
        expected = (len(volume.query.images), len(volume.support.masks) + 1)
        if logits.ndim != 4 or tuple(logits.shape[:2]) != expected:
            raise FssegError(
                f"{described('segmenter', self.segmenter)}: its logits have the shape {tuple(logits.shape)}, expected "
                f"{expected[0]} slices x {expected[1]} classes, background first, x height x width"
            )
        is_there = volume.support.masks.flatten(1).any(dim=1)[:, None, None]
        background, foreground = logits[:, :1], logits[:, 1:]
        return torch.cat([background, torch.where(is_there, foreground, ABSENT)], dim=1)


def in_place(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a variant or a training with a whole `segmenter`, if there is one, in place of `prototypes` and `head`."""
    placed = dict(parts)
    segmenter = placed.pop("segmenter", None)
    if segmenter is not None:
        placed |= {"prototypes": NoPrototypes(), "head": WholeHead(segmenter)}
    return placed


def role_of(head: Any) -> tuple[str, Any]:
    """What messages call a head: its kind and itself, or the whole segmenter that stands in its place."""
    if isinstance(head, WholeHead):
        return "segmenter", head.segmenter
    return "head", head
