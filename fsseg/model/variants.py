"""Variants: what one trained backbone is evaluated with. They share everything that does not depend on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.interfaces import Backbone, PrototypeExtractor, Refiner
from fsseg.model.segmenter import Mode, Segmenter
from fsseg.plugins.numbers import are_finite

SHOWN = 100
"""Characters of a state that are repeated in a message at most."""


@dataclass(frozen=True)
class Variant:
    """A segmenter under the name that tables give it.

    Attributes:
        name: The variant's name.
        segmenter: The trained backbone and head with the variant's own prototypes and threshold.
        scoring: Equal for variants with the same prototypes and head, whose logits are therefore the same.
    """

    name: str
    segmenter: Segmenter
    scoring: str

    @property
    def margins(self) -> str:
        """Equal for variants that decide on the same margins: those of one scoring that nothing refines."""
        return f"{self.scoring} {self.name}" if self.segmenter.refiners else self.scoring


def by_scoring(variants: list[Variant]) -> dict[str, list[Variant]]:
    """Groups the variants that share logits, in order."""
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.scoring, []).append(variant)
    return groups


def assemble(
    name: str,
    backbone: Backbone,
    *,
    prototypes: PrototypeExtractor,
    head: Any,
    threshold: Any,
    refiners: Sequence[Refiner] = (),
    head_state: Mapping[str, Tensor],
    threshold_state: dict[str, Any] | None = None,
    mode: Mode = "default",
) -> Segmenter:
    """Puts a variant together around a backbone that is trained already, in evaluation mode.

    Args:
        name: The variant's name, for messages.
        backbone: The backbone with its trained state; variants of a training share it.
        prototypes: The variant's extractor.
        head: The variant's head, which takes `head_state`.
        threshold: The variant's threshold, which takes `threshold_state`.
        refiners: The variant's refiners, in the order in which they decide.
        head_state: The state that training left in its head.
        threshold_state: What calibration left; None for a threshold that is not fitted, or not yet.
        mode: The mode of the segmenter.

    Raises:
        FssegError: The head cannot take the state, or the threshold its own.
    """
    load_head(name, head, head_state)
    if threshold_state is not None:
        load_threshold(name, threshold, threshold_state)
    segmenter = Segmenter(backbone, prototypes, head, threshold, refiners=refiners, mode=mode)
    return segmenter.eval()


def load_head(
    name: str,
    head: nn.Module,
    state: Mapping[str, Tensor],
) -> None:
    """Loads the state that a training left in its head into the head of the variant of this name.

    Raises:
        FssegError: The head has other parameters, or parameters of other shapes.
    """
    own = head.state_dict()
    for key, value in state.items():
        if key in own and value.is_floating_point() != own[key].is_floating_point():
            raise FssegError(
                f"variant {name!r}: the state of its head has {key} of {value.dtype}, expected {own[key].dtype}; "
                "run the recipe again"
            )
    try:
        head.load_state_dict(state)
    except RuntimeError:
        raise FssegError(
            f"variant {name!r}: its head {type(head).__name__} cannot take the state that its training left: expected "
            f"{_shapes(head.state_dict())}, got {_shapes(state)}; give the variant a training of its own, or a head that "
            "takes this state"
        ) from None


def load_threshold(name: str, threshold: Any, state: Any) -> None:
    """Loads what calibration left into the threshold of the variant of this name.

    Raises:
        FssegError: It is no state of this threshold, or holds a number that is not finite.
    """
    what = f"variant {name!r}: its threshold {type(threshold).__name__} cannot take the state {str(state)[:SHOWN]}"
    if not isinstance(state, dict) or not are_finite(state):
        raise FssegError(f"{what}, expected a table of finite numbers; run the recipe again")
    try:
        threshold.load_state(state)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FssegError(
            f"{what} ({type(error).__name__}: {error}), expected what calibration leaves in it; run the recipe again"
        ) from error


def _shapes(state: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in state.items()) or "nothing"
