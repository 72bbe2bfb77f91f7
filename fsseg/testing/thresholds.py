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
    oracle = getattr(subject.component, "oracle", None)
    if not isinstance(oracle, bool):
        subject.fail(
            "expected a class attribute `oracle = False` (or True if it needs the ground truth), got none"
        )
    policy = _ready(subject)
    if oracle:
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
        prior = _decide(_ready(subject, ways), samples.evidence(ways), ways)
        shape = tuple(prior.shape)
        by_slice = (samples.SLICES,)
        by_way = (samples.SLICES, ways)
        are_log_odds = prior.is_floating_point() and prior.isfinite().all()
        if shape not in (by_slice, by_way) or not are_log_odds:
            subject.fail(
                f"expected finite log-odds of shape {by_slice} or {by_way}, got {shape} {prior.dtype}"
            )


@check("threshold")
def check_order_of_slices(subject: Subject) -> None:
    """The query's slices in another order have the same priors in that order."""
    policy = _ready(subject)
    evidence = samples.evidence()
    target = samples.target()
    order = [3, 1, 4, 0, 2]
    moved = replace(
        evidence,
        logits=evidence.logits[order],
        features=evidence.features[order],
        query_location=evidence.query_location[order],
    )
    expected = decide(policy, evidence, target)[order]
    if not same(expected, decide(policy, moved, target[order]), TOLERANCE):
        subject.fail(
            "expected slices in another order to have the same priors in that order, got others"
        )


@check("threshold")
def check_common_offset(subject: Subject) -> None:
    """A number added to the logits of all classes changes nothing: only differences of logits mean anything."""
    policy = _ready(subject)
    evidence = samples.evidence()
    target = samples.target()
    shifted = replace(evidence, logits=evidence.logits + 3)
    expected = decide(policy, evidence, target)
    if not same(expected, decide(policy, shifted, target), 1e-3):
        subject.fail(
            "expected the same priors for logits that are all larger by 3, got others; use evidence.margin"
        )


@check("threshold")
def check_support_foreground(subject: Subject) -> None:
    """Support masks of any size give finite priors and leave no trace: the first support's are the same afterwards."""
    policy = _ready(subject)
    evidence = samples.evidence()
    target = samples.target()
    before = decide(policy, evidence, target)
    for radius in (0.02, 0.3, 2.0):
        masks = samples.disc((0.5, 0.5), radius)[None, None]
        prior = decide(policy, replace(evidence, support_masks=masks), target)
        if not prior.isfinite().all():
            subject.fail(
                f"expected finite priors for a support of {int(masks.sum())} pixels, got {prior.tolist()}"
            )
    if not same(before, decide(policy, evidence, target)):
        subject.fail(
            "expected the same answer to the same evidence, got another after other supports; keep nothing"
        )


@check("threshold")
def check_fit_comes_first(subject: Subject) -> None:
    """A policy that is fitted refuses to answer before that with an FssegError, and answers afterwards."""
    policy = subject.build()
    evidence = samples.evidence()
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
        evidence = samples.evidence(ways)
        before = torch.zeros_like(evidence.logits[:, 0], dtype=torch.bool)
        for larger in (0.0, 0.5, 4.0):
            prior = _decide(_ready(subject, ways), evidence, ways)
            foreground = decide_labels(evidence.logits, prior + larger) > 0
            if (before & ~foreground).any():
                subject.fail(
                    f"expected all foreground to stay with log-odds larger by {larger}, got a loss; answer alike"
                )
            before = foreground


def _ready(subject: Subject, ways: int = 1) -> Any:
    """The policy, fitted if it has to be."""
    policy = subject.build()
    if isinstance(policy, FittedThreshold) and needs_fit(policy, samples.evidence(ways)):
        fit(policy, ways)
    return policy


def _decide(policy: Any, evidence: Evidence, ways: int) -> Tensor:
    with torch.no_grad():
        return decide(policy, evidence, samples.target(ways))
