"""Recipes: a whole experiment in one TOML file, its tables in the order in which the data flows."""

import json
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from fsseg.errors import RecipeError
from fsseg.plugins.options import explain, refusal
from fsseg.recipe.components import (
    PARTLY,
    ComponentTable,
    Content,
    Kind,
    OneOrMany,
    Part,
    PlainTable,
    Table,
)
from fsseg.recipe.episodes import EpisodeTable
from fsseg.recipe.grid import GridTable
from fsseg.recipe.launcher import LauncherTable
from fsseg.recipe.losses import DistinctLosses, LossTable, losses_of
from fsseg.recipe.names import NewMetric, NewName
from fsseg.recipe.protocol_table import ProtocolTable
from fsseg.recipe.speed import SpeedTable
from fsseg.recipe.updates import (
    BESIDE_A_SEGMENTER,
    UpdateKind,
    merged,
    problems_beside_a_segmenter,
    problems_of_training,
    without_replaced,
)
from fsseg.recipe.values import MOST_CLASSES, Seeds
from fsseg.system.files import fingerprint


class TrainingTable(Table):
    """The head and the extractor to train with the backbone, and the training's numbers; the defaults are the paper's."""

    head: Annotated[ComponentTable, Kind("head")] = Field(
        default=ComponentTable(name="tpm"), description="the head whose state is trained"
    )
    prototypes: Annotated[ComponentTable, Kind("prototypes")] = Field(
        default=ComponentTable(name="map"), description="the extractor to train with"
    )
    segmenter: Annotated[ComponentTable | None, Kind("segmenter")] = Field(
        default=None,
        description="a whole segmenter to train, in place of prototypes and head",
    )
    threshold: Annotated[ComponentTable | None, Kind("threshold")] = Field(
        default=None,
        description="the threshold policy whose prior the losses see, and which is trained if it has parameters; "
        "when omitted, the prior is even",
    )
    classes: int = Field(
        default=1,
        ge=1,
        le=MOST_CLASSES,
        description="supervoxels of an episode at most; 5 for multi-foreground training, as in the paper",
    )
    steps: int = Field(default=50_000, ge=0, description="optimiser steps, one episode each")
    learning_rate: float = Field(default=1e-3, gt=0, description="of SGD, at the start")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(default=5e-4, ge=0, description="of SGD, on everything trainable")
    decay: float = Field(
        default=0.95, gt=0, le=1, description="factor on the learning rate every decay_every steps"
    )
    decay_every: int = Field(
        default=1000, ge=1, description="steps between two decays of the learning rate"
    )
    optimiser: Annotated[ComponentTable | None, UpdateKind("optimiser")] = Field(
        default=None,
        description="what updates the weights; when omitted SGD with learning_rate, momentum and weight_decay",
    )
    schedule: Annotated[
        list[Annotated[ComponentTable, UpdateKind("schedule")]], OneOrMany(drops_none=False)
    ] = Field(
        default=[],
        description="how the learning rate moves, one schedule after the other; when omitted by decay and decay_every, "
        "or not at all beside [training.optimiser]",
    )
    milestones: list[Annotated[int, Field(ge=1)]] = Field(
        default=[], description="steps at which the next schedule of the list begins"
    )
    gradient_clip: float = Field(
        default=1.0, gt=0, description="largest absolute value of a gradient's elements"
    )
    validation_scans: int = Field(
        default=0,
        ge=0,
        description="training scans (the fold's last) that are set aside to measure the training on; none of them trains",
    )
    validate_every: int = Field(
        default=1000,
        ge=1,
        description="steps between two measurements, of which the last follows the last step",
    )
    validation_episodes: int = Field(
        default=50, ge=1, description="episodes of the scans set aside, the same each time"
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="the state that a training ends with: its last, or the best by the Dice under the estimated prior",
    )
    losses: Annotated[list[Annotated[LossTable, Kind("loss")]], DistinctLosses()] = Field(
        default=[],
        description="what is minimised, each by its name or as a table with its weight; when empty query, alignment and "
        "t_loss with the numbers of the next three keys",
    )
    background_weight: float = Field(
        default=0.1, gt=0, description="weight of background pixels in the query loss"
    )
    alignment: float = Field(
        default=1.0, ge=0, description="weight of the prototype alignment loss"
    )
    t_loss: float = Field(default=0.0, ge=0, description="weight of ADNet's T loss; 0 for TPM")
    average_rate: float = Field(
        default=1e-3, gt=0, le=1, description="rate of the running averages"
    )

    @property
    def unused(self) -> tuple[str, ...]:
        """Prototypes and head beside a segmenter."""
        return BESIDE_A_SEGMENTER if self.segmenter is not None else ()

    @model_serializer(mode="wrap")
    def _without_replaced(self, write: SerializerFunctionWrapHandler) -> PlainTable:
        return without_replaced(self, write(self))

    @model_validator(mode="after")
    def _goes_together(self, info: ValidationInfo) -> "TrainingTable":
        if info.context is not None and not info.context.get(PARTLY):
            problems = problems_of_training(self)
            if problems:
                raise refusal(problems)
        return self


class CalibrationTable(Table):
    """The episodes that thresholds are fitted to: their ideal priors in the training fold."""

    episodes: int = Field(
        default=1000, ge=2, description="episodes to draw; each is encoded once for all variants"
    )
    classes: int | None = Field(
        default=None,
        ge=1,
        le=MOST_CLASSES,
        description="classes of an episode at most; when omitted 1, or 5 where all classes are segmented together",
    )
    source: Annotated[ComponentTable | None, Kind("episodes")] = Field(
        default=None, description="where its episodes come from; when omitted, as in [episodes]"
    )


class VariantTable(Table):
    """A row of the table of results: the components to evaluate the trained backbone with."""

    name: Annotated[str, NewName()] = Field(min_length=1, description="the row's name")
    prototypes: Annotated[ComponentTable, Kind("prototypes")] = Field(
        default=ComponentTable(name="map"), description="the extractor"
    )
    head: Annotated[ComponentTable, Kind("head")] = Field(
        default=ComponentTable(name="tpm"), description="the head; it takes the trained state"
    )
    segmenter: Annotated[ComponentTable | None, Kind("segmenter")] = Field(
        default=None, description="a whole segmenter, in place of prototypes and head"
    )
    threshold: Annotated[ComponentTable, Kind("threshold")] = Field(
        description="the threshold policy"
    )
    refiners: Annotated[list[Annotated[ComponentTable, Kind("refiner")]], OneOrMany()] = Field(
        default=[],
        description="what decides again over the whole volume, one after the other; one name or table, or a list",
    )
    training: Annotated[dict[str, Any], Part(TrainingTable)] = Field(
        default={}, description="what differs from [training]: a training of this row's own"
    )

    @property
    def unused(self) -> tuple[str, ...]:
        """Prototypes and head beside a segmenter."""
        return BESIDE_A_SEGMENTER if self.segmenter is not None else ()

    @model_validator(mode="after")
    def _no_head_beside_a_segmenter(self) -> "VariantTable":
        problems = problems_beside_a_segmenter(self)
        if problems:
            raise refusal(problems)
        return self

    @property
    def scorers(self) -> dict[str, ComponentTable]:
        """The components that make the logits, by kind: the prototypes and the head, or the segmenter."""
        if self.segmenter is not None:
            return {"segmenter": self.segmenter}
        return {"prototypes": self.prototypes, "head": self.head}

    @property
    def scoring(self) -> str:
        """A key that variants with the same prototypes and head share; their logits are the same after one training."""
        parts = [table.model_dump() for table in self.scorers.values()]
        return fingerprint(parts)[:16]


class Recipe(Table):
    """A whole experiment: the tables of a recipe file as fields that can be changed.

    Assigning to a field checks the value's type and range. `check` also looks at the components and their options.

    Example:
        >>> recipe = fsseg.load_recipe("recipes/tpm_mp5_linest.toml")
        >>> recipe.training.steps = 500
        >>> recipe.variants[0].threshold = {"name": "fixed", "prior": 0.2}
        >>> recipe.check()
        >>> results = fsseg.run(recipe)
    """

    seed: Seeds = Field(
        default=0,
        description="seed of training, calibration and what a protocol draws; several for a run with each",
    )
    mode: Literal["default", "reference"] = Field(
        default="default",
        description="resize logits and decide at image size, or as the published code does",
    )
    dataset: Annotated[ComponentTable, Kind("dataset")] = Field(description="the scans")
    grid: GridTable = GridTable()
    supervoxels: Annotated[ComponentTable, Kind("supervoxels")] = Field(
        default=ComponentTable(name="felzenszwalb"), description="pseudo-classes for training"
    )
    episodes: EpisodeTable = EpisodeTable()
    backbone: Annotated[ComponentTable, Kind("backbone")] = Field(
        description="the feature extractor"
    )
    intensity: Annotated[ComponentTable | None, Kind("intensity")] = Field(
        default=None,
        description="how intensities are scaled; by the rule that the backbone asks for when omitted",
    )
    training: TrainingTable = TrainingTable()
    speed: SpeedTable = SpeedTable()
    calibration: CalibrationTable = CalibrationTable()
    protocol: ProtocolTable = ProtocolTable()
    variants: list[VariantTable] = Field(min_length=1, description="the rows of the table")
    metrics: list[Annotated[ComponentTable, Kind("metric"), NewMetric()]] = Field(
        default=[], description="what is measured besides Dice"
    )
    sweep: dict[str, list[Any]] = Field(
        default={},
        description='values by key of a row, such as "prototypes.count" = [1, 3, 5]: every combination becomes a row',
    )
    trackers: list[Annotated[ComponentTable, Kind("tracker")]] = Field(
        default=[], description="who else is told how the run goes"
    )
    launcher: LauncherTable = LauncherTable()

    @model_validator(mode="after")
    def _trainings_of_rows(self, info: ValidationInfo) -> "Recipe":
        """Checks each row's training, of which the row gives some keys and [training] the others."""
        for number, variant in enumerate(self.variants):
            if info.context is not None and variant.training:
                table = self.training_of(variant)
                problems = problems_of_training(table)
                if problems:
                    place = f"variants.{number}.training"
                    raise refusal([(f"{place}.{key}", told) for key, told in problems])
        return self

    def check(self) -> None:
        """Checks the recipe as a whole, as reading it from a file does.

        Raises:
            RecipeError: A line for every value, component, option or name that cannot be run.
        """
        checked(self.dumps(), "recipe")

    @property
    def seeds(self) -> list[int]:
        """The seeds to run with, also where there is only one."""
        if isinstance(self.seed, int):
            return [self.seed]
        return list(self.seed)

    def training_of(self, variant: VariantTable) -> TrainingTable:
        """The training that a variant is evaluated with: [training] with what the variant has instead."""
        return TrainingTable.model_validate(merged(self.training.model_dump(), variant.training))

    def dumps(self) -> PlainTable:
        """The recipe as plain values, with every default written out."""
        return self.model_dump(mode="json", exclude_none=True)

    def toml(self) -> str:
        """The recipe as TOML, complete and ready to run again."""
        return tomli_w.dumps(self.dumps())


def checked(tables: PlainTable, source: str) -> Recipe:
    """The recipe of plain tables.

    Raises:
        RecipeError: All that is wrong with it, a line for each problem; `source` is where the tables are from.
    """
    try:
        text = json.dumps(tables, default=str)
    except ValueError:
        raise RecipeError(
            f"{source}: holds a whole number of thousands of digits or a table within itself, expected what TOML holds; "
            "correct it"
        ) from None
    try:
        recipe = Recipe.model_validate_json(text, strict=True, context={})
    except ValidationError as error:
        contents = Content(table=Recipe)
        problems = explain(error, lambda location: contents.at(location).keys)
    else:
        _check_losses(recipe, source)
        return recipe
    lines = [_line(source, where, sentence) for where, sentence in problems]
    raise RecipeError("\n".join(lines))


def _check_losses(recipe: Recipe, source: str) -> None:
    """Raises RecipeError for a training that gives its losses in two ways, as one of its variants may make it do."""
    for variant in recipe.variants:
        try:
            losses_of(recipe.training_of(variant))
        except RecipeError as error:
            raise RecipeError(f"{source}: training of {variant.name!r}: {error}") from None


def _line(source: str, where: str, sentence: str) -> str:
    """A problem with its table and key as they stand in the file."""
    *table, key = where.split(".")
    place = f"[{'.'.join(table)}]" if table else "top level"
    if len(table) > 1 and table[0] == "variants":
        row = f"[[variants]] number {int(table[1]) + 1}"
        place = ", ".join([row, *table[2:]])
    return f"{source}: {place}: {key}: {sentence}"
