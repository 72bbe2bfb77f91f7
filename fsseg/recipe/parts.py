"""The components of a training and of a variant, which takes what the training's state has decided."""

import json
from collections.abc import Mapping
from typing import Any

from fsseg.errors import FssegError, RecipeError
from fsseg.interfaces import FittedThreshold
from fsseg.plugins.manager import registry
from fsseg.plugins.options import schema
from fsseg.recipe.tables import ComponentTable, Recipe, TrainingTable, VariantTable


def intensity_of(recipe: Recipe, wanted: str) -> ComponentTable:
    """The table of the intensity rule: the recipe's, or the one that the backbone asks for with its default options.

    Args:
        recipe: The recipe.
        wanted: The backbone's attribute `intensity`.

    Raises:
        FssegError: The backbone asks for a rule that nobody registered.
    """
    if recipe.intensity is not None:
        return recipe.intensity
    try:
        registry().find("intensity", wanted)
    except RecipeError as error:
        raise FssegError(
            f"backbone {recipe.backbone.name}: it asks for the intensity rule {wanted!r}, but {error}; or name one in "
            "[intensity]"
        ) from None
    return ComponentTable(name=wanted)


def build_trained(training: TrainingTable) -> dict[str, Any]:
    """Builds what is trained with the backbone.

    Returns:
        `head` and `prototypes`, or `segmenter`, and `threshold`, which is None where the training names none.

    Raises:
        FssegError: The threshold needs what training does not have.
    """
    table = training.threshold
    threshold = None if table is None else table.build("threshold")
    if table is not None:
        _require_usable_in_training(table, threshold)
    return scorers_of(training, {}) | {"threshold": threshold}


def scorers_of(
    table: TrainingTable | VariantTable, taken: Mapping[str, ComponentTable]
) -> dict[str, Any]:
    """Builds the `prototypes` and the `head` of a table, or its `segmenter` where it names one.

    Args:
        table: The table.
        taken: By kind, tables that are built instead of its own.
    """
    if table.segmenter is not None:
        segmenter = taken.get("segmenter", table.segmenter)
        return {"segmenter": segmenter.build("segmenter")}
    return {
        "prototypes": taken.get("prototypes", table.prototypes).build("prototypes"),
        "head": taken.get("head", table.head).build("head"),
    }


def _require_usable_in_training(table: ComponentTable, threshold: Any) -> None:
    """Raises FssegError for an oracle, and for a policy that is fitted after training."""
    reason = None
    if threshold.oracle:
        reason = "is an oracle, and training has no ground truth to give it"
    elif isinstance(threshold, FittedThreshold):
        reason = "is fitted by calibration, which comes after training"
    if reason is not None:
        raise FssegError(
            f"[training]: threshold {table.name} {reason}; expected a policy that decides on its evidence alone, name this "
            "one in a variant"
        )


def shared_parts(variant: VariantTable, training: TrainingTable) -> list[str]:
    """The kinds of parts whose trained state a variant takes: its head's, and those of the components that both name."""
    kinds = []
    if variant.segmenter is None:
        kinds.append("head")
        if training.segmenter is None and variant.prototypes.name == training.prototypes.name:
            kinds.append("prototypes")
    elif training.segmenter is not None and variant.segmenter.name == training.segmenter.name:
        kinds.append("head")
    if training.threshold is not None and variant.threshold.name == training.threshold.name:
        kinds.append("threshold")
    return kinds


def states_for(
    variant: VariantTable, training: TrainingTable, states: Mapping[str, Any]
) -> dict[str, Any]:
    """Those of a training's states, by part, that a variant takes."""
    return {kind: states[kind] for kind in shared_parts(variant, training) if kind in states}


def build_parts(variant: VariantTable, training: TrainingTable) -> dict[str, Any]:
    """Builds the components of a variant that is evaluated with this training.

    Returns:
        Its `prototypes` and `head`, or its `segmenter`, its `threshold` and `refiners`; `fsseg.model.whole.in_place` puts a
        segmenter in its place.

    Raises:
        FssegError: A part has an option of its own that the trained state has decided otherwise.
    """
    shared = shared_parts(variant, training)
    taken = {}
    if variant.segmenter is None:
        taken["head"] = head_of(variant, training)
    elif "head" in shared and training.segmenter is not None:
        taken["segmenter"] = _taking(variant, "segmenter", variant.segmenter, training.segmenter)
    if "prototypes" in shared:
        taken["prototypes"] = _taking(
            variant, "prototypes", variant.prototypes, training.prototypes
        )
    threshold = variant.threshold
    if "threshold" in shared and training.threshold is not None:
        threshold = _taking(variant, "threshold", threshold, training.threshold)
    return scorers_of(variant, taken) | {
        "threshold": threshold.build("threshold"),
        "refiners": [refiner.build("refiner") for refiner in variant.refiners],
    }


def head_of(variant: VariantTable, training: TrainingTable) -> ComponentTable:
    """The table of the head that a variant is evaluated with.

    What the two heads' classes name in `trained_options` is a part of the trained state (alpha, for example) or says
    what the state means (the form of the score threshold). The variant's head takes these options from the training's.

    Raises:
        FssegError: The variant gives one of these options another value than its training, or its training has no head.
    """
    if training.segmenter is not None:
        raise FssegError(
            f"variant {variant.name!r}: it has the head {variant.head.name}, but its training trains the segmenter "
            f"{training.segmenter.name} and no head; give the variant a training of its own, or that segmenter"
        )
    return _taking(variant, "head", variant.head, training.head)


def _taking(
    variant: VariantTable, kind: str, own: ComponentTable, trained: ComponentTable
) -> ComponentTable:
    """The table of a variant's component of a kind, with the options that the training's decides.

    Raises:
        FssegError: The variant gives one of these options another value than its training.
    """
    decided = _trained_options(kind, trained)
    taken = {name: decided[name] for name in _trained_options(kind, own) if name in decided}
    for name, value in taken.items():
        wanted = own.options.get(name, value)
        if wanted != value:
            raise FssegError(
                f"variant {variant.name!r}: its {kind} {own.name} has {name} = {json.dumps(wanted)}, but takes the "
                f"state of a training whose {kind} {trained.name} has {name} = {json.dumps(value)}, which decides; "
                f"leave it out of the variant's {kind}, or give the variant a training of its own with that value"
            )
    options = own.model_dump() | taken
    return ComponentTable(**options)


def _trained_options(kind: str, table: ComponentTable) -> dict[str, Any]:
    """The options of a component that a trained state decides, with their defaults written out."""
    component = registry().find(kind, table.name).load()
    fields = schema(component).model_fields
    options = {}
    for name in getattr(component, "trained_options", ()):
        options[name] = table.options.get(name, fields[name].default)
    return options
