"""Checks of backbones."""

from collections.abc import Callable

import torch
from torch import Tensor

from fsseg.model.inputs import channels_of
from fsseg.plugins.manager import registry
from fsseg.testing import samples
from fsseg.testing.contract import Subject, check
from fsseg.testing.exercises import same


@check("backbone")
def check_channels_and_stride(subject: Subject) -> None:
    """`channels` and `stride` are those of its features, for images of eight times the stride."""
    backbone = subject.build().eval()
    channels = backbone.channels
    stride = backbone.stride
    if not (isinstance(channels, int) and isinstance(stride, int)):
        subject.fail(f"expected whole numbers, got channels {channels!r} and stride {stride!r}")
    side = 8 * stride
    got = tuple(_features(backbone, side, side).shape)
    expected = (1, channels, 8, 8)
    if got != expected:
        subject.fail(
            f"expected features of shape {expected} from a {side} x {side} slice, got {got}"
        )


@check("backbone")
def check_odd_sizes(subject: Subject) -> None:
    """Images whose sides are no multiple of the stride give features of the nearest size, one cell more or less."""
    backbone = subject.build().eval()
    height = 8 * backbone.stride - 3
    width = 5 * backbone.stride + 1
    features = _features(backbone, height, width)
    rows = height / backbone.stride
    columns = width / backbone.stride
    h, w = features.shape[-2:]
    is_near = abs(h - rows) <= 1 and abs(w - columns) <= 1
    is_finite = features.isfinite().all()
    if features.shape[1] != backbone.channels or not is_near or not is_finite:
        subject.fail(
            f"expected finite features of {backbone.channels} channels and about {rows:.1f} x {columns:.1f} cells from a "
            f"{height} x {width} slice, got {tuple(features.shape)}"
        )


@check("backbone")
def check_slices_are_encoded_by_themselves(subject: Subject) -> None:
    """In evaluation mode a slice's features do not depend on the other slices of the batch."""
    backbone = subject.build().eval()
    images = samples.random(3, channels_of(backbone), 64, 64)
    with torch.no_grad():
        together = backbone(images)[1:2]
        alone = backbone(images[1:2])
    # Weights that nobody trained give numbers of any size.
    scale = together.abs().max().clamp(min=1e-6)
    if not same(together / scale, alone / scale, 1e-3):
        subject.fail(
            "expected a slice's features to be the same in a batch and alone, got others; see eval()"
        )


@check("backbone")
def check_intensity_rule(subject: Subject) -> None:
    """`intensity` is the name of a rule by which scans are scaled."""
    rule = subject.build().intensity
    known = registry().names("intensity")
    if rule not in known:
        subject.fail(f"expected intensity to be one of {', '.join(known)}, got {rule!r}")


@check("backbone")
def check_channels_of_slices(subject: Subject) -> None:
    """`context` and `in_channels`, if it has them, are whole numbers, and it takes the channels that follow from them."""
    backbone = subject.build().eval()
    for name, least in (("context", 0), ("in_channels", 1)):
        value = getattr(backbone, name, least)
        if not isinstance(value, int) or value < least:
            subject.fail(f"expected {name} to be a whole number from {least}, got {value!r}")
    side = 8 * backbone.stride
    try:
        _features(backbone, side, side)
    except Exception as error:
        subject.fail(
            f"expected features from slices of {channels_of(backbone)} channels, which follow from its context and "
            f"in_channels, got {type(error).__name__}: {error}"
        )


def _features(backbone: Callable[[Tensor], Tensor], height: int, width: int) -> Tensor:
    with torch.no_grad():
        return backbone(samples.random(1, channels_of(backbone), height, width))
