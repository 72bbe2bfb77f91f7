"""The components of a variant, whose head takes from its training what the trained state has decided."""

import json
from typing import Any

from fsseg.errors import FssegError, RecipeError
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


def build_parts(variant: VariantTable, training: TrainingTable) -> dict[str, Any]:
    """Builds the components of a variant that is evaluated with this training.

    Returns:
        Its `prototypes`, `head`, `threshold` and `refiners`, as `fsseg.model.variants.assemble` takes them.

    Raises:
        FssegError: The head has an option of its own that the trained state has decided otherwise.
    """
    return {
        "prototypes": variant.prototypes.build("prototypes"),
        "head": head_of(variant, training).build("head"),
        "threshold": variant.threshold.build("threshold"),
        "refiners": [refiner.build("refiner") for refiner in variant.refiners],
    }


def head_of(variant: VariantTable, training: TrainingTable) -> ComponentTable:
    """The table of the head that a variant is evaluated with.

    What the two heads' classes name in `trained_options` is a part of the trained state (alpha, for example) or says
    what the state means (the form of the score threshold). The variant's head takes these options from the training's.

    Raises:
        FssegError: The variant gives one of these options another value than its training.
    """
    head = variant.head
    trained = _trained_options(training.head)
    taken = {name: trained[name] for name in _trained_options(head) if name in trained}
    for name, value in taken.items():
        own = head.options.get(name, value)
        if own != value:
            raise FssegError(
                f"variant {variant.name!r}: its head {head.name} has {name} = {json.dumps(own)}, but takes the "
                f"state of a training whose head {training.head.name} has {name} = {json.dumps(value)}, which decides; "
                "leave it out of the variant's head, or give the variant a training of its own with that value"
            )
    options = head.model_dump() | taken
    return ComponentTable(**options)


def _trained_options(head: ComponentTable) -> dict[str, Any]:
    """The options of a head that a trained state decides, with their defaults written out."""
    component = registry().find("head", head.name).load()
    fields = schema(component).model_fields
    options = {}
    for name in getattr(component, "trained_options", ()):
        options[name] = head.options.get(name, fields[name].default)
    return options
