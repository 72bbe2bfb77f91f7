"""Checks of class heads."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.model.scoring import sees_support
from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import same
from fsseg.types import Prototypes, QueryVolume

TOLERANCE = 1e-4


@check("head")
def check_a_logit_per_class(subject: Subject) -> None:
    """One logit for the background, which is first, and one per way, at the resolution of the features."""
    head = subject.build().eval()
    features = samples.query_features()
    for ways in _ways_it_takes(subject):
        logits = _call(head, features, samples.prototypes(ways))
        got = tuple(logits.shape)
        expected = (len(features), ways + 1, *features.shape[-2:])
        if got != expected:
            subject.fail(
                f"expected logits of shape {expected} for {ways} ways, background first, got {got}"
            )


@check("head")
def check_likeness_is_foreground(subject: Subject) -> None:
    """Where a feature is a way's prototype, the way's margin over the background is larger than at its opposite."""
    head = subject.build().eval()
    prototypes = samples.prototypes()
    vector = prototypes.foreground[0, 0].view(1, -1, 1, 1)
    like = vector.expand(1, -1, 4, 4)
    at_prototype = _margin(head, like, prototypes)
    at_opposite = _margin(head, -like, prototypes)
    if not at_prototype > at_opposite:
        subject.fail(
            f"expected a larger margin at the prototype than at its opposite, got {at_prototype:.3g} and "
            f"{at_opposite:.3g}; the background's logit comes first"
        )


def _margin(head: nn.Module, features: Tensor, prototypes: Prototypes) -> float:
    """The mean of the first way's margin over the background."""
    logits = _score(head, features, prototypes)
    return float((logits[:, 1] - logits[:, 0]).mean())


@check("head")
def check_order_of_ways(subject: Subject) -> None:
    """Ways in another order give the same logits in that order."""
    if 3 not in _ways_it_takes(subject):
        raise NotApplicable("it takes one way only")
    head = subject.build().eval()
    features = samples.query_features()
    prototypes = samples.prototypes(3)
    moved = replace(
        prototypes,
        foreground=prototypes.foreground[[2, 0, 1]],
        weights=prototypes.weights[[2, 0, 1]],
    )
    expected = _score(head, features, prototypes)[:, [0, 3, 1, 2]]
    if not same(expected, _score(head, features, moved, [2, 0, 1]), TOLERANCE):
        subject.fail(
            "expected ways in another order to give the same logits in that order, got others"
        )


@check("head")
def check_slices_are_scored_by_themselves(subject: Subject) -> None:
    """A slice's logits do not depend on the other slices of the query."""
    head = subject.build().eval()
    features = samples.query_features()
    together = _score(head, features, samples.prototypes())[2:3]
    alone = _score(head, features[2:3], samples.prototypes())
    if not same(together, alone, TOLERANCE):
        subject.fail(
            "expected a slice's logits to be the same with other slices and alone, got others"
        )


@check("head")
def check_finite(subject: Subject) -> None:
    """Logits are finite, also for features and prototypes of zeros and for large ones."""
    head = subject.build().eval()
    features = samples.query_features()
    prototypes = samples.prototypes()
    zeros = replace(
        prototypes,
        foreground=torch.zeros_like(prototypes.foreground),
        background=torch.zeros(2, samples.CHANNELS),
    )
    absent = replace(zeros, weights=torch.zeros_like(zeros.weights))
    cases = {
        "features of zeros": _score(head, torch.zeros_like(features), prototypes),
        "large features": _score(head, 1e4 * features, prototypes),
        "prototypes of zeros": _score(head, features, zeros),
    }
    # A way that is not there may have the logit minus infinity.
    logits = _score(head, features, absent)
    cases["prototypes of zeros with weight 0"] = logits.nan_to_num(torch.nan, 0.0, 0.0)
    for name, logits in cases.items():
        if not logits.isfinite().all():
            subject.fail(
                f"expected finite logits for {name}, got some that are not; bound norms from below"
            )


@check("head")
def check_looks_at_the_support(subject: Subject) -> None:
    """One that declares `sees_support = True` gives other logits where the support's masks are others."""
    head = subject.build().eval()
    if not sees_support(head):
        raise NotApplicable("it does not see the support")
    features = samples.query_features()
    prototypes = samples.prototypes()
    volume = _volume(features, prototypes)
    support = replace(volume.support, masks=volume.support.masks.flip(-1))
    with torch.no_grad():
        shown = head(features, prototypes, volume)
        moved = head(features, prototypes, replace(volume, support=support))
    if same(shown, moved, TOLERANCE):
        subject.fail(
            "expected other logits where the support's masks are others, got the same; leave sees_support out"
        )


@check("head")
def check_differentiable(subject: Subject) -> None:
    """Gradients reach the query's features and the prototypes, and are finite."""
    head = subject.build().train()
    features = samples.query_features().requires_grad_()
    prototypes = samples.prototypes()
    foreground = prototypes.foreground.clone().requires_grad_()
    logits = _call(head, features, replace(prototypes, foreground=foreground))
    if not logits.requires_grad:
        subject.fail(
            "expected logits with a gradient, got none; do not detach, and use no .data or NumPy"
        )
    logits.log_softmax(dim=1)[:, 1].sum().backward()
    for name, given in (("features", features), ("prototypes", foreground)):
        fault = _fault_of(given.grad)
        if fault:
            subject.fail(
                f"expected finite gradients that are not all zero for the {name}, got {fault}"
            )


def _fault_of(gradient: Tensor | None) -> str | None:
    """A word for what is wrong with a gradient."""
    if gradient is None:
        return "none"
    if not gradient.any():
        return "zeros"
    if not gradient.isfinite().all():
        return "some that are not finite"
    return None


@check("head")
def check_padding(subject: Subject) -> None:
    """Prototypes of weight 0 are padding and change nothing."""
    head = subject.build().eval()
    features = samples.query_features()
    prototypes = samples.prototypes(1, 2)
    padding = samples.random(1, 2, samples.CHANNELS, seed=9)
    padded = replace(
        prototypes,
        foreground=torch.cat([prototypes.foreground, padding], dim=1),
        weights=torch.cat([prototypes.weights, torch.zeros(1, 2)], dim=1),
    )
    try:
        logits = _score(head, features, prototypes)
        with_padding = _score(head, features, padded)
    except FssegError as error:
        raise NotApplicable(f"it takes one prototype only ({error})") from None
    if not same(logits, with_padding, TOLERANCE):
        subject.fail(
            "expected prototypes of weight 0 to change nothing, got other logits; mask them"
        )


def _score(
    head: Any, features: Tensor, prototypes: Prototypes, order: list[int] | None = None
) -> Tensor:
    with torch.no_grad():
        return _call(head, features, prototypes, order)


def _call(
    head: Any, features: Tensor, prototypes: Prototypes, order: list[int] | None = None
) -> Tensor:
    """The logits; a head that sees the support gets one that shows as many ways, in this order."""
    if not sees_support(head):
        return head(features, prototypes)
    return head(features, prototypes, _volume(features, prototypes, order))


def _volume(
    features: Tensor, prototypes: Prototypes, order: list[int] | None = None
) -> QueryVolume:
    ways = len(prototypes.foreground)
    volume = samples.volume(ways).part(slice(0, len(features)))
    volume = samples.reordered(volume, order or list(range(ways)))
    return replace(volume, prototypes=prototypes, features=features)


def _ways_it_takes(subject: Subject) -> list[int]:
    """One, and three unless it says in an FssegError that it does not."""
    head = subject.build().eval()
    try:
        _score(head, samples.query_features(), samples.prototypes(3))
    except FssegError:
        return [1]
    return [1, 3]
