"""The commands around jobs: `fsseg status`, and what the process of a job runs."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from fsseg.cli.console import JobTable, Said, count_jobs, print_text, table_of_jobs, wide_console
from fsseg.cli.options import parse_changes
from fsseg.errors import FssegError
from fsseg.jobs.job import SET, JobSet, work

if TYPE_CHECKING:
    from fsseg.recipe.tables import LauncherTable


def change_launcher(
    table: "LauncherTable",
    name: str | None = None,
    jobs: int | None = None,
    changes: list[str] | None = None,
) -> None:
    """Puts what the command line says into a [launcher] table; raises FssegError for what it does not know."""
    wanted = parse_changes(changes)
    if name is not None:
        wanted["name"] = name
    if jobs is not None:
        wanted["jobs"] = jobs
    for key, value in wanted.items():
        if key not in type(table).model_fields:
            known = ", ".join(type(table).model_fields)
            raise FssegError(
                f"--launch {key}: there is no such key in [launcher], expected one of {known}"
            )
        try:
            setattr(table, key, value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise FssegError(
                f"launcher.{key}: got {value!r}; {reason[0].lower()}{reason[1:]}"
            ) from None


def launch_this(name: str, launcher: str, launch: list[str] | None, parts: int = 1) -> None:
    """Has the command of this process done by jobs, each its part; the command knows `--part`, if there are several."""
    from fsseg.jobs.launch import launch as launch_jobs
    from fsseg.recipe.tables import LauncherTable
    from fsseg.system.files import fingerprint

    table = LauncherTable()
    change_launcher(table, launcher, None, launch)
    words = _without(sys.argv[1:], ("--launcher", "--launch", "--parts"))
    commands = {name: words}
    if parts > 1:
        commands = {
            f"part {number} of {parts}": [*words, "--part", f"{number}/{parts}"]
            for number in range(1, parts + 1)
        }
    folder = Path("runs") / "jobs" / f"{name}-{fingerprint(words)[:10]}"
    jobs = JobSet.make(folder, name, commands)
    for job in jobs.jobs:
        job.queue_again()  # it looks again: what is there already is kept, not made again
    with JobTable() as shown:
        launch_jobs(jobs, table, lambda states: shown.show(jobs, states), Said().note)
    for job in jobs.jobs:
        print_text("\n".join(job.last_lines()))


def _without(words: list[str], options: tuple[str, ...]) -> list[str]:
    """The words of a command line without these options and their values."""
    kept = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept


def status_command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The folder of a run's jobs, or the one where runs are kept.", metavar="RUNDIR"
        ),
    ],
) -> None:
    """Show every job of a run: queued, running (how far, how fast, how long still), done or failed.

    From files alone: it works from any machine that sees the folder, and disturbs nothing.
    """
    console = wide_console()
    if (folder / "run.json").is_file():
        console.print(f"{folder}: finished", soft_wrap=True)
        return
    folders = [folder]
    if not (folder / SET).is_file():
        folders = sorted(path.parent for path in (folder / "jobs").glob(f"*/{SET}"))
    if not folders:
        raise FssegError(
            f"{folder}: holds no jobs, expected a folder that fsseg run --jobs or --launcher made"
        )
    for of_set in folders:
        jobs = JobSet.read(of_set)
        states = jobs.states()
        title = f"{jobs.title} ({of_set})"
        console.print(f"{title}: {count_jobs(states)}\n", soft_wrap=True)
        console.print(table_of_jobs(states, [job.name for job in jobs.jobs]))
        console.print()


def job_command(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Do a job. Other commands start it; its process hears of Slurm's warnings from the one that started it."""
    from fsseg.cli.main import app

    def call(arguments: list[str]) -> None:
        app(arguments, standalone_mode=False)

    def say(text: str) -> None:
        print_text(text)

    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    work(folder, call, say)
