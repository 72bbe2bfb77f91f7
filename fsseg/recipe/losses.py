"""The losses of a training as a recipe lists them, each with its weight in the sum that is minimised."""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from fsseg.errors import RecipeError
from fsseg.plugins.numbers import within_bounds
from fsseg.plugins.options import explained
from fsseg.recipe.components import ComponentTable, Mark, PlainTable

if TYPE_CHECKING:
    from fsseg.recipe.tables import TrainingTable

LOG_COLUMNS = (
    "step", "learning_rate", "score_threshold", "average_distance",
    "validation_ideal", "validation_estimated",
)  # fmt: skip
"""The columns of a training's log that are no losses."""

SHORT_FORMS = ("background_weight", "alignment", "t_loss")
"""Keys of [training] that are numbers of the usual losses, for recipes that list none."""


class LossTable(ComponentTable):
    """A table that names a loss; the other keys are the loss's options."""

    kind: ClassVar[str] = "loss"
    weight: float = Field(
        default=1.0, ge=0, description="of the loss in the sum; with 0 it is logged alone"
    )
    _numbers = field_validator("weight")(within_bounds)


class DistinctLosses(Mark):
    """Marks a list of losses, whose names become columns of the training's log."""

    def check(self, value: list[LossTable], context: PlainTable) -> None:
        """Raises an error for a loss that is listed twice, or has the name of another column."""
        seen = set()
        for table in value:
            if table.name in LOG_COLUMNS:
                raise explained(
                    f"{table.name!r} is the name of another column of the training's log; rename the loss"
                )
            if table.name in seen:
                raise explained(
                    f"{table.name!r} is listed twice, expected each loss once; add up its weights"
                )
            seen.add(table.name)


def losses_of(training: "TrainingTable") -> list[LossTable]:
    """The losses of a training: those that it lists, or the usual ones with the numbers that its keys give them.

    Raises:
        RecipeError: It lists losses and changes such a key as well, which nothing would look at.
    """
    if not training.losses:
        return _usual(training)
    fields = type(training).model_fields
    for key in SHORT_FORMS:
        value = getattr(training, key)
        if value != fields[key].default:
            raise RecipeError(
                f"[training]: got losses and {key} = {value:g}, expected one of them: {key} is for the usual losses, where "
                "none are listed; write its number into the list"
            )
    return training.losses


def _usual(training: "TrainingTable") -> list[LossTable]:
    """The losses of the published codes; one of weight 0 is worked out where that costs nothing."""
    query = _table("query", background_weight=training.background_weight)
    alignment = _table("alignment", weight=training.alignment)
    t_loss = _table("t_loss", weight=training.t_loss)
    return [query, alignment, t_loss] if training.alignment else [query, t_loss]


def _table(name: str, **keys: Any) -> LossTable:
    return LossTable.model_validate({"name": name} | keys)
