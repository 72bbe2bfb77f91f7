"""Logits, priors and margins that are no numbers: which slices have them, and which component gave them."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.model.segmenter import Segmenter
from fsseg.model.whole import role_of
from fsseg.plugins.blame import described


def sound_slices(coarse: Float[Tensor, "slice class h w"]) -> Bool[Tensor, "slice"]:
    """True for slices all of whose logits are finite; the host does not wait for it."""
    return coarse.isfinite().flatten(1).all(dim=1)


def unsound_logits(
    where: str,
    segmenter: Segmenter,
    features: Float[Tensor, "slice channel h w"],
) -> FssegError:
    """The error about logits that are not finite, with the component that gave them first.

    Args:
        where: What was segmented, for the beginning of the message.
        segmenter: Its backbone made the features, and its head the logits.
        features: The features of the slices in question.
    """
    kind, scorer = role_of(segmenter.head)
    if kind == "segmenter" or features.isfinite().all():
        return _error(where, "logits", kind, scorer)
    return _error(where, "features", "backbone", segmenter.backbone)


def unsound_prior(where: str, segmenter: Segmenter) -> FssegError:
    """The error about a prior that is NaN."""
    return _error(where, "priors", "threshold", segmenter.threshold)


def unsound_margins(where: str, segmenter: Segmenter) -> FssegError:
    """The error about margins that refiners made NaN; infinite ones are theirs to give."""
    return _error(where, "margins", "refiner", *segmenter.refiners)


def _error(where: str, what: str, kind: str, *components: Any) -> FssegError:
    named = " and ".join(described(kind, component) for component in components)
    return FssegError(
        f"{where}: the {what} of {named} are not finite, expected numbers in evaluation as in training; correct that "
        "component, or leave the row out"
    )
