"""Commands of other distributions: what they name in the entry-point group `fsseg.commands` is a command of this shell."""

import importlib.metadata
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperGroup

from fsseg.errors import FssegError, PluginError
from fsseg.plugins.manager import Surveyed
from fsseg.plugins.registry import named, place_of
from fsseg.plugins.sources import origin_of

GROUP = "fsseg.commands"
"""The entry-point group; each of its entries names a `typer.Typer` app."""

PANEL = "Commands of plugins"
"""The heading of these commands in the help."""


class Shell(TyperGroup):
    """The shell's own commands, and behind them those of other distributions, imported when they are used or listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, our own first."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in _entries() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; None if there is none. Our own are found without a look at what is installed."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entries = _entries().get(cmd_name)
        if entries is None:
            return None
        try:
            return _command(cmd_name, entries)
        except PluginError as error:
            return _unusable(cmd_name, error)


def surveyed_commands(own: list[str]) -> Iterator[Surveyed]:
    """Every command of other distributions as `fsseg plugin list` shows it, also those that cannot be used.

    Args:
        own: The names of the shell's own commands, which nobody replaces.
    """
    for name, entries in sorted(_entries().items()):
        problem = None
        try:
            if name in own:
                raise PluginError(
                    f"{_described(entries[0])}: fsseg has a command of this name, expected another one; rename it"
                )
            _command(name, entries)
        except PluginError as error:
            problem = str(error)
        for entry in entries:
            yield Surveyed(name, *origin_of(entry), [f"command/{name}"], [], problem)


def _entries() -> dict[str, list[EntryPoint]]:
    """The entry points by name, without importing them."""
    entries: dict[str, list[EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        entries.setdefault(entry.name, []).append(entry)
    return entries


def _command(name: str, entries: list[EntryPoint]) -> Any:
    """The command behind entry points of one name; raises PluginError for one that cannot be used."""
    entry, *others = entries
    if others:
        raise PluginError(
            f"the command {name!r} is registered twice: by {' and by '.join(map(_origin, entries))}; uninstall one of them"
        )
    try:
        app = entry.load()
    except Exception as error:
        raise PluginError(
            f"{_described(entry)}: {entry.value} cannot be imported ({named(error)}{place_of(error, entry.module)}); "
            "repair or uninstall that distribution"
        ) from error
    if not isinstance(app, typer.Typer):
        raise PluginError(
            f"{_described(entry)}: {entry.value} is {app!r}, expected a typer.Typer app; repair or uninstall that distribution"
        )
    try:
        command: Any = typer.main.get_command(app)
    except Exception as error:
        raise PluginError(
            f"{_described(entry)}: {entry.value} makes no command ({named(error)}); repair or uninstall that distribution"
        ) from error
    command.name = name
    command.rich_help_panel = PANEL
    command.invoke = _naming(entry, command.invoke)
    return command


def _naming(entry: EntryPoint, invoke: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The call of a command, whose bugs say whose they are; a user's mistake stays as it is."""

    def call(ctx: Any) -> Any:
        try:
            return invoke(ctx)
        except FssegError:
            raise
        except Exception as error:
            error.add_note(
                f"This happened in {_described(entry)}, not in fsseg itself; repair or uninstall that distribution"
            )
            raise

    return call


def _unusable(name: str, error: PluginError) -> Any:
    """A command that says in the help why it cannot be used, and ends with that when it is used."""
    app = typer.Typer(add_completion=False)
    anything = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command(name, help=str(error), add_help_option=False, context_settings=anything)
    def refuse() -> None:
        raise error

    command: Any = typer.main.get_command(app)
    command.rich_help_panel = PANEL
    return command


def _described(entry: EntryPoint) -> str:
    return f"command {entry.name!r} of {_origin(entry)}"


def _origin(entry: EntryPoint) -> str:
    distribution, version = origin_of(entry)
    return f"{distribution} {version}"
