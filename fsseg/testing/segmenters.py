"""Checks of whole segmenters."""

from dataclasses import replace

import torch
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import same
from fsseg.types import Query, Support

TOLERANCE = 1e-4


@check("segmenter")
def check_logits_of_all_classes(subject: Subject) -> None:
    """Finite logits for each slice, one for the background, which is first, and one per way; for one shot and for two."""
    for ways in _ways_it_takes(subject):
        for shots in (1, 2):
            logits = _segment(subject, samples.support(ways, shots), samples.query(ways))
            expected = (samples.SLICES, ways + 1)
            if logits.ndim != 4 or tuple(logits.shape[:2]) != expected:
                subject.fail(
                    f"expected logits of {expected[0]} slices x {expected[1]} classes x height x width for {ways} ways and "
                    f"{shots} shots, got {tuple(logits.shape)}"
                )
            if not logits.isfinite().all():
                subject.fail(f"expected finite logits for {ways} ways, got some that are not")


@check("segmenter")
def check_masks_say_what_is_foreground(subject: Subject) -> None:
    """The masks decide: with those of another region the logits are others."""
    support = samples.support()
    shown = _segment(subject, support, samples.query())
    other = replace(support, masks=support.masks.flip(-1))
    if same(shown, _segment(subject, other, samples.query()), TOLERANCE):
        subject.fail(
            "expected other logits where the support's masks are others, got the same; look at the masks"
        )


@check("segmenter")
def check_ways_change_places(subject: Subject) -> None:
    """Ways in another order have the same logits in that order."""
    if 3 not in _ways_it_takes(subject):
        raise NotApplicable("it takes one way only")
    support = samples.support(3)
    order = [2, 0, 1]
    moved = replace(
        support,
        images=support.images[order],
        masks=support.masks[order],
        location=support.location[order],
    )
    expected = _segment(subject, support, samples.query(3))[:, [0, 3, 1, 2]]
    if not same(expected, _segment(subject, moved, samples.query(3)), TOLERANCE):
        subject.fail(
            "expected ways in another order to have the same logits in that order, got others"
        )


@check("segmenter")
def check_one_slice_by_itself(subject: Subject) -> None:
    """A query of one slice, as training and calibration have it, gives finite logits of that slice."""
    query = samples.query().part(slice(0, 1))
    logits = _segment(subject, samples.support(), query)
    if len(logits) != 1 or not logits.isfinite().all():
        subject.fail(
            f"expected finite logits of one slice for a query of one, got {tuple(logits.shape)}"
        )


@check("segmenter")
def check_keeps_nothing_of_a_support(subject: Subject) -> None:
    """A support leaves no trace: the first one's logits are the same after another."""
    instance = subject.build()
    if isinstance(instance, torch.nn.Module):
        instance.eval()
    support = samples.support()
    query = samples.query()
    another = replace(support, masks=support.masks.flip(-1), images=support.images.flip(-1))
    with torch.no_grad():
        first = instance(support, query)
        instance(another, query)
        again = instance(support, query)
    if not same(first, again):
        subject.fail(
            "expected the same logits for the same support, got others after a second one; keep nothing"
        )


def _segment(subject: Subject, support: Support, query: Query) -> Tensor:
    instance = subject.build()
    if isinstance(instance, torch.nn.Module):
        instance.eval()
    with torch.no_grad():
        return instance(support, query)


def _ways_it_takes(subject: Subject) -> list[int]:
    """One, and three unless it says in an FssegError that it does not."""
    try:
        _segment(subject, samples.support(3), samples.query(3))
    except FssegError:
        return [1]
    return [1, 3]
