"""Variants: what one trained backbone is evaluated with. They share everything that does not depend on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.interfaces import Backbone, PrototypeExtractor, Refiner
from fsseg.model.segmenter import Mode, Segmenter
from fsseg.model.whole import role_of
from fsseg.plugins.blame import described
from fsseg.plugins.numbers import are_finite

State = Mapping[str, Tensor]
"""A module's tensors by name."""

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
    states: Mapping[str, State],
    threshold_state: dict[str, Any] | None = None,
    mode: Mode = "default",
) -> Segmenter:
    """Puts a variant together around a backbone that is trained already, in evaluation mode.

    Args:
        name: The variant's name, for messages.
        backbone: The backbone with its trained state; variants of a training share it.
        prototypes: The variant's extractor.
        head: The variant's head, which takes its state.
        threshold: The variant's threshold, which takes `threshold_state`.
        refiners: The variant's refiners, in the order in which they decide.
        states: By kind, the states that training left in its head and in the parts that this variant has of it.
        threshold_state: What calibration left; None for a threshold that is not fitted, or not yet.
        mode: The mode of the segmenter.

    Raises:
        FssegError: A part cannot take its state, or has parameters that nothing trained.
    """
    parts = {"head": head, "prototypes": prototypes, "threshold": threshold, "refiners": refiners}
    load_parts(name, parts, states)
    if threshold_state is not None:
        load_threshold(name, threshold, threshold_state)
    segmenter = Segmenter(backbone, prototypes, head, threshold, refiners=refiners, mode=mode)
    return segmenter.eval()


def load_parts(name: str, parts: Mapping[str, Any], states: Mapping[str, State]) -> None:
    """Loads what a training left into the parts of the variant of this name.

    Args:
        name: The variant's name.
        parts: Its `head`, `prototypes`, `threshold` and `refiners`.
        states: By kind, the states that it takes.

    Raises:
        FssegError: A part cannot take its state, or one without a state has parameters that something should train.
    """
    for kind, state in states.items():
        _load_part(name, kind, parts[kind], state)
    kind, scorer = role_of(parts["head"])
    components = {"prototypes": parts["prototypes"], "threshold": parts["threshold"]}
    if "head" not in states:
        components[kind] = scorer
    for kind, component in components.items():
        if kind not in states:
            _require_nothing_to_train(name, kind, component, f"name it in [training] as {kind}")
    for refiner in parts["refiners"]:
        _require_nothing_to_train(name, "refiner", refiner, "let its numbers be options")


def states_of(parts: Mapping[str, Any]) -> dict[str, State]:
    """The states of those of some parts, by name, that are modules; not copied."""
    states: dict[str, State] = {}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            states[name] = part.state_dict()
    return states


def trainable(component: Any) -> int:
    """The number of a component's parameters that an optimiser would change; 0 for one that is no module."""
    if not isinstance(component, nn.Module):
        return 0
    return sum(value.numel() for value in component.parameters() if value.requires_grad)


def told_parameters(component: nn.Module) -> str:
    """The number of a component's trainable parameters in words."""
    count = trainable(component)
    return f"{count:,} parameters" if count > 1 else "1 parameter"


def _require_nothing_to_train(name: str, kind: str, component: Any, remedy: str) -> None:
    """Raises FssegError for a component that would stay at its initial weights."""
    if trainable(component):
        raise FssegError(
            f"variant {name!r}: {described(kind, component)} has {told_parameters(component)} that nothing trains; "
            f"{remedy}, or say requires_grad_(False) of what is to stay as it is"
        )


def _load_part(
    name: str,
    kind: str,
    part: nn.Module,
    state: State,
) -> None:
    """Loads the state that a training left in its part of this kind into that of the variant of this name.

    Raises:
        FssegError: The part has other parameters, or parameters of other shapes.
    """
    own = part.state_dict()
    for key, value in state.items():
        if key in own and value.is_floating_point() != own[key].is_floating_point():
            raise FssegError(
                f"variant {name!r}: the state of its {kind} has {key} of {value.dtype}, expected {own[key].dtype}; "
                "run the recipe again"
            )
    try:
        part.load_state_dict(state)
    except RuntimeError:
        raise FssegError(
            f"variant {name!r}: its {kind} {type(part).__name__} cannot take the state that its training left: expected "
            f"{_shapes(part.state_dict())}, got {_shapes(state)}; give the variant a training of its own, or a {kind} that "
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
