"""Checks of losses."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.reads import HostReads
from fsseg.training.step import TrainingStep

LARGE = 1e4
"""A factor that makes the logits of a step large, and its probabilities 0 and 1."""


@check("loss")
def check_one_number(subject: Subject) -> None:
    """It gives one floating-point number, for one way and for three."""
    for ways in (1, 3):
        value = _value(subject, samples.training_step(ways))
        is_number = isinstance(value, Tensor) and value.is_floating_point()
        if not is_number or value.shape != ():
            subject.fail(
                f"expected a floating-point tensor of shape [] for {ways} ways, got {_told(value)}; take its mean or its sum"
            )


def _told(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{value.dtype} of shape {list(value.shape)}"


@check("loss")
def check_gradient(subject: Subject) -> None:
    """Its gradient reaches the features or what is trained with them, and is finite."""
    step = samples.training_step()
    given = [step.support_features, step.query_features, *_parameters(step.head)]
    loss = subject.build()
    value = loss(step)
    if not value.requires_grad:
        subject.fail(
            "expected a number with a gradient, got none; do not detach, and use no .data or NumPy"
        )
    gradients = torch.autograd.grad(value, [*given, *_parameters(loss)], allow_unused=True)
    reached = [gradient for gradient in gradients if gradient is not None]
    if not reached or not all(gradient.isfinite().all() for gradient in reached):
        subject.fail(
            "expected finite gradients for features or parameters, got none or some that are not finite; bound what you "
            "divide by and take logarithms and roots of"
        )


def _parameters(part: Any) -> list[Tensor]:
    return list(part.parameters()) if isinstance(part, nn.Module) else []


@check("loss")
def check_finite_at_the_extremes(subject: Subject) -> None:
    """It is finite where the query shows no way, or nothing but one, and where the logits are large."""
    step = samples.training_step()
    target = step.episode.target
    cases = {
        "a query without foreground": _with_target(step, torch.zeros_like(target)),
        "a query without background": _with_target(step, torch.ones_like(target)),
        "large logits": _with_logits(step, LARGE * step.logits),
        "logits that find nothing": _with_logits(step, _shifted(step.logits, -LARGE)),
        "logits that find nothing but foreground": _with_logits(step, _shifted(step.logits, LARGE)),
    }
    for name, changed in cases.items():
        value = _value(subject, changed)
        if not value.isfinite().all():
            subject.fail(f"expected a finite number for {name}, got {value.tolist()}")


def _with_target(step: TrainingStep, target: Tensor) -> TrainingStep:
    return replace(step, episode=replace(step.episode, target=target))


def _with_logits(step: TrainingStep, logits: Tensor) -> TrainingStep:
    return replace(step, logits=logits, log_probability=samples.log_probability(logits))


def _shifted(logits: Tensor, by: float) -> Tensor:
    """The logits with every foreground's raised."""
    return torch.cat([logits[:, :1], logits[:, 1:] + by], dim=1)


@check("loss")
def check_keeps_nothing_of_a_step(subject: Subject) -> None:
    """A step leaves no trace: the first one's loss is the same after another."""
    loss = subject.build()
    first = loss(samples.training_step()).item()
    loss(samples.training_step(3))
    again = loss(samples.training_step()).item()
    if first != again:
        subject.fail(
            f"expected the same loss after another step, got {first:.6g} and {again:.6g}; keep nothing"
        )


@check("loss")
def check_fixed_shape_asks_nothing(subject: Subject) -> None:
    """Where it says `fixed_shape = True`, it never asks the host for a value of the device."""
    if not getattr(subject.component, "fixed_shape", False):
        raise NotApplicable("it does not say fixed_shape = True")
    loss = subject.build()
    with HostReads() as reads:
        loss(samples.training_step())
    if reads.seen:
        subject.fail(
            f"expected no operation for which the host waits, got {reads.seen[0]}; use torch.where in place of if, masks in "
            "place of indexing, or say fixed_shape = False"
        )


def _value(subject: Subject, step: TrainingStep) -> Any:
    return subject.build()(step)
