"""How a recipe names an optimiser and schedules: what cannot be named, and what does not go together."""

from typing import TYPE_CHECKING, Any

from fsseg.errors import OptionsError
from fsseg.plugins.manager import registry
from fsseg.plugins.options import Problems, refusal, schema
from fsseg.recipe.components import ComponentTable, Kind, PlainTable

if TYPE_CHECKING:
    from fsseg.recipe.tables import TrainingTable, VariantTable

BESIDE_A_SEGMENTER = ("prototypes", "head")
"""Keys of a table that a whole segmenter stands in the place of."""

OF_SGD = ("learning_rate", "momentum", "weight_decay")
"""Keys of [training] that are the numbers of SGD, where no optimiser is named."""

OF_STEP_DECAY = ("decay", "decay_every")
"""Keys of [training] that are the numbers of the published schedule, where neither is named."""

DECIDED_OF_OPTIMISERS = {
    "params": "the weights are those that training finds",
    "foreach": "[speed] fused says how the weights are updated",
    "fused": "[speed] fused says it",
    "capturable": "[speed] capture says it",
    "differentiable": "no gradient goes through an update here",
    "maximize": "training goes down its losses",
}
"""Arguments of torch's optimisers that are no options, each with the reason."""

DECIDED_OF_SCHEDULES = {
    "optimizer": "it is that of [training.optimiser]",
    "last_epoch": "a training that goes on knows its step by itself",
    "scale_fn": "a recipe holds no function; a schedule of a plugin does",
    "epochs": "there are steps and no epochs here, so give total_steps",
    "steps_per_epoch": "there are steps and no epochs here, so give total_steps",
}
"""Likewise of torch's schedules."""

NO_OPTIMISERS = {
    "LBFGS": "it asks for the loss of one episode several times a step; take another optimiser",
    "SparseAdam": "it takes sparse gradients alone, and no network here has any; take Adam",
    "Muon": "it takes matrices alone, and the weights of a convolution have four axes; take AdamW",
}
"""Optimisers of torch that cannot be named, each with the reason."""

OF_A_FUNCTION = "it takes a function, which a recipe cannot hold; write a schedule as a plugin"

NO_SCHEDULES = {
    "LambdaLR": OF_A_FUNCTION,
    "MultiplicativeLR": OF_A_FUNCTION,
    "ReduceLROnPlateau": "it waits for a loss, and a schedule here knows the step alone; take another schedule",
    "SequentialLR": "give a list of schedules, and training.milestones for the steps at which the next begins",
    "ChainedScheduler": "schedules follow one another here, in a list with training.milestones; several at a time "
    "take a plugin",
}
"""Schedules of torch that cannot be named, each with the reason."""


REFUSED = {"optimiser": NO_OPTIMISERS, "schedule": NO_SCHEDULES}
DECIDED = {"optimiser": DECIDED_OF_OPTIMISERS, "schedule": DECIDED_OF_SCHEDULES}


class UpdateKind(Kind):
    """Marks an optimiser or a schedule; it is built when a recipe is checked, since torch says no sooner what it refuses."""

    def check(self, value: ComponentTable | None, context: PlainTable) -> None:
        """Raises ValidationError for a name that cannot be used, or options that do not fit."""
        if value is None:
            return
        reason = REFUSED[self.name].get(value.name)
        if reason:
            raise refusal([("name", f"{value.name} cannot be used: {reason}")])
        problems = self._decided(value)
        if problems:
            raise refusal(problems)
        super().check(value, context)
        try:
            registry().find(self.name, value.name).load()(**value.options)
        except OptionsError as error:
            raise refusal(error.problems) from None

    def _decided(self, value: ComponentTable) -> Problems:
        """The options that are decided elsewhere, unless a plugin's component has them."""
        if value.name not in registry().names(self.name):
            return []
        options = schema(registry().find(self.name, value.name).load()).model_fields
        decided = DECIDED[self.name]
        return [
            (key, f"is not for a recipe to say: {decided[key]}; leave it out")
            for key in value.options
            if key in decided and key not in options
        ]


def optimiser_of(table: "TrainingTable") -> ComponentTable:
    """The optimiser of a training: the one that it names, or SGD with the table's numbers."""
    if table.optimiser is not None:
        return table.optimiser
    return ComponentTable(
        name="SGD",
        lr=table.learning_rate,
        momentum=table.momentum,
        weight_decay=table.weight_decay,
    )


def rate_key_of(table: "TrainingTable") -> str:
    """The key of a recipe that says how large the learning rate is."""
    for number, schedule in enumerate(table.schedule):
        if "max_lr" in schedule.options:
            return f"training.schedule.{number}.max_lr"
    return "training.learning_rate" if table.optimiser is None else "training.optimiser.lr"


def schedules_of(table: "TrainingTable") -> list[ComponentTable]:
    """The schedules of a training: those that it names, or the published one with the table's numbers.

    There is none beside an optimiser that is named: its rate stays as it is.
    """
    if table.schedule or table.optimiser is not None:
        return table.schedule
    return [ComponentTable(name="step_decay", factor=table.decay, every=table.decay_every)]


def stretches_of(table: "TrainingTable") -> list[tuple[int, int]]:
    """By schedule, the step at which it begins and the number of steps that it is for."""
    begins = [0, *table.milestones]
    ends = [*table.milestones, max(table.steps, begins[-1] + 1)]
    return [(begin, end - begin) for begin, end in zip(begins, ends)]


def replaced_keys(optimiser: object, schedule: object) -> tuple[str, ...]:
    """The keys of [training] that say nothing where an optimiser or schedules are named."""
    if optimiser:
        return OF_SGD + OF_STEP_DECAY
    return OF_STEP_DECAY if schedule else ()


def without_replaced(table: "TrainingTable", values: dict[str, Any]) -> dict[str, Any]:
    """The values of a table without those that say nothing in it, unless they were given."""
    replaced = replaced_keys(table.optimiser, table.schedule)
    left_out = set(replaced) - table.model_fields_set
    return {key: value for key, value in values.items() if key not in left_out}


def merged(base: PlainTable, given: PlainTable) -> PlainTable:
    """The values of [training] with what a row has instead.

    An optimiser (or schedules) of the row's own takes the place of all that the table says of it, and a segmenter that of
    prototypes and head.
    """
    replaced = replaced_keys(given.get("optimiser"), given.get("schedule"))
    if given.get("segmenter") is not None:
        replaced += BESIDE_A_SEGMENTER
    if "schedule" in given or "optimiser" in given:
        replaced += ("milestones",)
    if "optimiser" in given:
        replaced += ("schedule",)
    kept = {key: value for key, value in base.items() if key not in replaced}
    return kept | given


def problems_of_training(table: "TrainingTable") -> Problems:
    """What does not go together in a table: nothing if it can be trained so."""
    return (
        problems_beside_a_segmenter(table)
        + _problems_of_updates(table)
        + _problems_of_validation(table)
    )


def problems_beside_a_segmenter(table: "TrainingTable | VariantTable") -> Problems:
    """The prototypes and the head that a table names beside a segmenter, which stands in their place."""
    if table.segmenter is None:
        return []
    fields = type(table).model_fields
    sentence = (
        f"expected none beside the segmenter {table.segmenter.name}, which stands in the place of prototypes and "
        "head; leave one of them out"
    )
    named = [key for key in BESIDE_A_SEGMENTER if getattr(table, key) != fields[key].default]
    return [(key, sentence) for key in named]


def _problems_of_updates(table: "TrainingTable") -> Problems:
    """What does not go together in the optimiser and its schedules."""
    beside = "[training.optimiser]" if table.optimiser else "training.schedule"
    given = set(replaced_keys(table.optimiser, table.schedule)) & table.model_fields_set
    sentence = (
        f"is a number of the published optimiser and schedule, and beside it {beside} names another, "
        "expected one of the two; leave one out"
    )
    if given:
        return [(key, sentence) for key in sorted(given)]
    return _problems_of_milestones(table) or _problems_of_schedules(table)


def _problems_of_validation(table: "TrainingTable") -> Problems:
    """What is wrong with what a training keeps."""
    if table.keep == "best" and not table.validation_scans:
        sentence = (
            "is 'best', and nothing is measured by which a state could be the best, expected training.validation_scans of "
            "at least 1 beside it; set that, or this to 'last'"
        )
        return [("keep", sentence)]
    return []


def _problems_of_milestones(table: "TrainingTable") -> Problems:
    """What is wrong with the steps at which the next schedule begins."""
    milestones = table.milestones
    count = max(len(table.schedule) - 1, 0)
    if len(milestones) != count:
        return [
            (
                "milestones",
                f"has {len(milestones)} steps, expected {count}: one for each of the {len(table.schedule)} schedules of "
                "training.schedule but the first; correct one of the two",
            )
        ]
    if milestones != sorted(set(milestones)) or any(step >= table.steps for step in milestones):
        return [
            (
                "milestones",
                f"is {milestones}, expected rising steps below the training's {table.steps}; correct it or training.steps",
            )
        ]
    return []


def _problems_of_schedules(table: "TrainingTable") -> Problems:
    """What torch or a plugin says against the schedules of this optimiser."""
    if not table.schedule:
        return []
    import torch  # with the components that a recipe names, not with recipes

    named = optimiser_of(table)
    for number, schedule in enumerate(table.schedule):
        _, steps = stretches_of(table)[number]
        weights = [torch.nn.Parameter(torch.zeros(2, 2))]
        optimiser = named.build("optimiser")(weights, fused=False)
        try:
            schedule.build("schedule")(optimiser, steps)
        except (ValueError, TypeError, ArithmeticError) as error:
            sentence = (
                f"{schedule.name} cannot be used with {named.name} ({error}); correct its options"
            )
            return [(f"schedule.{number}.name", sentence)]
    return []
