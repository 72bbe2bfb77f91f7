"""The shell's commands around jobs: `fsseg status`, and what a job's process runs."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from fsseg.cli.console import (
    JobTable,
    Said,
    count_jobs,
    parse_change,
    plain,
    table_of_jobs,
    wide_console,
)
from fsseg.errors import FssegError
from fsseg.jobs.job import ENDED, SET, JobSet, State, work
from fsseg.runs.folder import RunFolder

if TYPE_CHECKING:
    from fsseg.recipe.tables import LauncherTable

Launch = Annotated[
    list[str] | None,
    typer.Option(
        "--launch",
        metavar="KEY=VALUE",
        help="A key of [launcher], such as partition=gpu, time=240, gpus=1, memory=32G; may be given again.",
    ),
]


def change_launcher(
    table: "LauncherTable",
    name: str | None = None,
    jobs: int | None = None,
    changes: list[str] | None = None,
) -> None:
    """Puts what the command line says into a [launcher] table; raises FssegError for what it does not know."""
    wanted = dict(parse_change(change) for change in changes or [])
    wanted |= {
        key: value for key, value in {"name": name, "jobs": jobs}.items() if value is not None
    }
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


Launcher = Annotated[
    str | None,
    typer.Option(
        "--launcher",
        metavar="local|slurm",
        help="Do it in processes of their own, here or on a cluster.",
    ),
]


def launch_this(name: str, launcher: str, launch: list[str] | None, parts: int = 1) -> None:
    """Has the command of this process done by jobs, each its part; the command knows `--part`, if there are several."""
    from fsseg.jobs.launch import launch as launch_jobs
    from fsseg.recipe.tables import LauncherTable
    from fsseg.system.files import fingerprint

    table = LauncherTable()
    change_launcher(table, launcher, None, launch)
    words = _without(sys.argv[1:], ("--launcher", "--launch", "--parts"))
    folder = Path("runs") / "jobs" / f"{name}-{fingerprint(words)[:10]}"
    commands = {
        f"part {number} of {parts}" if parts > 1 else name: [
            *words,
            *(["--part", f"{number}/{parts}"] if parts > 1 else []),
        ]
        for number in range(1, parts + 1)
    }
    jobs = JobSet.make(folder, name, commands)
    for job in jobs.jobs:
        if (
            job.told().status in ENDED
        ):  # asked again, it looks again: what is there already is kept, not made again
            job.tell(State())
    said = Said()
    with JobTable() as shown:
        launch_jobs(jobs, table, lambda states: shown.show(jobs, states), said.note)
    for job in jobs.jobs:
        print(*job.last_lines(), sep="\n")


def _without(words: list[str], options: tuple[str, ...]) -> list[str]:
    """The words of a command line without these options and their values."""
    kept, skip = [], False
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
    if RunFolder(folder).is_run:
        console.print(f"{plain(folder)}: finished", soft_wrap=True)
        return
    found = (
        [folder]
        if (folder / SET).is_file()
        else sorted(path.parent for path in (folder / "jobs").glob(f"*/{SET}"))
    )
    if not found:
        raise FssegError(
            f"{folder}: holds no jobs, expected a folder that fsseg run --jobs or --launcher made"
        )
    for one in found:
        jobs = JobSet.read(one)
        states = jobs.states()
        console.print(f"{plain(jobs.title)} ({plain(one)}): {count_jobs(states)}\n", soft_wrap=True)
        console.print(table_of_jobs(states, [job.name for job in jobs.jobs]))
        console.print()


def job_command(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Do a job. Other commands start it; its process hears of Slurm's warnings from the one that started it."""
    from fsseg.cli.main import app

    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def call(arguments: list[str]) -> None:
        app(arguments, standalone_mode=False)

    def say(text: str) -> None:
        print(text, flush=True)

    work(folder, call, say)
