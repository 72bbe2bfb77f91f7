"""Checks of backbones and of class heads."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fsseg.data.intensity import RULES
from fsseg.errors import FssegError
from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import same

TOLERANCE = 1e-4


@check("backbone")
def check_channels_and_stride(subject: Subject) -> None:
    """`channels` and `stride` are those of its features, for images of eight times the stride."""
    backbone = subject.build().eval()
    if not (isinstance(backbone.channels, int) and isinstance(backbone.stride, int)):
        subject.fail(
            f"expected whole numbers, got channels {backbone.channels!r} and stride {backbone.stride!r}"
        )
    side = 8 * backbone.stride
    got = tuple(_features(backbone, 1, side, side).shape)
    expected = (1, backbone.channels, 8, 8)
    if got != expected:
        subject.fail(
            f"expected features of shape {expected} from a {side} x {side} slice, got {got}"
        )


@check("backbone")
def check_odd_sizes(subject: Subject) -> None:
    """Images whose sides are no multiple of the stride give features of the nearest size, one cell more or less."""
    backbone = subject.build().eval()
    height, width = 8 * backbone.stride - 3, 5 * backbone.stride + 1
    features = _features(backbone, 1, height, width)
    off = [
        abs(got - side / backbone.stride) for got, side in zip(features.shape[-2:], (height, width))
    ]
    if features.shape[1] != backbone.channels or max(off) > 1 or not features.isfinite().all():
        subject.fail(
            f"expected finite features of {backbone.channels} channels and about {height / backbone.stride:.1f} x "
            f"{width / backbone.stride:.1f} cells from a {height} x {width} slice, got {tuple(features.shape)}"
        )


@check("backbone")
def check_slices_are_encoded_by_themselves(subject: Subject) -> None:
    """In evaluation mode a slice's features do not depend on the other slices of the batch."""
    backbone = subject.build().eval()
    images = samples.random(3, 3, 64, 64)
    with torch.no_grad():
        together, alone = backbone(images)[1:2], backbone(images[1:2])
        scale = (
            together.abs().max().clamp(min=1e-6)
        )  # weights that nobody trained give numbers of any size
        if not same(together / scale, alone / scale, 1e-3):
            subject.fail(
                "expected a slice's features to be the same in a batch and alone, got others; see eval()"
            )


@check("backbone")
def check_intensity_rule(subject: Subject) -> None:
    """`intensity` is the name of a rule by which scans are scaled."""
    rule = subject.build().intensity
    if rule not in RULES:
        subject.fail(f"expected intensity to be one of {', '.join(RULES)}, got {rule!r}")


def _features(backbone: Callable[[Tensor], Tensor], slices: int, height: int, width: int) -> Tensor:
    with torch.no_grad():
        return backbone(samples.random(slices, 3, height, width))


@check("head")
def check_a_logit_per_class(subject: Subject) -> None:
    """One logit for the background, which is first, and one per way, at the resolution of the features."""
    head = subject.build().eval()
    for ways in _ways_it_takes(subject):
        features = samples.query_features()
        got = tuple(head(features, samples.prototypes(ways)).shape)
        expected = (len(features), ways + 1, *features.shape[-2:])
        if got != expected:
            subject.fail(
                f"expected logits of shape {expected} for {ways} ways, background first, got {got}"
            )


@check("head")
def check_likeness_is_foreground(subject: Subject) -> None:
    """Where a feature is a way's prototype, the way's margin over the background is larger than at its opposite."""
    head, made = subject.build().eval(), samples.prototypes()
    prototype = made.foreground[0, 0][None, :, None, None].expand(1, -1, 4, 4)
    with torch.no_grad():
        margins = [
            float((head(sign * prototype, made)[:, 1] - head(sign * prototype, made)[:, 0]).mean())
            for sign in (1, -1)
        ]
    if not margins[0] > margins[1]:
        subject.fail(
            f"expected a larger margin at the prototype than at its opposite, got {margins[0]:.3g} and {margins[1]:.3g}; "
            "the background's logit comes first"
        )


@check("head")
def check_order_of_ways(subject: Subject) -> None:
    """Ways in another order give the same logits in that order."""
    head, made, order = subject.build().eval(), samples.prototypes(3), [2, 0, 1]
    if 3 not in _ways_it_takes(subject):
        raise NotApplicable("it takes one way only")
    features = samples.query_features()
    with torch.no_grad():
        logits = head(features, made)
        moved = head(
            features, replace(made, foreground=made.foreground[order], weights=made.weights[order])
        )
    if not same(logits[:, [0, *[1 + way for way in order]]], moved, TOLERANCE):
        subject.fail(
            "expected ways in another order to give the same logits in that order, got others"
        )


@check("head")
def check_slices_are_scored_by_themselves(subject: Subject) -> None:
    """A slice's logits do not depend on the other slices of the query."""
    head, made, features = subject.build().eval(), samples.prototypes(), samples.query_features()
    with torch.no_grad():
        together, alone = head(features, made)[2:3], head(features[2:3], made)
    if not same(together, alone, TOLERANCE):
        subject.fail(
            "expected a slice's logits to be the same with other slices and alone, got others"
        )


@check("head")
def check_finite(subject: Subject) -> None:
    """Logits are finite, also for features and prototypes of zeros and for large ones."""
    head, made, features = subject.build().eval(), samples.prototypes(), samples.query_features()
    nothing = replace(
        made,
        foreground=torch.zeros_like(made.foreground),
        background=torch.zeros_like(made.background),
    )
    absent = replace(nothing, weights=torch.zeros_like(nothing.weights))
    cases = {
        "features of zeros": (torch.zeros_like(features), made),
        "large features": (1e4 * features, made),
        "prototypes of zeros": (features, nothing),
        "prototypes of zeros with weight 0": (features, absent),
    }
    for name, (given, prototypes) in cases.items():
        with torch.no_grad():
            logits = head(given, prototypes)
        if (
            not logits.isfinite().all()
            and name != "prototypes of zeros with weight 0"
            or logits.isnan().any()
        ):
            subject.fail(
                f"expected finite logits for {name}, got some that are not; bound norms from below"
            )


@check("head")
def check_differentiable(subject: Subject) -> None:
    """Gradients reach the query's features and the prototypes, and are finite."""
    head, made = subject.build().train(), samples.prototypes()
    features, foreground = (
        samples.query_features().requires_grad_(),
        made.foreground.clone().requires_grad_(),
    )
    logits = head(features, replace(made, foreground=foreground))
    if not logits.requires_grad:
        subject.fail(
            "expected logits with a gradient, got none; do not detach, and use no .data or NumPy"
        )
    logits.log_softmax(dim=1)[:, 1].sum().backward()
    for name, given in (("features", features), ("prototypes", foreground)):
        if given.grad is None or not given.grad.isfinite().all() or not given.grad.any():
            subject.fail(
                f"expected finite gradients that are not all zero for the {name}, got {_told(given.grad)}"
            )


@check("head")
def check_padding(subject: Subject) -> None:
    """Prototypes of weight 0 are padding and change nothing."""
    head, made, features = (
        subject.build().eval(),
        samples.prototypes(1, 2),
        samples.query_features(),
    )
    extra = samples.random(1, 2, samples.CHANNELS, seed=9)
    padded = replace(
        made,
        foreground=torch.cat([made.foreground, extra], dim=1),
        weights=torch.cat([made.weights, torch.zeros(1, 2)], dim=1),
    )
    with torch.no_grad():
        try:
            logits, with_padding = head(features, made), head(features, padded)
        except FssegError as error:
            raise NotApplicable(f"it takes one prototype only ({error})") from None
    if not same(logits, with_padding, TOLERANCE):
        subject.fail(
            "expected prototypes of weight 0 to change nothing, got other logits; mask them"
        )


def _ways_it_takes(subject: Subject) -> list[int]:
    """One, and three unless it says in an FssegError that it does not."""
    try:
        with torch.no_grad():
            subject.build().eval()(samples.query_features(), samples.prototypes(3))
    except FssegError:
        return [1]
    return [1, 3]


def _told(gradient: Tensor | None) -> str:
    if gradient is None:
        return "none"
    return "zeros" if not gradient.any() else "some that are not finite"
