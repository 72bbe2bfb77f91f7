"""One fold with one seed: training, calibration and evaluation, each taken from what is finished where it is."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsseg.data.folds import Fold
from fsseg.data.on_demand import OnDemand
from fsseg.evaluation.evaluate import evaluate
from fsseg.evaluation.files import Kept, write_evaluation
from fsseg.evaluation.scores import SCORES, CaseScore, read_scores
from fsseg.interfaces import Backbone, FittedThreshold
from fsseg.model.checkpoint import load_into, load_trained
from fsseg.model.variants import State, Variant, assemble, load_threshold
from fsseg.model.whole import in_place
from fsseg.recipe.parts import build_parts, states_for
from fsseg.recipe.tables import Recipe
from fsseg.recipe.trainings import SharedTraining, trainings_of
from fsseg.runs.folder import TrainingFolder
from fsseg.runs.listeners import tell_of_evaluation
from fsseg.runs.plan import FoldPlan, calibration_identity, evaluation_identity
from fsseg.runs.records import read_calibration
from fsseg.runs.stages import FinishedStage, Stage
from fsseg.runs.train import finish_training
from fsseg.system.files import write_json
from fsseg.system.random import seeded
from fsseg.training.calibration import calibrate
from fsseg.training.episodes import CALIBRATION_STREAM


@dataclass(frozen=True)
class FinishedFold:
    """A fold with one seed, finished.

    Attributes:
        fold: The fold.
        seed: The seed.
        stages: By training, the folders of its stages "train", "calibrate" and "evaluate".
        scores: The scores of all variants, in the recipe's order.
    """

    fold: Fold
    seed: int
    stages: list[dict[str, Path]]
    scores: list[CaseScore]

    def dumps(self) -> dict[str, Any]:
        """As plain values, without the scores, which are in the stages."""
        names = []
        for folders in self.stages:
            names.append({stage: folder.name for stage, folder in folders.items()})
        return {"fold": self.fold.index, "seed": self.seed, "stages": names}


def load_finished(
    recipe: Recipe, folds: list[Fold], values: dict[str, Any], stages: Path
) -> FinishedFold:
    """A finished fold from what `FinishedFold.dumps` said of it; its scores are read from the folder of all stages."""
    [fold] = [fold for fold in folds if fold.index == values["fold"]]
    folders = []
    scores: list[CaseScore] = []
    for names in values["stages"]:
        of_training = {stage: stages / name for stage, name in names.items()}
        folders.append(of_training)
        scores += read_scores(of_training["evaluate"] / SCORES)
    return FinishedFold(fold, values["seed"], folders, in_order(recipe, scores))


def in_order(recipe: Recipe, scores: list[CaseScore]) -> list[CaseScore]:
    """The scores of several trainings in the order of the recipe's variants."""
    order = {variant.name: number for number, variant in enumerate(recipe.variants)}
    return sorted(scores, key=lambda score: order[score.variant])


def run_fold(plan: FoldPlan, ahead: Collection[Path] = ()) -> FinishedFold:
    """Trains, calibrates and evaluates every variant.

    Args:
        plan: The fold.
        ahead: Folders of trainings that this process finished before, of which trackers have heard.
    """
    stages: list[dict[str, Path]] = []
    scores: list[CaseScore] = []
    for training in trainings_of(plan.recipe):
        trained = finish_training(plan, training, ahead)
        backbone, variants = _load_variants(plan, training, trained)
        calibrated = plan.stages.finish(calibration_stage(plan, trained, backbone, variants))
        _load_thresholds(calibrated, variants)
        evaluated = plan.stages.finish(evaluation_stage(plan, calibrated, backbone, variants))
        stages.append(
            {
                "train": trained.folder,
                "calibrate": calibrated.folder,
                "evaluate": evaluated.folder,
            }
        )
        of_training = read_scores(evaluated.folder / SCORES)
        tell_of_evaluation(plan, training.names, evaluated.folder, of_training)
        scores += of_training
    return FinishedFold(plan.fold, plan.seed, stages, in_order(plan.recipe, scores))


def calibration_stage(
    plan: FoldPlan, trained: FinishedStage, backbone: Backbone, variants: list[Variant]
) -> Stage:
    """The stage in which the variants' thresholds are fitted to the ideal priors of training episodes."""

    def make(folder: Path) -> None:
        with seeded(plan.device, plan.seed, CALIBRATION_STREAM):
            calibration = calibrate(
                backbone,
                variants,
                plan.data.calibration_sampler,
                plan.recipe.calibration.episodes,
                seed=plan.seed,
                device=plan.device,
                classes=plan.calibration_classes,
                progress=plan.progress,
            )
        write_json(TrainingFolder(folder).calibration, calibration.dumps())

    fitted = [v for v in variants if isinstance(v.segmenter.threshold, FittedThreshold)]
    return Stage("calibrate", calibration_identity(plan, trained, fitted), make)


def evaluation_stage(
    plan: FoldPlan, calibrated: FinishedStage, backbone: Backbone, variants: list[Variant]
) -> Stage:
    """The stage in which the fold's queries are segmented and counted."""
    protocol = plan.recipe.protocol
    metrics = plan.recipe.metrics
    kept = Kept(protocol.save_labels, protocol.save_margins, plan.data.in_turn)

    def make(folder: Path) -> None:
        results = evaluate(
            backbone,
            variants,
            plan.data.assignments(plan.seed),
            plan.data.scans,
            plan.fold,
            seed=plan.seed,
            device=plan.device,
            metrics={metric.name: metric.build("metric") for metric in metrics},
            progress=plan.progress,
        )
        working = plan.data.run.scans.working
        grids = OnDemand(plan.fold.evaluated, lambda case: working[case].grid)
        write_evaluation(folder, results, grids, kept)

    return Stage("evaluate", evaluation_identity(plan, calibrated, variants), make)


def _load_variants(
    plan: FoldPlan, training: SharedTraining, trained: FinishedStage
) -> tuple[Backbone, list[Variant]]:
    """The trained backbone and the variants' segmenters, in evaluation mode."""
    checkpoint = TrainingFolder(trained.folder).checkpoint
    states = load_trained(checkpoint)
    backbone = plan.backbone.build("backbone").to(plan.device)
    load_into(backbone, states["backbone"], f"{checkpoint}: backbone {plan.backbone.name}")
    backbone.eval()
    return backbone, assemble_variants(plan, backbone, states, training)


def assemble_variants(
    plan: FoldPlan,
    backbone: Backbone,
    states: Mapping[str, State],
    training: SharedTraining,
) -> list[Variant]:
    """The variants of a training around its backbone, with the states that it left in its parts."""
    variants = []
    for table in training.variants:
        segmenter = assemble(
            table.name,
            backbone,
            states=states_for(table, training.table, states),
            mode=plan.recipe.mode,
            **in_place(build_parts(table, training.table)),
        )
        variants.append(Variant(table.name, segmenter.to(plan.device), table.scoring))
    return variants


def _load_thresholds(calibrated: FinishedStage, variants: list[Variant]) -> None:
    """Gives the variants' thresholds what calibration found."""
    file = TrainingFolder(calibrated.folder).calibration
    states = read_calibration(file)["states"]
    for variant in variants:
        threshold = variant.segmenter.threshold
        if variant.name in states and isinstance(threshold, FittedThreshold):
            load_threshold(variant.name, threshold, states[variant.name])
