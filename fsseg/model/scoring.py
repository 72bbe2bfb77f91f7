"""From features to logits: the one place where extractors and heads are called, in training and everywhere after it."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.interfaces import Head, PrototypeExtractor
from fsseg.plugins.blame import described
from fsseg.types import Prototypes, QueryVolume

SLICES_AT_ONCE = 16
"""Slices that a head scores together, and for which prototypes of their own are made together."""

Extractor = PrototypeExtractor | Callable[..., Prototypes]
"""An extractor; one that lacks the attributes of the contract is nothing but callable."""

Features = Float[Tensor, "query channel h w"]
"""Features of the query's slices."""


def is_per_query(extractor: Extractor) -> bool:
    """True for an extractor that sees the query, and makes prototypes for each of its slices."""
    return getattr(extractor, "per_query", False)


def prototypes_of(
    extractor: Extractor,
    head: Head,
    support_features: Float[Tensor, "way shot channel support_h support_w"],
    masks: Bool[Tensor, "way shot height width"],
    query_features: Features | None = None,
) -> Prototypes:
    """The prototypes with which a head scores a query.

    Args:
        extractor: Makes them. Only one with `per_query = True` is handed the query, a few slices at a time.
        head: Scores with them; its sigma is for extractors that fit a density.
        support_features: The support's features.
        masks: The support's masks.
        query_features: The query's features; not needed where the extractor does not see them.

    Raises:
        FssegError: The extractor declares `per_query` and gives prototypes that are not by slice, or the other way round.
    """
    sigma = head.sigma
    call: Callable[..., Prototypes] = extractor
    if not is_per_query(extractor):
        prototypes = call(support_features, masks, sigma)
        _require_axes(extractor, prototypes, 3, "way, prototype and channel")
        return prototypes
    assert query_features is not None, "it is known by now where prototypes depend on it"
    parts = []
    for part in query_features.split(SLICES_AT_ONCE):
        prototypes = call(support_features, masks, sigma, part)
        _require_axes(extractor, prototypes, 4, "slice, way, prototype and channel")
        parts.append(prototypes)
    return joined(parts)


def _require_axes(extractor: Extractor, prototypes: Prototypes, count: int, axes: str) -> None:
    shape = tuple(prototypes.foreground.shape)
    if len(shape) != count:
        raise FssegError(
            f"{described('prototypes', extractor)}: its prototypes have the shape {shape}, expected {axes} for one "
            f"with per_query = {is_per_query(extractor)}; see fsseg.interfaces.PrototypeExtractor"
        )


def joined(parts: list[Prototypes]) -> Prototypes:
    """Prototypes by slice, of all slices."""
    if len(parts) == 1:
        return parts[0]
    backgrounds = [part.background for part in parts if part.background is not None]
    return Prototypes(
        torch.cat([part.foreground for part in parts]),
        torch.cat([part.weights for part in parts]),
        torch.cat(backgrounds) if backgrounds else None,
    )


def sees_support(head: Head) -> bool:
    """True for a head that is handed the support's images and masks, and the query's images, beside the prototypes."""
    return getattr(head, "sees_support", False)


def logits_of(head: Head, volume: QueryVolume) -> Float[Tensor, "query class own_h own_w"]:
    """The logits of a query's slices, at an even prior.

    A head works on copies of the features; a few slices at a time, it does not matter how many there are. A whole
    segmenter gets all of them.

    Args:
        head: Scores them.
        volume: The query, its features and its prototypes, and the support.
    """
    count = len(volume.features)
    at_once = count if getattr(head, "all_at_once", False) else SLICES_AT_ONCE
    if count <= at_once:
        return _logits_of_part(head, volume)
    parts = []
    for start in range(0, count, at_once):
        part = volume.part(slice(start, start + at_once))
        parts.append(_logits_of_part(head, part))
    return torch.cat(parts)


def _logits_of_part(head: Head, volume: QueryVolume) -> Float[Tensor, "query class own_h own_w"]:
    if not sees_support(head):
        return score(head, volume.features, volume.prototypes)
    call: Callable[..., Tensor] = head
    if not volume.prototypes.by_slice:
        return call(volume.features, volume.prototypes, volume)
    logits = []
    for number in range(len(volume.features)):
        part = volume.part(slice(number, number + 1))
        part = replace(part, prototypes=part.prototypes.of_slice(0))
        logits.append(call(part.features, part.prototypes, part))
    return torch.cat(logits)


def score(
    head: Head, features: Features, prototypes: Prototypes
) -> Float[Tensor, "query class h w"]:
    """The logits of slices with the same prototypes, or with prototypes of their own.

    The latter are scored one by one, so that any head works with any extractor.
    """
    if not prototypes.by_slice:
        return head(features, prototypes)
    logits = []
    for number in range(len(features)):
        of_slice = head(features[number : number + 1], prototypes.of_slice(number))
        logits.append(of_slice)
    return torch.cat(logits)
