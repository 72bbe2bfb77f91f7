"""Output of the commands: tables that survive a pipe, progress and jobs on standard error.

Names reach it from recipes, plugins and other people's runs. No text is markup here, and what would steer a terminal is
written by its number; whatever has a colour is a `Text`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fsseg.jobs.job import JobProgress, JobSet, State, job_progress
from fsseg.system.names import visible
from fsseg.system.progress import Silent, told_time
from fsseg.system.targets import is_special

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


class PlainConsole(Console):
    """A console on which text is text: brackets are no markup, colons no pictures, and nothing steers the terminal."""

    def __init__(self, **how: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Turns text into what is printed; rich calls this for every string, also for those in tables."""
        return super().render_str(visible(text), **how)


def styled(text: object, style: str) -> Text:
    """Text in a colour, or bold or dim."""
    return Text(visible(str(text)), style)


def wide_console() -> Console:
    """A console that does not squeeze a table into 80 columns when it is piped into a file."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=140)


def errors_console() -> Console:
    """A console on standard error."""
    return PlainConsole(stderr=True)


def print_text(text: str) -> None:
    """Prints text for other programs as it is, but for what would steer a terminal."""
    print(visible(text), end="" if text.endswith("\n") else "\n", flush=True)


def print_size(file: Path) -> None:
    """Prints what was written and how large it is; nothing of a device or a pipe, which may be standard output itself."""
    if file.is_file() and not is_special(file):
        wide_console().print(f"{file}: {file.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


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
    columns = [str(column) for column in frame.columns]
    table = new_table(str(frame.index.name or ""), numbers=columns)
    for name, cells in frame.iterrows():
        table.add_row(str(name), *[str(cell) for cell in cells])
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

        self._console = errors_console()
        self._progress = Progress(
            TextColumn("{task.description:<12}", markup=False),
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
        description = visible(description)
        if self._console.is_terminal:
            yield from self._progress.track(items, total=total, description=description)
            return
        for number, item in enumerate(items, start=1):
            yield item
            if 10 * number // total > 10 * (number - 1) // total:
                self._console.print(f"{description} {number}/{total}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Says something in passing."""
        self._console.print(text, soft_wrap=True)


class Said(Silent):
    """Draws nothing, since a table of jobs is drawn, but says what is said in passing."""

    def __init__(self) -> None:
        self._console = errors_console()

    def note(self, text: str) -> None:
        """Says something in passing."""
        self._console.print(text, soft_wrap=True)


class JobTable:
    """The jobs on standard error: one live table on a terminal, a line for every change in a file."""

    def __init__(self) -> None:
        self._console = errors_console()
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
                self._console.print(f"{name}: {line}", soft_wrap=True)
        self._seen = now


def table_of_jobs(states: list[State], names: list[str]) -> Table:
    """A line for every job: how far it is, how fast, and how long its stage will still take."""
    table = new_table("job", "status", "stage", numbers=["step", "per second", "left"])
    table.add_column("where")
    for name, state in zip(names, states):
        table.add_row(name, *_cells(state))
    return table


def _cells(state: State) -> list[str | Text]:
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
    first_line = where.partition("\n")[0]
    return [styled(state.status, colour), state.stage, step, speed, left, first_line]


def count_jobs(states: list[State]) -> str:
    """The number of jobs in each state, in words."""
    counts = Counter(state.status for state in states)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
