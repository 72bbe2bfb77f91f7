"""Checks of prototype extractors."""

import torch
from torch import Tensor

from fsseg.errors import DataError
from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import same
from fsseg.types import Prototypes

TOLERANCE = 1e-3
SIGMA = torch.tensor(0.3)


@check("prototypes")
def check_shapes(subject: Subject) -> None:
    """It gives way x prototype x channel, weights way x prototype, and rows for the background if it declares them."""
    made = _extract(subject, samples.support_features(2, 2), samples.masks(2, 2))
    ways, count, channels = made.foreground.shape
    if (ways, channels) != (2, samples.CHANNELS) or made.weights.shape != (ways, count):
        subject.fail(
            f"expected 2 ways x any number x {samples.CHANNELS} channels with as many weights, got "
            f"{tuple(made.foreground.shape)} and {tuple(made.weights.shape)}"
        )
    declared = getattr(subject.build(), "background", False)
    if declared != (made.background is not None):
        subject.fail(
            f"expected background prototypes if and only if it has `background = True`, got background = {declared} and "
            f"{'none' if made.background is None else 'some'}"
        )
    if made.background is not None and (made.background.ndim, made.background.shape[-1]) != (
        2,
        samples.CHANNELS,
    ):
        subject.fail(
            f"expected a background of rows x {samples.CHANNELS} channels, got {tuple(made.background.shape)}"
        )


@check("prototypes")
def check_weights_sum_to_one(subject: Subject) -> None:
    """The weights of a way are not negative and sum to one; those of a way that is not there are all 0."""
    for ways in (1, 3):
        weights = _extract(subject, samples.support_features(ways), samples.masks(ways)).weights
        if (weights < 0).any() or not same(weights.sum(dim=1), torch.ones(ways), TOLERANCE):
            subject.fail(
                f"expected weights from 0 that sum to one for every way, got sums {weights.sum(dim=1).tolist()}"
            )


@check("prototypes")
def check_order_of_shots(subject: Subject) -> None:
    """Shots in another order give the same prototypes, in any order."""
    features, masks, order = samples.support_features(1, 3), samples.masks(1, 3), [2, 0, 1]
    _compare(
        subject,
        _extract(subject, features, masks),
        _extract(subject, features[:, order], masks[:, order]),
        "expected the same prototypes whatever the order of the shots",
    )


@check("prototypes")
def check_order_of_pixels(subject: Subject) -> None:
    """Cells in another order, with their masks, give the same prototypes: it does not look at places."""
    features, masks = samples.support_features(), samples.masks(size=samples.CELLS)
    order = torch.randperm(samples.CELLS**2, generator=torch.Generator().manual_seed(0))
    moved = (
        features.flatten(3)[..., order].view_as(features),
        masks.flatten(2)[..., order].view_as(masks),
    )
    _compare(
        subject,
        _extract(subject, features, masks),
        _extract(subject, *moved),
        "expected the same prototypes whatever the order of the cells",
    )


@check("prototypes")
def check_order_of_ways(subject: Subject) -> None:
    """Ways in another order give the same prototypes in that order."""
    features, masks, order = (
        samples.support_features(3),
        samples.masks(3),
        [2, 0, 1],
    )  # all of one slice
    first, second = (
        _extract(subject, features, masks),
        _extract(subject, features[order], masks[order]),
    )
    for way, there in enumerate(order):
        _compare(
            subject,
            Prototypes(first.foreground[there][None], first.weights[there][None]),
            Prototypes(second.foreground[way][None], second.weights[way][None]),
            "expected every way to keep its prototypes whatever the order of the ways",
        )


@check("prototypes")
def check_outside_the_mask(subject: Subject) -> None:
    """Features outside the mask change nothing, unless it makes prototypes of the background."""
    if getattr(subject.build(), "background", False):
        raise NotApplicable("it makes prototypes of the background")
    features, masks = samples.support_features(), samples.masks(size=samples.CELLS)
    other = torch.where(masks[:, :, None], features, features + 100)
    _compare(
        subject,
        _extract(subject, features, masks),
        _extract(subject, other, masks),
        "expected features outside the mask to change nothing",
    )


@check("prototypes")
def check_one_pixel_mask(subject: Subject) -> None:
    """A mask of one pixel gives finite prototypes, whose weights sum to one."""
    masks = torch.zeros(1, 1, samples.SIZE, samples.SIZE, dtype=torch.bool)
    masks[0, 0, 12, 12] = (
        True  # the corner of a cell: a mask that is resized coarsely does not see it
    )
    made = _extract(subject, samples.support_features(), masks)
    if not _finite(made) or not same(made.weights.sum(dim=1), torch.ones(1), TOLERANCE):
        subject.fail(
            "expected finite prototypes with weights that sum to one for a mask of one pixel, got others"
        )


@check("prototypes")
def check_empty_mask(subject: Subject) -> None:
    """A way whose mask is empty beside one that is not gives finite numbers and weights 0, or a DataError."""
    masks = samples.masks(2)
    masks[1] = False
    try:
        made = _extract(subject, samples.support_features(2), masks)
    except DataError:
        return
    sums = made.weights.sum(dim=1)
    if not _finite(made) or not (same(sums[1], 0.0, TOLERANCE) or same(sums[1], 1.0, TOLERANCE)):
        subject.fail(
            f"expected finite prototypes with weights 0 (or a DataError) for an empty mask, got {made.weights[1]}"
        )


@check("prototypes")
def check_full_mask(subject: Subject) -> None:
    """A mask that fills the slice, which leaves no background, gives finite prototypes."""
    masks = torch.ones(1, 1, samples.SIZE, samples.SIZE, dtype=torch.bool)
    if not _finite(_extract(subject, samples.support_features(), masks)):
        subject.fail(
            "expected finite prototypes for a mask that fills the slice, got some that are not"
        )


def _extract(subject: Subject, features: Tensor, masks: Tensor) -> Prototypes:
    with torch.no_grad():
        return subject.build()(features, masks, SIGMA)


def _finite(made: Prototypes) -> bool:
    parts = [made.foreground, made.weights] + ([] if made.background is None else [made.background])
    return all(bool(part.isfinite().all()) for part in parts)


def _compare(subject: Subject, first: Prototypes, second: Prototypes, expected: str) -> None:
    """Compares prototypes as sets of weighted vectors, those of weight 0 left out."""
    if not _near(_rows(first), _rows(second)):
        subject.fail(f"{expected}, got others")
    if first.background is not None and not _near(first.background, second.background):
        subject.fail(f"{expected}, got others for the background")


def _near(one: Tensor, other: Tensor) -> bool:
    """Whether each row of either has one like it in the other."""
    return one.shape == other.shape and all(
        float(torch.cdist(a, b).amin(dim=1).max()) <= TOLERANCE * float(1 + a.abs().max())
        for a, b in ((one, other), (other, one))
    )


def _rows(made: Prototypes) -> Tensor:
    """Vectors with their weight behind them."""
    rows = torch.cat([made.foreground, made.weights[..., None]], dim=2).flatten(0, 1)
    return rows[rows[:, -1] > 0]
