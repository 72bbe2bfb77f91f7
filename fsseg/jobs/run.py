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
    runs, progress, asked = Path(runs_dir), progress or Silent(), recipe.launcher
    recipe = expand(recipe)
    recipe.check()
    slurm = asked.name == "slurm"
    threads = (
        asked.cpus
        if slurm and recipe.speed.threads == "auto"
        else threads_for(recipe.speed.threads)
    )
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
    tell: Callable[[list[State]], None] = lambda states: show(jobs, states)  # noqa: E731
    if slurm:
        run_on_slurm(jobs, asked, tell, progress.note)
    else:
        places = places_for_trainings(device)
        at_once = min(
            asked.jobs or 1, len(jobs.jobs), len(places) if places != [{}] else len(jobs.jobs)
        )
        if places == [{}] and at_once * threads > processors():
            progress.note(
                f"{at_once} jobs compute with {threads} threads each, but there are {processors()} processors; with "
                f"speed.threads = {max(1, processors() // at_once)} they would not wait for each other (other digits)"
            )
        run_here(jobs, at_once, places, threads, tell)
    jobs.require_done()
    parts = [job.folder / FINISHED for job in jobs.jobs]
    return join(recipe, parts, name=name, runs_dir=runs, progress=progress)


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
    """The jobs of a run; their folder's name stands for all that their results depend on."""
    own = recipe.model_copy(deep=True)
    own.speed.threads = threads
    told = own.dumps()
    told.pop("launcher")
    key = fingerprint([told, device, whole_digest(), [str(one) for one in content]])[:10]
    # The folder's name reaches the script that sbatch reads, and a recipe's file may have any name.
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    folder = runs / "jobs" / f"{plain}-{key}"
    write_text(folder / "recipe.toml", own.toml())
    commands = {}
    for seed in recipe.seeds:
        for fold in folds:
            title = f"fold {fold.index}" + (f" seed {seed}" if len(recipe.seeds) > 1 else "")
            out = folder / title.replace(" ", "-") / FINISHED
            commands[title] = [
                "run", str((folder / "recipe.toml").absolute()), "--fold", str(fold.index), "--seed", str(seed),
                "--runs-dir", str(runs.absolute()), "--device", device, "--part", str(out.absolute()),
                *(["--fresh"] if fresh else []), *plugin_arguments(),
            ]  # fmt: skip
    jobs = JobSet.make(folder, f"{name}: {len(commands)} folds and seeds", commands)
    for job in jobs.jobs:
        out, state = job.folder / FINISHED, job.state()
        if state.status == "done" and (fresh or not out.is_file()):
            job.tell(State())
    return jobs
