"""Checks of threshold policies."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.interfaces import FittedThreshold
from fsseg.model.ops import decide as decide_labels
from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import decide, fit, needs_fit, same
from fsseg.types import Evidence

TOLERANCE = 1e-4


@check("threshold")
def check_oracle_is_declared(subject: Subject) -> None:
    """`oracle` is true or false, and a policy that is no oracle works without a target."""
    if not isinstance(getattr(subject.component, "oracle", None), bool):
        subject.fail(
            "expected a class attribute `oracle = False` (or True if it needs the ground truth), got none"
        )
    policy = _ready(subject)
    if subject.component.oracle:
        policy(samples.evidence(), samples.target())
        return
    try:
        policy(samples.evidence())
    except TypeError as error:
        subject.fail(
            f"expected it to work on the evidence alone, got {error}; if it needs the target, say oracle = True"
        )


@check("threshold")
def check_a_prior_per_slice(subject: Subject) -> None:
    """It gives finite log-odds, one per query slice, or one per slice and way, for one way and for three."""
    for ways in (1, 3):
        prior = _decide(subject, _ready(subject, ways), samples.evidence(ways), ways)
        allowed = [(samples.SLICES,), (samples.SLICES, ways)]
        if (
            tuple(prior.shape) not in allowed
            or not prior.is_floating_point()
            or not prior.isfinite().all()
        ):
            subject.fail(
                f"expected finite log-odds of shape {allowed[0]} or {allowed[1]}, got {tuple(prior.shape)} {prior.dtype}"
            )


@check("threshold")
def check_order_of_slices(subject: Subject) -> None:
    """The query's slices in another order have the same priors in that order."""
    order, evidence, target = [3, 1, 4, 0, 2], samples.evidence(), samples.target()
    policy = _ready(subject)
    moved = replace(
        evidence,
        logits=evidence.logits[order],
        features=evidence.features[order],
        query_location=evidence.query_location[order],
    )
    if not same(
        decide(policy, evidence, target)[order], decide(policy, moved, target[order]), TOLERANCE
    ):
        subject.fail(
            "expected slices in another order to have the same priors in that order, got others"
        )


@check("threshold")
def check_common_offset(subject: Subject) -> None:
    """A number added to the logits of all classes changes nothing: only differences of logits mean anything."""
    evidence, policy = samples.evidence(), _ready(subject)
    shifted = replace(evidence, logits=evidence.logits + 3)
    if not same(
        decide(policy, evidence, samples.target()), decide(policy, shifted, samples.target()), 1e-3
    ):
        subject.fail(
            "expected the same priors for logits that are all larger by 3, got others; use evidence.margin"
        )


@check("threshold")
def check_support_foreground(subject: Subject) -> None:
    """Support masks of any size give finite priors and leave no trace: the first support's are the same afterwards."""
    evidence, policy = samples.evidence(), _ready(subject)
    before = decide(policy, evidence, samples.target())
    for radius in (0.02, 0.3, 2.0):
        masks = samples.disc((0.5, 0.5), radius)[None, None]
        prior = decide(policy, replace(evidence, support_masks=masks), samples.target())
        if not prior.isfinite().all():
            subject.fail(
                f"expected finite priors for a support of {int(masks.sum())} pixels, got {prior.tolist()}"
            )
    if not same(before, decide(policy, evidence, samples.target())):
        subject.fail(
            "expected the same answer to the same evidence, got another after other supports; keep nothing"
        )


@check("threshold")
def check_fit_comes_first(subject: Subject) -> None:
    """A policy that is fitted refuses to answer before that with an FssegError, and answers afterwards."""
    policy, evidence = subject.build(), samples.evidence()
    if not isinstance(policy, FittedThreshold):
        raise NotApplicable("it is not fitted")
    try:
        policy(evidence)
    except FssegError:
        fit(policy)
    except Exception as error:
        subject.fail(
            f"expected an FssegError before it is fitted, got {type(error).__name__}: {error}"
        )
    if needs_fit(policy, evidence):
        subject.fail("expected an answer after fit, got none")


@check("threshold")
def check_larger_prior_never_loses_foreground(subject: Subject) -> None:
    """The segmenter with a larger prior than the policy's keeps all foreground, and may add some."""
    for ways in (1, 3):
        evidence, kept = samples.evidence(ways), None
        for larger in (0.0, 0.5, 4.0):
            prior = _decide(subject, _ready(subject, ways), evidence, ways) + larger
            found = decide_labels(evidence.logits, prior) > 0
            if kept is not None and (kept & ~found).any():
                subject.fail(
                    f"expected all foreground to stay with log-odds larger by {larger}, got a loss; answer alike"
                )
            kept = found


def _ready(subject: Subject, ways: int = 1) -> Any:
    policy = subject.build()
    if isinstance(policy, FittedThreshold) and needs_fit(policy, samples.evidence(ways)):
        fit(policy, ways)
    return policy


def _decide(subject: Subject, policy: Any, evidence: Evidence, ways: int) -> Tensor:
    with torch.no_grad():
        return decide(policy, evidence, samples.target(ways))
