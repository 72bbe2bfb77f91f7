"""A run whose folds and seeds are jobs: side by side on this machine, or on a cluster."""

import re
from collections.abc import Callable
from pathlib import Path

from fsseg.data.folds import Fold
from fsseg.jobs.job import JobSet, State
from fsseg.jobs.local import run_here
from fsseg.jobs.slurm import run_on_slurm
from fsseg.plugins.manager import plugin_arguments
from fsseg.recipe.sweep import expand
from fsseg.recipe.tables import Recipe
from fsseg.runs.data import RunData
from fsseg.runs.identity import whole_digest
from fsseg.runs.results import Results
from fsseg.runs.run import join
from fsseg.system.devices import places_for_trainings, threads_for
from fsseg.system.files import fingerprint, write_text
from fsseg.system.parallel import processors
from fsseg.system.progress import Progress, Silent

FINISHED = "finished.json"
"""What a job's fold and seed left."""


def run_as_jobs(
    recipe: Recipe,
    *,
    name: str = "run",
    runs_dir: str | Path = "runs",
    device: str = "auto",
    progress: Progress | None = None,
    fresh: bool = False,
    show: Callable[[JobSet, list[State]], None] = lambda jobs, states: None,
) -> Results:
    """Runs a recipe, each fold and seed as a process of its own, and joins what they left.

    The recipe's [launcher] says where. Digits do not depend on it. Jobs that are done are kept, those that were stopped go
    on: calling it again, with the same recipe, takes up what an earlier call left, or watches what it started.

    Args:
        recipe: The recipe.
        name: What the run directory's name begins with.
        runs_dir: Where run directories, finished stages and jobs are kept; on a cluster all machines must see it.
        device: "auto", "cpu" or "cuda".
        progress: Follows what is done in this process.
        fresh: Whether to make everything again that is there already.
        show: Called again and again with the jobs and how far they are.

    Raises:
        FssegError: The recipe or the data cannot be run; or jobs failed, with the last lines of each. The others ended.
        Stopped: A signal asked to stop: jobs of this machine have saved themselves, those of a cluster go on.
    """
    runs = Path(runs_dir)
    progress = progress or Silent()
    recipe = expand(recipe)
    recipe.check()
    threads = _threads(recipe)
    data = RunData(recipe, progress)
    jobs = make_jobs(
        recipe,
        data.folds,
        name,
        runs,
        device,
        threads,
        fresh=fresh,
        content=list(data.scans.facts.values()),
    )
    progress.note(f"{len(jobs.jobs)} jobs: fsseg status {jobs.folder}")

    def show_jobs(states: list[State]) -> None:
        show(jobs, states)

    if recipe.launcher.name == "slurm":
        run_on_slurm(jobs, recipe.launcher, show_jobs, progress.note)
    else:
        places = places_for_trainings(device)
        at_once = _at_once(recipe, jobs, places, threads, progress)
        run_here(jobs, at_once, places, threads, show_jobs)
    jobs.require_done()
    parts = [job.folder / FINISHED for job in jobs.jobs]
    return join(recipe, parts, name=name, runs_dir=runs, progress=progress)


def _at_once(
    recipe: Recipe,
    jobs: JobSet,
    places: list[dict[str, str]],
    threads: int,
    progress: Progress,
) -> int:
    """How many jobs run at a time on this machine: as many as the recipe says, but one at most on each GPU."""
    at_once = min(recipe.launcher.jobs or 1, len(jobs.jobs))
    if places != [{}]:
        return min(at_once, len(places))
    _warn_of_crowd(at_once, threads, progress)
    return at_once


def _threads(recipe: Recipe) -> int:
    """The threads that each job computes with."""
    if recipe.launcher.name == "slurm" and recipe.speed.threads == "auto":
        return recipe.launcher.cpus
    return threads_for(recipe.speed.threads)


def _warn_of_crowd(
    at_once: int,
    threads: int,
    progress: Progress,
) -> None:
    """Says so where jobs would wait for each other's processors."""
    if at_once * threads > processors():
        fewer = max(1, processors() // at_once)
        progress.note(
            f"{at_once} jobs compute with {threads} threads each, but there are {processors()} "
            f"processors; with speed.threads = {fewer} they would not wait for each other "
            "(other digits)"
        )


def make_jobs(
    recipe: Recipe,
    folds: list[Fold],
    name: str,
    runs: Path,
    device: str,
    threads: int,
    *,
    fresh: bool,
    content: list[object],
) -> JobSet:
    """Makes the jobs of a run; their folder's name stands for all that their results depend on.

    Args:
        recipe: The recipe, its sweep written out.
        folds: The folds to run.
        name: What the folder's name begins with.
        runs: Where runs are kept.
        device: As of `run_as_jobs`.
        threads: Those that each job computes with.
        fresh: Whether the jobs take nothing from earlier runs.
        content: What stands for the content of the scans.
    """
    changed = recipe.model_copy(deep=True)
    changed.speed.threads = threads
    tables = changed.dumps()
    tables.pop("launcher")
    scans = [str(facts) for facts in content]
    key = fingerprint([tables, device, whole_digest(), scans])[:10]
    # The folder's name reaches the script that sbatch reads, and a recipe's file may have any name.
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    folder = runs / "jobs" / f"{plain}-{key}"
    recipe_file = folder / "recipe.toml"
    write_text(recipe_file, changed.toml())
    words = ["run", str(recipe_file.absolute()), "--runs-dir", str(runs.absolute())]
    words += ["--device", device, *plugin_arguments()]
    if fresh:
        words.append("--fresh")
    commands = {}
    for seed in recipe.seeds:
        for fold in folds:
            title = f"fold {fold.index}"
            if len(recipe.seeds) > 1:
                title += f" seed {seed}"
            part = folder / title.replace(" ", "-") / FINISHED
            which = ["--fold", str(fold.index), "--seed", str(seed), "--part", str(part.absolute())]
            commands[title] = [*words, *which]
    jobs = JobSet.make(folder, f"{name}: {len(commands)} folds and seeds", commands)
    for job in jobs.jobs:
        left = (job.folder / FINISHED).is_file()
        if job.state().status == "done" and (fresh or not left):
            job.tell(State())
    return jobs
