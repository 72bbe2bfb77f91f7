"""What the commands have in common: tables that survive a pipe, progress on standard error, changes to options."""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from fsseg.errors import FssegError

Item = TypeVar("Item")


def _choose_files(files: list[Path] | None) -> list[Path] | None:
    from fsseg.plugins import choose_plugins

    choose_plugins(files=files or [])
    return files


def _choose_left_out(names: list[str] | None) -> list[str] | None:
    from fsseg.plugins import choose_plugins

    choose_plugins(without=names or [])
    return names


Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")]

PluginFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE", callback=_choose_files, help="A plugin in a single file; may be given again."
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


def parse_change(change: str) -> tuple[str, Any]:
    """`table.key=value`, the value as in TOML; a word that is no TOML value is a string."""
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise FssegError(f"--set {change}: expected table.key=value, for example training.steps=500")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip(), value
