"""Whose code an error comes from: the traceback of a bug stays, and says which plugin to repair or leave out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

from fsseg.errors import FssegError
from fsseg.plugins.manager import loaded
from fsseg.plugins.registry import import_string
from fsseg.plugins.sources import OURS, Plugin

NOTED = "This happened in"
"""The beginning of the notes."""


@contextmanager
def naming_plugins() -> Iterator[None]:
    """Notes on an error that leaves the block which plugin's code it went through, if it did; other errors stay."""
    try:
        yield
    except Exception as error:
        name_plugin(error)
        raise


def name_plugin(error: Exception) -> None:
    """Notes on an error, unless it is a user's, the plugin whose code it went through last, if it did."""
    if isinstance(error, FssegError) or any(
        NOTED in note for note in getattr(error, "__notes__", [])
    ):
        return
    note = _note(error)
    if note is not None:
        error.add_note(note)


def _note(error: Exception) -> str | None:
    """The sentence about the innermost line of a plugin's code; None where there is none."""
    note = None
    for frame, line in walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        plugin = _plugin_of(file.resolve())
        if plugin is not None:
            remedy = "correct the file"
            if plugin.file is None:
                remedy = f"repair it, or leave it out with --no-plugin {plugin.name}"
            note = f"{NOTED} {plugin} ({file}:{line}), not in fsseg itself; {remedy}"
    return note


def _plugin_of(file: Path) -> Plugin | None:
    """The plugin whose code a file is."""
    try:
        plugins = loaded().plugins
    except FssegError:  # it is not the plugins that were chosen that are at fault
        return None
    for plugin in plugins:
        if plugin.distribution == OURS:
            continue
        sources = [source.resolve() for source in plugin.sources]
        if any(file == source or source in file.parents for source in sources):
            return plugin
    return None


def described(kind: str, component: object) -> str:
    """A component in words, with the distribution that it comes from where it is registered."""
    target = import_string(type(component))
    for registered in loaded().registry:
        if (registered.kind, registered.target) == (kind, target):
            return str(registered)
    return f"{kind} {type(component).__name__}"
