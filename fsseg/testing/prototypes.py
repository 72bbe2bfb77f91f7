"""Checks of prototype extractors."""

import torch
from torch import Tensor

from fsseg.errors import DataError
from fsseg.model.scoring import is_per_query
from fsseg.testing import samples
from fsseg.testing.contract import NotApplicable, Subject, check
from fsseg.testing.exercises import same
from fsseg.types import Prototypes

TOLERANCE = 1e-3
SIGMA = torch.tensor(0.3)


@check("prototypes")
def check_shapes(subject: Subject) -> None:
    """It gives way x prototype x channel, weights way x prototype, and rows for the background if it declares them."""
    prototypes = _extract(subject, samples.support_features(2, 2), samples.masks(2, 2))
    foreground = tuple(prototypes.foreground.shape)
    weights = tuple(prototypes.weights.shape)
    ways, count, channels = foreground
    if (ways, channels) != (2, samples.CHANNELS) or weights != (ways, count):
        subject.fail(
            f"expected 2 ways x any number x {samples.CHANNELS} channels with as many weights, got "
            f"{foreground} and {weights}"
        )
    _check_background(subject, prototypes.background)


def _check_background(subject: Subject, background: Tensor | None) -> None:
    declared = getattr(subject.build(), "background", False)
    if declared != (background is not None):
        subject.fail(
            f"expected background prototypes if and only if it has `background = True`, got background = {declared} and "
            f"{'none' if background is None else 'some'}"
        )
    if background is None:
        return
    shape = tuple(background.shape)
    if len(shape) != 2 or shape[-1] != samples.CHANNELS:
        subject.fail(f"expected a background of rows x {samples.CHANNELS} channels, got {shape}")


@check("prototypes")
def check_weights_sum_to_one(subject: Subject) -> None:
    """The weights of a way are not negative and sum to one; those of a way that is not there are all 0."""
    for ways in (1, 3):
        prototypes = _extract(subject, samples.support_features(ways), samples.masks(ways))
        weights = prototypes.weights
        sums = weights.sum(dim=1)
        if (weights < 0).any() or not same(sums, torch.ones(ways), TOLERANCE):
            subject.fail(
                f"expected weights from 0 that sum to one for every way, got sums {sums.tolist()}"
            )


@check("prototypes")
def check_order_of_shots(subject: Subject) -> None:
    """Shots in another order give the same prototypes, in any order."""
    features = samples.support_features(1, 3)
    masks = samples.masks(1, 3)
    order = [2, 0, 1]
    _compare(
        subject,
        _extract(subject, features, masks),
        _extract(subject, features[:, order], masks[:, order]),
        "expected the same prototypes whatever the order of the shots",
    )


@check("prototypes")
def check_order_of_pixels(subject: Subject) -> None:
    """Cells in another order, with their masks, give the same prototypes: it does not look at places."""
    features = samples.support_features()
    masks = samples.masks(size=samples.CELLS)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(samples.CELLS**2, generator=generator)
    moved_features = features.flatten(3)[..., order].view_as(features)
    moved_masks = masks.flatten(2)[..., order].view_as(masks)
    _compare(
        subject,
        _extract(subject, features, masks),
        _extract(subject, moved_features, moved_masks),
        "expected the same prototypes whatever the order of the cells",
    )


@check("prototypes")
def check_order_of_ways(subject: Subject) -> None:
    """Ways in another order give the same prototypes in that order."""
    features = samples.support_features(3)  # all of one slice
    masks = samples.masks(3)
    order = [2, 0, 1]
    first = _extract(subject, features, masks)
    moved = _extract(subject, features[order], masks[order])
    for way, original in enumerate(order):
        _compare(
            subject,
            _of_way(first, original),
            _of_way(moved, way),
            "expected every way to keep its prototypes whatever the order of the ways",
        )


def _of_way(prototypes: Prototypes, way: int) -> Prototypes:
    return Prototypes(prototypes.foreground[way][None], prototypes.weights[way][None])


@check("prototypes")
def check_outside_the_mask(subject: Subject) -> None:
    """Features outside the mask change nothing, unless it makes prototypes of the background."""
    if getattr(subject.build(), "background", False):
        raise NotApplicable("it makes prototypes of the background")
    features = samples.support_features()
    masks = samples.masks(size=samples.CELLS)
    changed = torch.where(masks[:, :, None], features, features + 100)
    _compare(
        subject,
        _extract(subject, features, masks),
        _extract(subject, changed, masks),
        "expected features outside the mask to change nothing",
    )


@check("prototypes")
def check_one_pixel_mask(subject: Subject) -> None:
    """A mask of one pixel gives finite prototypes, whose weights sum to one."""
    masks = torch.zeros(1, 1, samples.SIZE, samples.SIZE, dtype=torch.bool)
    # The corner of a cell: a mask that is resized coarsely does not see it.
    masks[0, 0, 12, 12] = True
    prototypes = _extract(subject, samples.support_features(), masks)
    sums = prototypes.weights.sum(dim=1)
    if not _is_finite(prototypes) or not same(sums, torch.ones(1), TOLERANCE):
        subject.fail(
            "expected finite prototypes with weights that sum to one for a mask of one pixel, got others"
        )


@check("prototypes")
def check_empty_mask(subject: Subject) -> None:
    """A way whose mask is empty beside one that is not gives finite numbers and weights 0, or a DataError."""
    masks = samples.masks(2)
    masks[1] = False
    try:
        prototypes = _extract(subject, samples.support_features(2), masks)
    except DataError:
        return
    weights = prototypes.weights[1]
    allowed = [same(weights.sum(), total, TOLERANCE) for total in (0.0, 1.0)]
    if not _is_finite(prototypes) or not any(allowed):
        subject.fail(
            f"expected finite prototypes with weights 0 (or a DataError) for an empty mask, got {weights}"
        )


@check("prototypes")
def check_full_mask(subject: Subject) -> None:
    """A mask that fills the slice, which leaves no background, gives finite prototypes."""
    masks = torch.ones(1, 1, samples.SIZE, samples.SIZE, dtype=torch.bool)
    prototypes = _extract(subject, samples.support_features(), masks)
    if not _is_finite(prototypes):
        subject.fail(
            "expected finite prototypes for a mask that fills the slice, got some that are not"
        )


@check("prototypes")
def check_prototypes_by_slice(subject: Subject) -> None:
    """One that sees the query gives each of its slices prototypes of its own; others have no axis of slices."""
    features = samples.support_features(2)
    prototypes = _extract_all(subject, features, samples.masks(2), samples.query_features())
    shape = tuple(prototypes.foreground.shape)
    if not is_per_query(subject.build()):
        if len(shape) != 3:
            subject.fail(
                f"expected way x prototype x channel, got {shape}; one that sees the query has `per_query = True`"
            )
        return
    weights = tuple(prototypes.weights.shape)
    if len(shape) != 4 or shape[0] != samples.SLICES or weights != shape[:3]:
        subject.fail(
            f"expected {samples.SLICES} slices x way x prototype x channel with as many weights, got {shape} and {weights}"
        )


@check("prototypes")
def check_query_slices_by_themselves(subject: Subject) -> None:
    """What one that sees the query gives a slice does not depend on the query's other slices."""
    if not is_per_query(subject.build()):
        raise NotApplicable("it does not see the query")
    features = samples.support_features()
    query = samples.query_features()
    together = _extract_all(subject, features, samples.masks(), query)
    for number in (0, samples.SLICES - 1):
        alone = _extract_all(subject, features, samples.masks(), query[number : number + 1])
        _compare(
            subject,
            together.of_slice(number),
            alone.of_slice(0),
            "expected a slice's prototypes to be the same with other slices of the query and alone",
        )


def _extract(subject: Subject, features: Tensor, masks: Tensor) -> Prototypes:
    """The prototypes of a support; of an extractor that sees the query, those for its first slice."""
    prototypes = _extract_all(subject, features, masks, samples.query_features())
    return prototypes.of_slice(0) if prototypes.by_slice else prototypes


def _extract_all(subject: Subject, features: Tensor, masks: Tensor, query: Tensor) -> Prototypes:
    extractor = subject.build()
    inputs = [features, masks, SIGMA]
    if is_per_query(extractor):
        inputs.append(query)
    with torch.no_grad():
        return extractor(*inputs)


def _is_finite(prototypes: Prototypes) -> bool:
    parts = [prototypes.foreground, prototypes.weights]
    if prototypes.background is not None:
        parts.append(prototypes.background)
    return all(bool(part.isfinite().all()) for part in parts)


def _compare(subject: Subject, first: Prototypes, second: Prototypes, expected: str) -> None:
    """Compares prototypes as sets of weighted vectors, those of weight 0 left out."""
    if not _are_near(_vectors(first), _vectors(second)):
        subject.fail(f"{expected}, got others")
    if first.background is None or second.background is None:
        return
    if not _are_near(first.background, second.background):
        subject.fail(f"{expected}, got others for the background")


def _are_near(first: Tensor, second: Tensor) -> bool:
    """True if each vector of either has one like it in the other."""
    if first.shape != second.shape:
        return False
    return _has_all(first, second) and _has_all(second, first)


def _has_all(vectors: Tensor, others: Tensor) -> bool:
    """True if each vector has one like it among the others."""
    distance = torch.cdist(vectors, others).amin(dim=1).max()
    largest = vectors.abs().max()
    return float(distance) <= TOLERANCE * float(1 + largest)


def _vectors(prototypes: Prototypes) -> Tensor:
    """The vectors of all ways with their weight behind them."""
    weights = prototypes.weights[..., None]
    vectors = torch.cat([prototypes.foreground, weights], dim=2).flatten(0, 1)
    return vectors[vectors[:, -1] > 0]
