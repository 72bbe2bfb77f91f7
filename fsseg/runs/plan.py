"""What a run does for one fold with one seed, before any of it is made, and what its stages depend on."""

from dataclasses import dataclass
from typing import Any

import torch

from fsseg.data.folds import Fold
from fsseg.model.variants import Variant
from fsseg.plugins.manager import registry
from fsseg.plugins.options import schema
from fsseg.recipe.losses import losses_of
from fsseg.recipe.tables import ComponentTable, Recipe, TrainingTable
from fsseg.recipe.updates import optimiser_of, schedules_of
from fsseg.runs.data import FoldData
from fsseg.runs.identity import component_identity, machine, stage_source
from fsseg.runs.stages import FinishedStage, Stages
from fsseg.system.devices import has_bfloat16, threads_for
from fsseg.system.progress import Progress

MANY_CLASSES = 5
"""Classes of a calibration episode where a protocol segments all classes together: the paper's number."""


@dataclass(frozen=True)
class FoldPlan:
    """A fold with one seed, of which nothing need be there yet.

    Attributes:
        recipe: The recipe, its sweep written out.
        data: The fold's data.
        seed: The seed.
        device: Where to compute.
        stages: Where finished stages are kept.
        progress: Follows the stages.
    """

    recipe: Recipe
    data: FoldData
    seed: int
    device: torch.device
    stages: Stages
    progress: Progress

    @property
    def fold(self) -> Fold:
        """The cases of the fold."""
        return self.data.fold

    @property
    def calibration_classes(self) -> int:
        """Classes of a calibration episode at most."""
        usual = MANY_CLASSES if self.data.run.protocol.together else 1
        return self.recipe.calibration.classes or usual

    @property
    def backbone(self) -> ComponentTable:
        """The backbone's table; one that takes a seed starts from the run's, unless the recipe says otherwise."""
        table = self.recipe.backbone
        component = registry().find("backbone", table.name).load()
        if "seed" not in schema(component).model_fields:
            return table
        return ComponentTable(**{"seed": self.seed} | table.model_dump())


def training_identity(plan: FoldPlan, table: TrainingTable) -> dict[str, Any]:
    """All that a training depends on."""
    recipe = plan.recipe
    speed = recipe.speed.model_dump(exclude={"together", "checkpoint_every", "threads"})
    threads = threads_for(recipe.speed.threads)
    return {
        "stage": "train",
        "source": stage_source("train"),
        "training": table.model_dump(),
        "head": component_identity("head", table.head),
        "prototypes": component_identity("prototypes", table.prototypes),
        "segmenter": table.segmenter and component_identity("segmenter", table.segmenter),
        "threshold": table.threshold and component_identity("threshold", table.threshold),
        "losses": [component_identity("loss", loss) for loss in losses_of(table)],
        "optimiser": component_identity("optimiser", optimiser_of(table)),
        "schedules": [component_identity("schedule", each) for each in schedules_of(table)],
        "backbone": component_identity("backbone", plan.backbone),
        "intensity": plan.data.run.intensity.identity,
        "supervoxels": component_identity("supervoxels", recipe.supervoxels),
        "episodes": recipe.episodes.model_dump(),
        "pairs": plan.data.run.pairs.identity,
        "augmentations": _augmentation_identities(recipe),
        "seed": plan.seed,
        "mode": recipe.mode,
        "speed": speed | {"bfloat16": has_bfloat16(plan.device)},
        "statistics": plan.data.run.dataset.statistics,
        "data": plan.data.training_content,
        "environment": machine(plan.device.type) | {"threads": threads},
    }


def _augmentation_identities(recipe: Recipe) -> list[dict[str, Any]]:
    tables = recipe.episodes.written_out()
    return [component_identity("augmentation", table) for table in tables]


def calibration_identity(
    plan: FoldPlan, trained: FinishedStage, fitted: list[Variant]
) -> dict[str, Any]:
    """All that the fitted thresholds of a training depend on."""
    return {
        "stage": "calibrate",
        "source": stage_source("calibrate"),
        "trained": trained.identity,
        "episodes": plan.recipe.calibration.episodes,
        "classes": plan.calibration_classes,
        "pairs": plan.data.run.calibration_pairs.identity,
        "variants": _variant_identities(plan, fitted),
    }


def evaluation_identity(
    plan: FoldPlan, calibrated: FinishedStage, variants: list[Variant]
) -> dict[str, Any]:
    """All that the scores of a fold depend on."""
    protocol = plan.recipe.protocol
    return {
        "stage": "evaluate",
        "source": stage_source("evaluate"),
        "calibrated": calibrated.identity,
        "variants": _variant_identities(plan, variants),
        "refiners": _refiner_identities(plan, variants),
        "evaluation": plan.data.evaluation_content,
        "protocol": component_identity("protocol", protocol.component),
        "folds": component_identity("folds", protocol.folds),
        "save_labels": protocol.save_labels,
        "save_margins": protocol.save_margins,
        "metrics": [component_identity("metric", metric) for metric in plan.recipe.metrics],
    }


def _variant_identities(plan: FoldPlan, variants: list[Variant]) -> list[list[Any]]:
    """The components of variants; calibration does not depend on their refiners, which come later."""
    tables = {table.name: table for table in plan.recipe.variants}
    identities = []
    for variant in variants:
        table = tables[variant.name]
        identities.append(
            [
                variant.name,
                *(component_identity(kind, scorer) for kind, scorer in table.scorers.items()),
                component_identity("threshold", table.threshold),
            ]
        )
    return identities


def _refiner_identities(plan: FoldPlan, variants: list[Variant]) -> list[list[Any]]:
    tables = {table.name: table for table in plan.recipe.variants}
    identities = []
    for variant in variants:
        refiners = tables[variant.name].refiners
        identities.append([component_identity("refiner", refiner) for refiner in refiners])
    return identities
