"""Runs: a recipe from data to results, for every fold and seed it asks for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from fsseg.errors import FssegError
from fsseg.evaluation.scores import CaseScore
from fsseg.model.chain import require_order
from fsseg.model.scoring import logits_of, prototypes_of
from fsseg.model.variants import load_parts, states_of
from fsseg.model.whole import in_place
from fsseg.plugins.blame import naming_plugins
from fsseg.plugins.manager import hooks, listening
from fsseg.recipe.parts import build_parts, build_trained, states_for
from fsseg.recipe.sweep import expand
from fsseg.recipe.tables import Recipe
from fsseg.recipe.trainings import trainings_of
from fsseg.runs.about import about
from fsseg.runs.data import RunData
from fsseg.runs.estimate import estimate, steps_left
from fsseg.runs.fold import FinishedFold, load_finished, run_fold
from fsseg.runs.folder import RunFolder, link_stages
from fsseg.runs.identity import environment, git_state, require_as_imported
from fsseg.runs.plan import FoldPlan
from fsseg.runs.results import Results
from fsseg.runs.stages import Stages
from fsseg.runs.train import train_ahead
from fsseg.system.devices import (
    computing,
    describe_device,
    pick_device,
    threads_for,
    trainings_at_once,
)
from fsseg.system.files import fill_new_folder, read_json, write_json, write_lines, write_text
from fsseg.system.manifests import write_manifest
from fsseg.system.names import within
from fsseg.system.progress import Progress, Silent
from fsseg.system.signals import stoppable
from fsseg.system.unfinished import sweep_abandoned
from fsseg.training.objective import losses_for
from fsseg.types import Query, QueryVolume, Support

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

    What an earlier run finished is taken from there, and a training that was killed goes on from
    where it was saved last. In the main thread, a first SIGINT or SIGTERM saves a training before
    the run stops, a second one stops at once.

    Args:
        recipe: The recipe.
        name: The beginning of the run directory's name.
        runs_dir: Where run directories and finished stages are kept.
        device: "auto", "cpu" or "cuda".
        progress: Follows the stages; silent when omitted.
        estimated: Whether to tell `progress` beforehand how long it will take, which takes seconds
            to find out.
        fresh: Whether to make everything again that is there already.

    Returns:
        The results, which are also in the run directory.

    Raises:
        FssegError: The recipe, the data or the combination cannot be run. Nothing is left
            half-written.
        Stopped: A signal asked the run to stop.

    Example:
        >>> recipe = fsseg.load_recipe("recipes/tpm_mp5_linest.toml")  # doctest: +SKIP
        >>> fsseg.run(recipe).table()  # doctest: +SKIP
    """
    runs = Path(runs_dir)
    within(runs, name)
    progress = progress or Silent()
    with _prepared(recipe, runs, device, progress, fresh=fresh) as plans:
        if estimated and steps_left(plans) >= WORTH_AN_ESTIMATE:
            progress.note(str(estimate(plans)))

        def work() -> Results:
            finished = _finish(plans, progress)
            return _write_run(
                plans[0].data.run, name, runs, describe_environment(plans[0]), finished
            )

        return _between_hooks(plans[0].recipe, name, runs, work)


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
    """Runs a recipe as `run` does, but writes no run directory.

    The arguments are those of `run`, and `out`, a file for `join` that tells what the recipe's folds
    and seeds left.
    """
    runs = Path(runs_dir)
    progress = progress or Silent()
    with _prepared(recipe, runs, device, progress, fresh=fresh) as plans:

        def work() -> Results:
            finished = _finish(plans, progress)
            folds = [fold.dumps() for fold in finished]
            write_json(out, {"environment": describe_environment(plans[0]), "folds": folds})
            return _results(out.parent, plans[0].data.run, finished)

        _between_hooks(plans[0].recipe, name, runs, work)


def join(
    recipe: Recipe, parts: list[Path], *, name: str, runs_dir: Path, progress: Progress
) -> Results:
    """Joins the parts of a recipe whose folds and seeds were run one by one; writes the run directory.

    Nothing is trained or evaluated, so no device is needed.

    Args:
        recipe: The recipe.
        parts: The files that `run_part` wrote.
        name: The beginning of the run directory's name.
        runs_dir: Where run directories and finished stages are kept.
        progress: Follows the look at the data.

    Returns:
        The results, as `run` gives them.

    Raises:
        FssegError: A part is missing.
    """
    recipe = expand(recipe)
    data = RunData(recipe, progress)
    contents = [read_json(part) for part in parts]
    by_place: dict[tuple[int, int], FinishedFold] = {}
    for content in contents:
        for values in content["folds"]:
            part = load_finished(recipe, data.folds, values, runs_dir / "stages")
            by_place[part.seed, part.fold.index] = part
    finished = []
    for seed in recipe.seeds:
        for fold in data.folds:
            if (seed, fold.index) not in by_place:
                raise FssegError(
                    f"{runs_dir}: (seed, fold) {(seed, fold.index)} was not run, expected all that "
                    "the recipe asks for"
                )
            finished.append(by_place[seed, fold.index])
    return _write_run(data, name, runs_dir, contents[0]["environment"], finished)


def plan_folds(
    recipe: Recipe, runs: Path, device: torch.device, progress: Progress, *, fresh: bool = False
) -> list[FoldPlan]:
    """The plans of a recipe by seed and fold, its sweep written out; raises FssegError if it cannot be run."""
    require_as_imported()
    recipe = expand(recipe)
    recipe.check()
    data = RunData(recipe, progress)
    stages = Stages(runs, progress, fresh=fresh)
    _check_what_comes_last(data)
    plans = []
    for seed in recipe.seeds:
        for fold in data.folds:
            plans.append(FoldPlan(recipe, data.of(fold), seed, device, stages, progress))
    return plans


def describe_environment(plan: FoldPlan) -> dict[str, Any]:
    """What the bits of a result may depend on, and what else helps to find out why others differ."""
    facts = plan.data.run.scans.facts
    return environment(plan.device.type) | {
        "determinism": plan.recipe.speed.determinism,
        "hardware": describe_device(plan.device),
        "git": git_state(Path(__file__).parent),
        "data": {case: of_case.scan for case, of_case in facts.items()},
    }


@contextmanager
def _prepared(
    recipe: Recipe, runs: Path, device: str, progress: Progress, *, fresh: bool
) -> Iterator[list[FoldPlan]]:
    """The plans of a recipe, in a block where signals save first, the device is set up, and trackers listen."""
    place = pick_device(device)
    threads = threads_for(recipe.speed.threads)
    deterministic = recipe.speed.determinism == "deterministic"
    for folder in (runs, runs / "stages"):
        sweep_abandoned(folder)
    with naming_plugins(), stoppable(), computing(place, threads, deterministic):
        plans = plan_folds(recipe, runs, place, progress, fresh=fresh)
        trackers = [tracker.build("tracker") for tracker in recipe.trackers]
        with listening(trackers):
            yield plans


def _finish(plans: list[FoldPlan], progress: Progress) -> list[FinishedFold]:
    """Every fold and seed, one after the other; their trainings several at a time where there is room."""
    together = plans[0].recipe.speed.together
    at_once = trainings_at_once(plans[0].device) if together == "auto" else together
    ahead = train_ahead(plans, at_once, progress) if at_once > 1 else set()
    return [run_fold(plan, ahead) for plan in plans]


def _between_hooks(recipe: Recipe, name: str, runs: Path, work: Callable[[], Results]) -> Results:
    """Does the work between the hooks that begin and end a run; who heard of the beginning hears of the end."""
    hooks().run_started(recipe=recipe, name=name, runs_dir=runs)
    try:
        results = work()
    except BaseException as error:
        hooks().run_finished(recipe=recipe, results=None, error=error)
        raise
    hooks().run_finished(recipe=recipe, results=results, error=None)
    return results


def _write_run(
    data: RunData,
    name: str,
    runs: Path,
    environment_of_run: dict[str, Any],
    finished: list[FinishedFold],
) -> Results:
    """Writes the run directory, under a name that no other run has."""
    recipe = data.recipe

    def fill(unfinished: Path) -> None:
        folder = RunFolder(unfinished, tuple(recipe.seeds))
        write_text(folder.recipe, recipe.toml())
        write_json(folder.environment, environment_of_run)
        write_json(folder.about, about(data))
        write_lines(folder.scores, _scores(finished))
        for fold in finished:
            link_stages(folder.fold(fold.seed, fold.fold.index), fold.stages)
        write_manifest(unfinished)

    place = within(runs, f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    folder = fill_new_folder(place, fill)
    return _results(folder, data, finished)


def _results(folder: Path, data: RunData, finished: list[FinishedFold]) -> Results:
    return Results(folder, _scores(finished), list(data.classes.values()), about(data))


def _scores(finished: list[FinishedFold]) -> list[CaseScore]:
    return [score for fold in finished for score in fold.scores]


def _check_what_comes_last(data: RunData) -> None:
    """What cannot be evaluated should not be trained for minutes first."""
    recipe = data.recipe
    for fold in data.folds:
        for seed in recipe.seeds:
            data.of(fold).require_usable(seed)
    for training in trainings_of(recipe):
        trained = in_place(build_trained(training.table))
        losses_for(training.table, trained | {"backbone": data.backbone})
        states = states_of(trained)
        for variant in training.variants:
            parts = in_place(build_parts(variant, training.table))
            load_parts(variant.name, parts, states_for(variant, training.table, states))
            _try_out(variant.name, parts, data)


@torch.no_grad()
def _try_out(name: str, parts: dict[str, Any], data: RunData) -> None:
    """A head may refuse the variant's number of prototypes, the protocol's of classes, or the backbone's of channels."""
    ways = len(data.classes) if data.protocol.together else 1
    shots = data.protocol.shots * data.protocol.supports
    head = parts["head"]
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(ways, shots, data.backbone.channels, 4, 4, generator=generator)
    masks = torch.zeros(ways, shots, 8, 8, dtype=torch.bool)
    masks[..., :4] = True
    support = Support(masks.float(), masks, torch.zeros(ways, shots))
    query = Query(torch.zeros(1, 8, 8), torch.zeros(1))
    try:
        require_order(parts["refiners"])
        made = prototypes_of(parts["prototypes"], head, features, masks, features[:1, 0])
        logits_of(head, QueryVolume(support, made, query, features[:1, 0], features))
    except FssegError as error:
        raise FssegError(f"variant {name!r}: {error}") from None
