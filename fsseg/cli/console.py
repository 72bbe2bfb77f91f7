"""What the commands have in common: tables that survive a pipe, progress on standard error, changes to options."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fsseg.errors import FssegError
from fsseg.jobs.job import JobProgress, JobSet, State, job_progress
from fsseg.system.progress import Silent, told_time

Item = TypeVar("Item")


def _choose_files(files: list[Path] | None) -> list[Path] | None:
    from fsseg.plugins.manager import choose_plugins

    choose_plugins(files=files or [])
    return files


def _choose_left_out(names: list[str] | None) -> list[str] | None:
    from fsseg.plugins.manager import choose_plugins

    choose_plugins(without=names or [])
    return names


Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")]

PluginFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        callback=_choose_files,
        help="A plugin in a single file; may be given again.",
    ),
]
LeftOut = Annotated[
    list[str] | None,
    typer.Option(
        "--no-plugin",
        metavar="NAME",
        callback=_choose_left_out,
        help="Leave out an installed plugin; may be given again.",
    ),
]
"""Options of every command that looks for components. They take effect as they are read."""


def plain(text: object) -> str:
    """Text in which square brackets are just that."""
    return str(text).replace("[", "\\[")


def wide_console() -> Console:
    """A console that does not squeeze a table into 80 columns when it is piped into a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def follow() -> "Bars | JobProgress":
    """Progress for people to look at; of a process that is a job, in the job's files."""
    return job_progress() or Bars()


class Bars:
    """Progress on standard error: bars on a terminal, a line for every tenth in a file."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        if self._console.is_terminal:
            yield from self._progress.track(items, total=total, description=description)
            return
        for number, item in enumerate(items, start=1):
            yield item
            if 10 * number // total > 10 * (number - 1) // total:
                self._console.print(f"{description} {number}/{total}", soft_wrap=True)

    def note(self, text: str) -> None:
        self._console.print(plain(text), soft_wrap=True)


COLOURS = {
    "done": "green",
    "failed": "bold red",
    "running": "cyan",
    "stopped": "yellow",
    "lost": "yellow",
}


def table_of_jobs(states: list[State], names: list[str]) -> Table:
    """A line for every job: how far it is, how fast, and how long its stage will still take."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("job", "status", "stage"):
        table.add_column(column)
    for column in ("step", "per second", "left"):
        table.add_column(column, justify="right")
    table.add_column("where")
    for name, state in zip(names, states):
        colour, left = COLOURS.get(state.status, "dim"), state.seconds_left
        told = f"{state.error}" if state.error and state.status != "running" else state.where
        table.add_row(
            plain(name),
            f"[{colour}]{state.status}[/]",
            state.stage,
            f"{state.done}/{state.total}" if state.total and state.status != "done" else "",
            f"{state.rate:.2g}" if left is not None else "",
            told_time(left) if left is not None else "",
            plain(told.splitlines()[0] if told else ""),
        )
    return table


def count_jobs(states: list[State]) -> str:
    """How many jobs are how far, in words."""
    counts = Counter(state.status for state in states)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


class JobTable:
    """The jobs on standard error: one live table on a terminal, a line for every change in a file."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = (
            Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        )
        self._seen: list[str] = []

    def __enter__(self) -> "JobTable":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, jobs: JobSet, states: list[State]) -> None:
        """Shows how far the jobs are."""
        names = [job.name for job in jobs.jobs]
        if self._live is not None:
            self._live.update(table_of_jobs(states, names), refresh=True)
            return
        now = [f"{state.status} {state.stage}".strip() for state in states]
        for name, line, before in zip(names, now, self._seen or ["queued"] * len(now)):
            if line != before:
                self._console.print(plain(f"{name}: {line}"), soft_wrap=True)
        self._seen = now


class Said(Silent):
    """Draws nothing, since a table of jobs is drawn, but says what is said in passing."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        self._console.print(plain(text), soft_wrap=True)


def parse_change(change: str) -> tuple[str, Any]:
    """`table.key=value`, the value as in TOML; a word that is no TOML value is a string."""
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise FssegError(
            f"--set {change}: expected table.key=value, for example training.steps=500"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip(), value
