"""Output of the commands: tables that survive a pipe, progress and jobs on standard error."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fsseg.jobs.job import JobProgress, JobSet, State, job_progress
from fsseg.system.progress import Silent, told_time

if TYPE_CHECKING:
    import pandas

Item = TypeVar("Item")

COLOURS = {
    "done": "green",
    "failed": "bold red",
    "running": "cyan",
    "stopped": "yellow",
    "lost": "yellow",
}
"""The colours of the states of jobs."""


def plain(text: object) -> str:
    """Text in which square brackets are just that."""
    return str(text).replace("[", "\\[")


def wide_console() -> Console:
    """A console that does not squeeze a table into 80 columns when it is piped into a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def print_line(text: str) -> None:
    """Prints a line for people to read, however long, square brackets as they are."""
    wide_console().print(plain(text), soft_wrap=True)


def new_table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table in the style of all commands.

    Args:
        columns: The heads of columns of words.
        numbers: The heads of columns of numbers, which follow and are aligned to the right.
    """
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def table_of_frame(frame: "pandas.DataFrame") -> Table:
    """A data frame of text as a table, names to the left."""
    columns = [plain(column) for column in frame.columns]
    table = new_table(str(frame.index.name or ""), numbers=columns)
    for name, cells in frame.iterrows():
        table.add_row(plain(name), *[plain(cell) for cell in cells])
    return table


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
        """Yields the items and shows how many have been."""
        if self._console.is_terminal:
            yield from self._progress.track(items, total=total, description=description)
            return
        for number, item in enumerate(items, start=1):
            yield item
            if 10 * number // total > 10 * (number - 1) // total:
                self._console.print(f"{description} {number}/{total}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Says something in passing."""
        self._console.print(plain(text), soft_wrap=True)


class Said(Silent):
    """Draws nothing, since a table of jobs is drawn, but says what is said in passing."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """Says something in passing."""
        self._console.print(plain(text), soft_wrap=True)


class JobTable:
    """The jobs on standard error: one live table on a terminal, a line for every change in a file."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
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
        before = self._seen or ["queued"] * len(now)
        for name, line, earlier in zip(names, now, before):
            if line != earlier:
                self._console.print(plain(f"{name}: {line}"), soft_wrap=True)
        self._seen = now


def table_of_jobs(states: list[State], names: list[str]) -> Table:
    """A line for every job: how far it is, how fast, and how long its stage will still take."""
    table = new_table("job", "status", "stage", numbers=["step", "per second", "left"])
    table.add_column("where")
    for name, state in zip(names, states):
        table.add_row(plain(name), *_cells(state))
    return table


def _cells(state: State) -> list[str]:
    """The cells of a job's line behind its name."""
    colour = COLOURS.get(state.status, "dim")
    step = speed = left = ""
    if state.total and state.status != "done":
        step = f"{state.done}/{state.total}"
    if state.seconds_left is not None:
        speed = f"{state.rate:.2g}"
        left = told_time(state.seconds_left)
    where = state.where
    if state.error and state.status != "running":
        where = state.error
    first_line = plain(where.partition("\n")[0])
    return [f"[{colour}]{state.status}[/]", state.stage, step, speed, left, first_line]


def count_jobs(states: list[State]) -> str:
    """The number of jobs in each state, in words."""
    counts = Counter(state.status for state in states)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
