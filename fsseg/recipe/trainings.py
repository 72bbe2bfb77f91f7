"""The trainings of a recipe, each with the variants that are evaluated with it."""

from dataclasses import dataclass

from fsseg.recipe.tables import Recipe, TrainingTable, VariantTable
from fsseg.system.files import fingerprint


@dataclass(frozen=True)
class SharedTraining:
    """A training and the variants that share it.

    Attributes:
        table: What is trained and how.
        variants: The variants, in the recipe's order.
    """

    table: TrainingTable
    variants: list[VariantTable]

    @property
    def names(self) -> list[str]:
        """The names of the variants."""
        return [variant.name for variant in self.variants]


def trainings_of(recipe: Recipe) -> list[SharedTraining]:
    """The trainings that a recipe's variants need, in the order in which they are first named."""
    shared: dict[str, SharedTraining] = {}
    for variant in recipe.variants:
        table = recipe.training_of(variant)
        key = fingerprint(table.model_dump())
        training = shared.setdefault(key, SharedTraining(table, []))
        training.variants.append(variant)
    return list(shared.values())
