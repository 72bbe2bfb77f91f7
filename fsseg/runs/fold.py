"""One fold with one seed: training, calibration and evaluation, each taken from what is finished where it is."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fsseg.data.folds import Fold
from fsseg.errors import FssegError
from fsseg.evaluation.decisions import PRIORS, write_margins
from fsseg.evaluation.evaluate import evaluate
from fsseg.evaluation.label_files import write_labels
from fsseg.evaluation.scores import SCORES, CaseScore, read_scores
from fsseg.interfaces import FittedThreshold
from fsseg.model.checkpoint import load_trained, save_trained
from fsseg.model.segmenter import Segmenter
from fsseg.model.variants import Variant
from fsseg.plugins.manager import hooks
from fsseg.recipe.tables import ComponentTable, Recipe, TrainingTable, VariantTable
from fsseg.runs.data import RunData
from fsseg.runs.identity import component_identity, environment
from fsseg.runs.stages import Stages
from fsseg.system.devices import has_bfloat16, threads_for
from fsseg.system.files import fingerprint, read_json, read_lines, reading, write_json, write_lines
from fsseg.system.progress import Progress
from fsseg.system.random import seeded
from fsseg.training.calibration import calibrate
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.loop import CALIBRATION_STREAM, TRAINING_STREAM, Training, train_together
from fsseg.training.snapshots import Snapshots

LOG = "train.jsonl"
"""The file of a training's losses."""

LABELS = "labels"
"""The folder of an evaluation's label maps."""

MANY_CLASSES = 5
"""Classes of a calibration episode where a protocol segments all classes together: the paper's number."""


@dataclass(frozen=True)
class FinishedStage:
    """A finished stage: all that it depends on, and its folder."""

    identity: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class FinishedFold:
    """A fold with one seed: by training the folders of its finished stages, and the scores of all rows in order."""

    fold: Fold
    seed: int
    stages: list[dict[str, Path]]
    scores: list[CaseScore]

    def dumps(self) -> dict[str, Any]:
        """As plain values, without the scores, which are in the stages."""
        stages = [{stage: folder.name for stage, folder in one.items()} for one in self.stages]
        return {"fold": self.fold.index, "seed": self.seed, "stages": stages}


def load_finished(
    recipe: Recipe, folds: list[Fold], values: dict[str, Any], stages: Path
) -> FinishedFold:
    """What `FinishedFold.dumps` told, with its scores read from the folder of all stages."""
    [fold] = [fold for fold in folds if fold.index == values["fold"]]
    folders = [{stage: stages / name for stage, name in one.items()} for one in values["stages"]]
    scores = [score for one in folders for score in read_scores(one["evaluate"] / SCORES)]
    return FinishedFold(fold, values["seed"], folders, in_order(recipe, scores))


def in_order(recipe: Recipe, scores: list[CaseScore]) -> list[CaseScore]:
    """The scores of several trainings in the order of the recipe's rows."""
    order = [row.name for row in recipe.variants]
    return sorted(scores, key=lambda score: order.index(score.variant))


@dataclass(frozen=True)
class FoldRun:
    """A fold of a run with one seed.

    Attributes:
        recipe: The recipe.
        data: Its data.
        fold: The fold.
        seed: The seed.
        stages: Where finished stages are kept.
        device: Where to compute.
        progress: Follows the stages.
        told: Fingerprints of the trainings whose steps hooks were told of.
    """

    recipe: Recipe
    data: RunData
    fold: Fold
    seed: int
    stages: Stages
    device: torch.device
    progress: Progress
    told: set[str] = field(default_factory=set)

    def finish(self) -> FinishedFold:
        """Trains, calibrates and evaluates every row."""
        stages: list[dict[str, Path]] = []
        scores: list[CaseScore] = []
        for training, rows in rows_by_training(self.recipe):
            trained = self._train(training)
            backbone, variants = self._load(trained, training, rows)
            calibrated = self._calibrate(trained, backbone, variants)
            evaluated = self._evaluate(calibrated, backbone, variants)
            stages.append(
                {
                    "train": trained.folder,
                    "calibrate": calibrated.folder,
                    "evaluate": evaluated.folder,
                }
            )
            found = read_scores(evaluated.folder / SCORES)
            self._tell_of_scores(rows, found)
            scores += found
        return FinishedFold(self.fold, self.seed, stages, in_order(self.recipe, scores))

    def _tell_of_scores(self, rows: list[VariantTable], scores: list[CaseScore]) -> None:
        for row in rows:
            own = [score for score in scores if score.variant == row.name]
            hooks().variant_evaluated(
                variant=row.name, fold=self.fold.index, seed=self.seed, scores=own
            )

    @property
    def calibration_classes(self) -> int:
        """Classes of a calibration episode: as many as training may have where all are segmented together."""
        return self.recipe.calibration.classes or (
            MANY_CLASSES if self.data.protocol.together else 1
        )

    def begin(
        self,
        training: TrainingTable,
        sampler: EpisodeSampler | None = None,
        *,
        saver: Snapshots | None = None,
        told: bool = True,
    ) -> Training:
        """A training at its first step or where it was saved last; hooks are told of it.

        Episodes are the fold's own unless others are given.
        """
        with seeded(self.device, self.seed, TRAINING_STREAM, 0):
            backbone, head = self._build_trainable(training)
            return Training(
                backbone, training.prototypes.build("prototypes"), head,
                sampler or self.data.sampler(self.fold, backbone.intensity), training,
                seed=self.seed, mode=self.recipe.mode, device=self.device, speed=self.recipe.speed,
                tell=partial(self._tell, training) if told else None, saver=saver,
            )  # fmt: skip

    def _tell(self, training: TrainingTable, record: dict[str, Any]) -> None:
        rows = next(rows for other, rows in rows_by_training(self.recipe) if other == training)
        variants = [row.name for row in rows]
        self.told.add(fingerprint(training.model_dump()))
        hooks().step_logged(variants=variants, fold=self.fold.index, seed=self.seed, values=record)

    def training_folder(self, training: TrainingTable) -> Path:
        """Where this training is once it is finished."""
        return self.stages.path("train", self._training_identity(training))

    def is_trained(self, training: TrainingTable) -> bool:
        """Whether this training is finished."""
        return self.stages.is_finished(self.training_folder(training))

    def snapshots(self, training: TrainingTable) -> Snapshots:
        """Where this training keeps its state until it is finished."""
        folder = self.stages.checkpoints(self.training_folder(training))
        return Snapshots(folder, self.recipe.speed.checkpoint_every, self.progress)

    def resume(self, training: TrainingTable) -> Training:
        """This training where it was saved last; who calls it holds the stage's lock."""
        saver = self.snapshots(training)
        if self.stages.fresh:
            saver.clear()
        return self.begin(training, saver=saver)

    def keep(self, training: TrainingTable, finish: Callable[[], Training]) -> FinishedStage:
        """The stage of a training, which is finished first if it is not there yet."""

        def fill(folder: Path) -> None:
            done = finish()
            write_lines(folder / LOG, done.log.records())
            save_trained(folder / "checkpoint.safetensors", done.backbone, done.head)

        identity = self._training_identity(training)
        folder, reused = self.stages.finish("train", identity, fill)
        self.snapshots(training).clear()
        if reused:
            self.progress.note(f"training of fold {self.fold.index}: taken from {folder}")
            if fingerprint(training.model_dump()) not in self.told:
                for record in read_lines(folder / LOG):
                    self._tell(training, record)
        return FinishedStage(identity, folder)

    def _train(self, training: TrainingTable) -> FinishedStage:
        return self.keep(
            training, lambda: train_together([self.resume(training)], self.progress)[0]
        )

    def _training_identity(self, training: TrainingTable) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "stage": "train",
            "training": training.model_dump(),
            "head": _identity("head", training.head),
            "prototypes": _identity("prototypes", training.prototypes),
            "backbone": _identity("backbone", self._backbone_table()),
            "supervoxels": _identity("supervoxels", recipe.supervoxels),
            "episodes": recipe.episodes.model_dump(),
            "seed": self.seed,
            "mode": recipe.mode,
            "speed": recipe.speed.model_dump(exclude={"together", "checkpoint_every", "threads"})
            | {"bfloat16": has_bfloat16(self.device)},
            "statistics": self.data.dataset.statistics,
            "data": self.data.training_content(self.fold),
            "environment": environment(self.device.type)
            | {"threads": threads_for(recipe.speed.threads)},
        }

    def _load(
        self, trained: FinishedStage, training: TrainingTable, rows: list[VariantTable]
    ) -> tuple[nn.Module, list[Variant]]:
        """The trained backbone and the rows' segmenters, in evaluation mode."""
        state = load_trained(trained.folder / "checkpoint.safetensors")
        backbone, _ = self._build_trainable(training)
        backbone.load_state_dict(state["backbone"])
        backbone.eval()
        return backbone, self.assemble(backbone, state["head"], training, rows)

    def assemble(
        self,
        backbone: nn.Module,
        state: dict[str, torch.Tensor],
        training: TrainingTable,
        rows: list[VariantTable],
    ) -> list[Variant]:
        """The rows' segmenters around a backbone, with the state that a training left in its head."""
        variants = []
        for row in rows:
            head = load_head(row, state, training).to(self.device).eval()
            prototypes, threshold = (
                row.prototypes.build("prototypes"),
                row.threshold.build("threshold"),
            )
            refiners = [refiner.build("refiner") for refiner in row.refiners]
            segmenter = Segmenter(
                backbone, prototypes, head, threshold, refiners=refiners, mode=self.recipe.mode
            )
            variants.append(Variant(row.name, segmenter, row.scoring))
        return variants

    def _calibrate(
        self, trained: FinishedStage, backbone: nn.Module, variants: list[Variant]
    ) -> FinishedStage:
        asked, classes = self.recipe.calibration, self.calibration_classes
        fitted = [
            variant
            for variant in variants
            if isinstance(variant.segmenter.threshold, FittedThreshold)
        ]
        identity = {
            "stage": "calibrate",
            "trained": trained.identity,
            "episodes": asked.episodes,
            "classes": classes,
            "variants": self._row_identities(fitted),
        }

        def make(folder: Path) -> None:
            with seeded(self.device, self.seed, CALIBRATION_STREAM):
                calibration = calibrate(
                    backbone, variants, self.data.sampler(self.fold, backbone.intensity), asked.episodes,
                    seed=self.seed, device=self.device, classes=classes, progress=self.progress,
                )  # fmt: skip
            write_json(folder / "calibration.json", calibration.dumps())

        folder, _ = self.stages.finish("calibrate", identity, make)
        with reading(folder / "calibration.json"):
            states = dict(read_json(folder / "calibration.json")["states"])
        for variant in variants:
            if variant.name in states:
                variant.segmenter.threshold.load_state(states[variant.name])
        return FinishedStage(identity, folder)

    def _evaluate(
        self, calibrated: FinishedStage, backbone: nn.Module, variants: list[Variant]
    ) -> FinishedStage:
        asked = self.recipe.protocol
        identity = {
            "stage": "evaluate",
            "calibrated": calibrated.identity,
            "variants": self._row_identities(variants),
            "refiners": self._refiner_identities(variants),
            "evaluation": self.data.evaluation_content(self.fold),
            "save_labels": asked.save_labels,
            "save_margins": asked.save_margins,
            "metrics": [_identity("metric", metric) for metric in self.recipe.metrics],
        }

        def make(folder: Path) -> None:
            scans = self.data.scans(self.fold, backbone.intensity)
            assignments = self.data.assignments(self.fold, scans, self.seed)
            metrics = {metric.name: metric.build("metric") for metric in self.recipe.metrics}
            scores, priors, in_turn = [], [], self.data.support == "each"
            for result in evaluate(
                backbone, variants, assignments, scans, self.fold,
                seed=self.seed, device=self.device, metrics=metrics, progress=self.progress,
            ):  # fmt: skip
                scores += result.scores
                if asked.save_labels:  # at once: all rows' labels of a fold would fill the memory
                    grid = self.data.volumes[result.scores[0].case].grid
                    write_labels(folder / LABELS, result, grid, in_turn=in_turn)
                if asked.save_margins:
                    priors.append(write_margins(folder, result, in_turn=in_turn))
            write_lines(folder / SCORES, scores)
            if asked.save_margins:
                write_lines(folder / PRIORS, priors)

        folder, _ = self.stages.finish("evaluate", identity, make)
        return FinishedStage(identity, folder)

    def _row_identities(self, variants: list[Variant]) -> list[list[Any]]:
        """What the rows are made of; calibration does not depend on their refiners, which come later."""
        rows = {row.name: row for row in self.recipe.variants}
        kinds = ("prototypes", "head", "threshold")
        return [
            [v.name, *[_identity(kind, getattr(rows[v.name], kind)) for kind in kinds]]
            for v in variants
        ]

    def _refiner_identities(self, variants: list[Variant]) -> list[list[Any]]:
        rows = {row.name: row for row in self.recipe.variants}
        return [
            [_identity("refiner", refiner) for refiner in rows[v.name].refiners] for v in variants
        ]

    def _backbone_table(self) -> ComponentTable:
        """The backbone's table; weights that are not loaded start from the run's seed unless it says otherwise."""
        return ComponentTable(**{"seed": self.seed} | self.recipe.backbone.model_dump())

    def _build_trainable(self, training: TrainingTable) -> tuple[nn.Module, nn.Module]:
        backbone = self._backbone_table().build("backbone").to(self.device)
        return backbone, training.head.build("head").to(self.device)


def train_ahead(folds: list[FoldRun], at_once: int, progress: Progress) -> None:
    """Trains what folds and seeds lack, so many at a time; each is kept as if it had been trained by itself."""
    waiting = {
        fold.training_folder(training): (fold, training)
        for fold in folds
        for training, _ in rows_by_training(fold.recipe)
        if not fold.is_trained(training)
    }
    folders = sorted(
        waiting
    )  # processes that take several locks take them in one order, or they might wait in a ring
    for start in range(0, len(folders), at_once):
        with ExitStack() as locks:
            group = []
            for folder in folders[start : start + at_once]:
                fold, training = waiting[folder]
                locks.enter_context(fold.stages.holding(folder))
                if not fold.is_trained(training):
                    group.append((fold, training))
            if group:
                finished = train_together(
                    [fold.resume(training) for fold, training in group], progress
                )
                for (fold, training), done in zip(group, finished):
                    fold.keep(training, lambda done=done: done)


def rows_by_training(recipe: Recipe) -> list[tuple[TrainingTable, list[VariantTable]]]:
    """A recipe's rows by the training they share."""
    groups: dict[str, tuple[TrainingTable, list[VariantTable]]] = {}
    for row in recipe.variants:
        training = recipe.training_of(row)
        groups.setdefault(fingerprint(training.model_dump()), (training, []))[1].append(row)
    return list(groups.values())


def load_head(
    row: VariantTable, state: dict[str, torch.Tensor], training: TrainingTable
) -> nn.Module:
    """A row's head with the state that a training left; raises FssegError if it cannot take it."""
    head = row.head.build("head")
    try:
        head.load_state_dict(state)
    except RuntimeError:
        raise FssegError(
            f"variant {row.name!r}: its head {row.head.name} cannot take the state that training the head "
            f"{training.head.name} left ({', '.join(state)}), expected {', '.join(head.state_dict())}; "
            "give the row a training of its own, or both heads the same form of score threshold"
        ) from None
    return head


def _identity(kind: str, table: ComponentTable) -> dict[str, Any]:
    return component_identity(kind, table.name, table.options)
