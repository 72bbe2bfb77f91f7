"""The training stage of a fold: taken up where it was saved, finished alone or several at a time, and kept."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from fsseg.model.checkpoint import save_trained
from fsseg.model.whole import in_place
from fsseg.plugins.manager import hooks
from fsseg.recipe.parts import build_trained
from fsseg.recipe.trainings import SharedTraining, trainings_of
from fsseg.runs.folder import TrainingFolder
from fsseg.runs.plan import FoldPlan, training_identity
from fsseg.runs.records import read_log
from fsseg.runs.stages import FinishedStage, Stage
from fsseg.system.files import write_lines
from fsseg.system.progress import Progress
from fsseg.system.random import seeded
from fsseg.training.episodes import TRAINING_STREAM, EpisodeSampler
from fsseg.training.loop import Training, train_together
from fsseg.training.snapshots import Snapshots
from fsseg.training.validation import validation_of


def training_stage(
    plan: FoldPlan, training: SharedTraining, train: Callable[[], Training] | None = None
) -> Stage:
    """The stage of a training; `train` finishes it, by itself when omitted."""

    def train_alone() -> Training:
        [done] = train_together([_resume(plan, training)], plan.progress)
        return done

    def make(folder: Path) -> None:
        done = (train or train_alone)()
        files = TrainingFolder(folder)
        write_lines(files.log, done.log.records())
        save_trained(files.checkpoint, done.parts)

    return Stage("train", training_identity(plan, training.table), make)


def is_trained(plan: FoldPlan, training: SharedTraining) -> bool:
    """Whether this training is finished."""
    return plan.stages.is_finished(training_stage(plan, training))


def begin_training(
    plan: FoldPlan,
    training: SharedTraining,
    sampler: EpisodeSampler | None = None,
    *,
    saver: Snapshots | None = None,
    told: bool = True,
) -> Training:
    """A training at its first step, or where it was saved last.

    Args:
        plan: The fold.
        training: The training.
        sampler: Where episodes come from; the fold's own when omitted, with what the recipe sets aside of them.
        saver: Keeps the training's state, from which it goes on.
        told: Whether trackers hear of its steps.
    """
    with seeded(plan.device, plan.seed, TRAINING_STREAM, 0):
        backbone = plan.backbone.build("backbone").to(plan.device)
        parts = in_place(build_trained(training.table))
        for part in parts.values():
            if isinstance(part, nn.Module):
                part.to(plan.device)
        drawn_from, validation = sampler, None
        if drawn_from is None:
            place: dict[str, Any] = {"mode": plan.recipe.mode, "device": plan.device}
            drawn_from, validation = validation_of(
                plan.data.sampler, training.table, seed=plan.seed, **place
            )
        return Training(
            backbone,
            parts["prototypes"],
            parts["head"],
            drawn_from,
            training.table,
            threshold=parts["threshold"],
            seed=plan.seed,
            mode=plan.recipe.mode,
            device=plan.device,
            speed=plan.recipe.speed,
            tell=partial(_tell_of_step, plan, training) if told else None,
            saver=saver,
            validation=validation,
            name=f"training of {_who(training)}, fold {plan.fold.index}, seed {plan.seed}",
        )


def _who(training: SharedTraining) -> str:
    """The variants of a training, in words."""
    first, *others = training.names
    return f"{first} and {len(others)} more" if others else first


def finish_training(
    plan: FoldPlan, training: SharedTraining, ahead: Collection[Path]
) -> FinishedStage:
    """The finished stage of a training; trackers hear of its steps, also where an earlier run made them.

    Args:
        plan: The fold.
        training: The training.
        ahead: Folders of trainings that this process finished before, of which trackers have heard.
    """
    trained = _keep_training(plan, training)
    if trained.reused and trained.folder not in ahead:
        plan.progress.note(f"training of fold {plan.fold.index}: taken from {trained.folder}")
        for record in read_log(TrainingFolder(trained.folder).log):
            _tell_of_step(plan, training, record)
    return trained


def _keep_training(
    plan: FoldPlan, training: SharedTraining, train: Callable[[], Training] | None = None
) -> FinishedStage:
    """The finished stage of a training; its snapshots are not needed any more."""
    stage = training_stage(plan, training, train)
    trained = plan.stages.finish(stage)
    _snapshots(plan, stage).clear()
    return trained


def _resume(plan: FoldPlan, training: SharedTraining) -> Training:
    """The training where it was saved last; who calls it holds the stage's lock."""
    saver = _snapshots(plan, training_stage(plan, training))
    if plan.stages.fresh:
        saver.clear()
    return begin_training(plan, training, saver=saver)


def _snapshots(plan: FoldPlan, stage: Stage) -> Snapshots:
    folder = plan.stages.snapshots(stage)
    return Snapshots(folder, plan.recipe.speed.checkpoint_every, plan.progress)


def train_ahead(plans: list[FoldPlan], at_once: int, progress: Progress) -> set[Path]:
    """Trains what folds and seeds lack, so many at a time; each is kept as if it had been trained by itself.

    Returns:
        The folders of the trainings that were made.
    """
    waiting = {}
    for plan in plans:
        for training in trainings_of(plan.recipe):
            stage = training_stage(plan, training)
            if not plan.stages.is_finished(stage):
                waiting[stage.key] = (plan, training, stage)
    # Processes that take several locks take them in one order, or they might wait in a ring.
    in_order_of_locks = [waiting[key] for key in sorted(waiting)]
    made: set[Path] = set()
    for start in range(0, len(in_order_of_locks), at_once):
        made |= _train_group(in_order_of_locks[start : start + at_once], progress)
    return made


def _train_group(
    group: list[tuple[FoldPlan, SharedTraining, Stage]], progress: Progress
) -> set[Path]:
    """Trains what is still missing of a group, in turns; returns the folders that were made."""
    with ExitStack() as locks:
        missing = []
        for plan, training, stage in group:
            locks.enter_context(plan.stages.holding(stage))
            if not plan.stages.is_finished(stage):
                missing.append((plan, training))
        if not missing:
            return set()
        resumed = [_resume(plan, training) for plan, training in missing]
        finished = train_together(resumed, progress)
        made = set()
        for (plan, training), done in zip(missing, finished):
            made.add(_keep_training(plan, training, partial(_hand_over, done)).folder)
        return made


def _hand_over(finished: Training) -> Training:
    return finished


def _tell_of_step(plan: FoldPlan, training: SharedTraining, record: dict[str, Any]) -> None:
    hooks().step_logged(
        variants=training.names, fold=plan.fold.index, seed=plan.seed, values=record
    )
