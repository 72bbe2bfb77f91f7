"""Runs: a recipe from data to results, for every fold and seed it asks for."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from fsseg.errors import FssegError
from fsseg.evaluation.metrics import facts_of
from fsseg.plugins.manager import hooks, listening
from fsseg.recipe.protocols import protocol_hash
from fsseg.recipe.sweep import expand
from fsseg.recipe.tables import Recipe, VariantTable
from fsseg.runs.data import RunData
from fsseg.runs.estimate import estimate, steps_left
from fsseg.runs.fold import (
    FinishedFold,
    FoldRun,
    load_finished,
    load_head,
    rows_by_training,
    train_ahead,
)
from fsseg.runs.folder import write_run
from fsseg.runs.identity import environment, git_state
from fsseg.runs.results import FORMAT, Results
from fsseg.runs.stages import Stages
from fsseg.system.devices import (
    computing,
    describe_device,
    pick_device,
    threads_for,
    trainings_at_once,
)
from fsseg.system.files import fill_folder, read_json, write_json
from fsseg.system.progress import Progress, Silent
from fsseg.system.signals import stoppable

WORTH_AN_ESTIMATE = 200
"""Steps below which a run takes hardly longer than finding out how long it takes."""


def run(
    recipe: Recipe,
    *,
    name: str = "run",
    runs_dir: str | Path = "runs",
    device: str = "auto",
    progress: Progress | None = None,
    estimated: bool = False,
    fresh: bool = False,
) -> Results:
    """Runs a recipe: train, calibrate, evaluate, for every fold and seed it asks for.

    What an earlier run finished is taken from there, and a training that was killed goes on from where it was saved
    last. In the main thread, a first SIGINT or SIGTERM saves a training before the run stops, a second one stops at once.

    Args:
        recipe: The recipe.
        name: What the run directory's name begins with.
        runs_dir: Where run directories and finished stages are kept.
        device: "auto", "cpu" or "cuda".
        progress: Follows the stages; silent when omitted.
        estimated: Whether to tell `progress` beforehand how long it will take, which takes seconds to find out.
        fresh: Whether to make everything again that is there already.

    Returns:
        The results, which are also in the run directory.

    Raises:
        FssegError: The recipe, the data or the combination cannot be run. Nothing is left half-written.
        Stopped: A signal asked the run to stop.
    """
    runs, place, progress = Path(runs_dir), pick_device(device), progress or Silent()

    def keep(folds: list[FoldRun], finished: list[FinishedFold]) -> Results:
        recipe = folds[0].recipe
        return write_results(
            recipe, folds[0].data, name, runs, describe_environment(folds[0]), finished
        )

    return _run(recipe, name, runs, place, progress, keep, estimated=estimated, fresh=fresh)


def run_part(
    recipe: Recipe,
    out: Path,
    *,
    name: str = "run",
    runs_dir: str | Path = "runs",
    device: str = "auto",
    progress: Progress | None = None,
    fresh: bool = False,
) -> None:
    """Runs a recipe as `run` does, but writes no run directory: what its folds and seeds left goes to a file for `join`."""
    runs, place, progress = Path(runs_dir), pick_device(device), progress or Silent()

    def keep(folds: list[FoldRun], finished: list[FinishedFold]) -> Results:
        write_json(
            out,
            {
                "environment": describe_environment(folds[0]),
                "folds": [fold.dumps() for fold in finished],
            },
        )
        about = _about(folds[0].recipe, folds[0].data)
        return Results(
            out.parent,
            [score for fold in finished for score in fold.scores],
            about["classes"],
            about,
        )

    _run(recipe, name, runs, place, progress, keep, fresh=fresh)


def join(
    recipe: Recipe, parts: list[Path], *, name: str, runs_dir: Path, progress: Progress
) -> Results:
    """The results of a recipe whose folds and seeds were run in parts; writes the run directory.

    Nothing is trained or evaluated, so no device is needed. Raises FssegError if a part is missing.
    """
    recipe = expand(recipe)
    data, told = RunData(recipe, progress), [read_json(part) for part in parts]
    loaded = [
        load_finished(recipe, data.folds, values, runs_dir / "stages")
        for part in told
        for values in part["folds"]
    ]
    by_place = {(fold.seed, fold.fold.index): fold for fold in loaded}
    try:
        finished = [by_place[seed, fold.index] for seed in recipe.seeds for fold in data.folds]
    except KeyError as error:
        raise FssegError(
            f"{runs_dir}: (seed, fold) {error} was not run, expected all that the recipe asks for"
        ) from None
    return write_results(recipe, data, name, runs_dir, told[0]["environment"], finished)


def _run(
    recipe: Recipe,
    name: str,
    runs: Path,
    place: torch.device,
    progress: Progress,
    keep: Callable[[list[FoldRun], list[FinishedFold]], Results],
    *,
    estimated: bool = False,
    fresh: bool = False,
) -> Results:
    with (
        stoppable(),
        computing(
            place, threads_for(recipe.speed.threads), recipe.speed.determinism == "deterministic"
        ),
    ):
        folds = plan(recipe, runs, place, progress, fresh=fresh)
        recipe = folds[0].recipe
        if estimated and steps_left(folds) >= WORTH_AN_ESTIMATE:
            progress.note(str(estimate(folds)))
        with listening([tracker.build("tracker") for tracker in recipe.trackers]):
            return _tell_of_run(
                recipe, name, runs, lambda: keep(folds, _finish(recipe, place, folds, progress))
            )


def _finish(
    recipe: Recipe, place: torch.device, folds: list[FoldRun], progress: Progress
) -> list[FinishedFold]:
    asked = recipe.speed.together
    at_once = trainings_at_once(place) if asked == "auto" else asked
    if at_once > 1:
        train_ahead(folds, at_once, progress)
    return [fold.finish() for fold in folds]


def write_results(
    recipe: Recipe,
    data: RunData,
    name: str,
    runs: Path,
    found: dict[str, Any],
    finished: list[FinishedFold],
) -> Results:
    """Writes the run directory."""
    about = _about(recipe, data)
    folder = _free_name(runs / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    fill_folder(folder, lambda unfinished: write_run(unfinished, recipe, about, found, finished))
    scores = [score for fold in finished for score in fold.scores]
    return Results(folder, scores, about["classes"], about)


def describe_environment(fold: FoldRun) -> dict[str, Any]:
    """What the bits of a result may depend on, and what else helps to find out why others differ."""
    return environment(fold.device.type) | {
        "determinism": fold.recipe.speed.determinism,
        "hardware": describe_device(fold.device),
        "git": git_state(Path(__file__).parent),
        "data": {case: facts.scan for case, facts in fold.data.facts.items()},
    }


def _tell_of_run(recipe: Recipe, name: str, runs: Path, work: Callable[[], Results]) -> Results:
    """Does the work between the hooks that begin and end a run; whoever heard of the beginning hears of the end."""
    hooks().run_started(recipe=recipe, name=name, runs_dir=runs)
    try:
        results = work()
    except BaseException as error:
        hooks().run_finished(recipe=recipe, results=None, error=error)
        raise
    hooks().run_finished(recipe=recipe, results=results, error=None)
    return results


def plan(
    recipe: Recipe, runs: Path, device: torch.device, progress: Progress, *, fresh: bool = False
) -> list[FoldRun]:
    """What a recipe asks for, by seed and fold, its sweep written out; raises FssegError if it cannot be run."""
    recipe = expand(recipe)
    recipe.check()
    data = RunData(recipe, progress)
    _check_what_comes_last(recipe, data)
    stages = Stages(runs, progress, fresh)
    return [
        FoldRun(recipe, data, fold, seed, stages, device, progress)
        for seed in recipe.seeds
        for fold in data.folds
    ]


def _check_what_comes_last(recipe: Recipe, data: RunData) -> None:
    """What cannot be evaluated should not be trained for minutes first."""
    for fold in data.folds:
        for seed in recipe.seeds:
            data.check_assignments(fold, seed)
        data.check_hidden(fold)
    channels = recipe.backbone.build("backbone").channels
    ways = len(data.classes) if data.protocol.together else 1
    for training, rows in rows_by_training(recipe):
        state = training.head.build("head").state_dict()
        for row in rows:
            _try_out(row, load_head(row, state, training), ways, data.protocol.shots, channels)


@torch.no_grad()
def _try_out(
    row: VariantTable, head: torch.nn.Module, ways: int, shots: int, channels: int
) -> None:
    """A head may refuse the row's number of prototypes, the protocol's of classes, or the backbone's of channels."""
    features = torch.randn(ways, shots, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    masks = torch.ones(ways, shots, 8, 8, dtype=torch.bool)
    try:
        head(features[:1, 0], row.prototypes.build("prototypes")(features, masks, head.sigma))
    except FssegError as error:
        raise FssegError(f"variant {row.name!r}: {error}") from None


def _about(recipe: Recipe, data: RunData) -> dict[str, Any]:
    rule = recipe.backbone.build("backbone").intensity
    return {
        "format": FORMAT,
        "dataset": data.dataset.name,
        "protocol": data.protocol.name,
        "uses_truth": data.protocol.uses_truth,
        "protocol_hash": protocol_hash(data.protocol, data.scheme, data.classes),
        "options": _options(recipe),
        "setting": recipe.episodes.setting,
        "support": data.support,
        "fold_scheme": data.scheme.name,
        "folds": [fold.index for fold in data.folds],
        "seeds": recipe.seeds,
        "classes": list(data.classes.values()),
        "metrics": {metric.name: facts_of(metric.build("metric")) for metric in recipe.metrics},
        "scaling": {
            str(fold.index): asdict(data.scaling(fold.queries[0], fold, rule))
            for fold in data.folds
            if data.dataset.statistics == "training"
        },
        "data": {str(fold.index): data.evaluation_key(fold) for fold in data.folds},
    }


def _options(recipe: Recipe) -> list[str]:
    """What the recipe changes about the evaluation and what training sees, in words for the head of a table."""
    asked = recipe.protocol
    told = [f"support {asked.support}"] if asked.support else []
    told += [f"{asked.shots} shots"] if asked.shots > 1 else []
    return told + (["setting 2"] if recipe.episodes.setting == 2 else [])


def _free_name(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that is not taken."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
