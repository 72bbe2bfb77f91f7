"""The plugins of this process: which are loaded, their hooks, and the registry that they fill."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pluggy

from fsseg.errors import FssegError, PluginError
from fsseg.plugins import hookspecs
from fsseg.plugins.options import nearest, schema
from fsseg.plugins.registry import KINDS, Component, Registry, at, line_of, named
from fsseg.plugins.sources import (
    Plugin,
    entry_points,
    import_entry,
    installed,
    plugin_of_file,
    plugins_of_folder,
)
from fsseg.system.code_digests import (
    changed_since_import,
    drop_modules,
    imported_modules,
    keep_module,
)


@dataclass(frozen=True)
class Loaded:
    """Everything that plugins bring."""

    plugins: list[Plugin]
    manager: pluggy.PluginManager
    registry: Registry


@dataclass(frozen=True)
class Choice:
    """Which plugins to load besides the installed ones, and which of those to leave out."""

    files: tuple[Path, ...] = ()
    without: tuple[str, ...] = ()


_choice = Choice()


def choose_plugins(
    files: Iterable[Path | str] | None = None, without: Iterable[str] | None = None
) -> None:
    """Decides which plugins this process loads; what is not given stays as it was.

    A file that has changed since it was imported is imported anew, so that its present code runs.

    Args:
        files: Plugins of a single file that belong to no distribution, or folders of a distribution's sources.
        without: Installed plugins to leave out, by the name of the plugin or of its distribution.
    """
    global _choice
    chosen = Choice(
        _choice.files if files is None else tuple(Path(file) for file in files),
        _choice.without if without is None else tuple(without),
    )
    stale = _changed_of(chosen.files) if files is not None else []
    drop_modules(*stale)
    if stale or chosen != _choice:
        _choice = chosen
        loaded.cache_clear()
        schema.cache_clear()


def _changed_of(paths: Iterable[Path]) -> list[Path]:
    """The files and folders among these whose imported code is no longer what they hold."""
    changed = []
    for path in paths:
        modules = imported_modules(path)
        for name in modules.values():
            keep_module(name)
        if modules and changed_since_import(*modules):
            changed.append(path)
    return changed


def changed_sources() -> list[Path]:
    """The source files of fsseg and of the plugins in use that have changed since this process imported them.

    What it computes is then of code that nobody can tell.
    """
    sources = [source for plugin in loaded().plugins for source in plugin.sources]
    return changed_since_import(*sources)


def plugin_arguments() -> list[str]:
    """The command line's words that have another process load the plugins that this one does."""
    files = [word for file in _choice.files for word in ("--plugin", str(file.absolute()))]
    return files + [word for name in _choice.without for word in ("--no-plugin", name)]


def registry() -> Registry:
    """The components of fsseg and of every plugin; raises PluginError for a plugin that cannot be used."""
    return loaded().registry


def hooks() -> pluggy.HookRelay:
    """The hooks to call, each of which every plugin that implements it hears."""
    return loaded().manager.hook


@contextmanager
def listening(listeners: list[Any]) -> Iterator[None]:
    """Objects that hear the hooks of a run, within the block, as plugins do all the time.

    Raises PluginError for one whose hooks are not hooks.
    """
    manager = loaded().manager
    for listener in listeners:
        check_hooks(Plugin(type(listener).__name__, type(listener).__module__, "", listener))
    for listener in listeners:
        manager.register(listener)
    try:
        yield
    finally:
        for listener in listeners:
            manager.unregister(listener)


@cache
def loaded() -> Loaded:
    """The plugins that were chosen; raises PluginError for one that cannot be used."""
    found = [*installed(_choice.without)]
    for path in _choice.files:
        found += [plugin for plugin in _plugins_of(path) if plugin not in found]
    return load(found)


def _plugins_of(path: Path) -> list[Plugin]:
    """The plugins of a file or a source folder; raises PluginError for a file without a hook."""
    if path.is_dir():
        return plugins_of_folder(path)
    plugin = plugin_of_file(path)
    check_hooks(plugin)
    if not plugin.hooks:
        raise PluginError(
            f"--plugin {path}: it has no hook, expected a function such as register_thresholds(register) with "
            "@hookimpl above it; see docs/hooks.md"
        )
    return [plugin]


def load(plugins: list[Plugin]) -> Loaded:
    """Registers plugins with a manager of their own and collects their components."""
    manager = pluggy.PluginManager("fsseg")
    manager.add_hookspecs(hookspecs)
    for plugin in plugins:
        check_hooks(plugin)
        manager.register(plugin.module, f"{plugin.distribution}:{plugin.name}")
    return Loaded(plugins, manager, _collect(plugins))


def check_hooks(plugin: Plugin) -> None:
    """Raises PluginError for a hook that is misspelt, not marked, or asks for an argument that there is not."""
    for name, function in plugin.hooks.items():
        if name not in hookspecs.spec_names():
            raise _refuse(
                plugin,
                function,
                f"there is no hook {name!r}; {nearest(name, hookspecs.spec_names())}",
            )
        known = list(inspect.signature(hookspecs.describe(name)).parameters)
        strange = [
            argument for argument in inspect.signature(function).parameters if argument not in known
        ]
        if strange:
            offered = ", ".join(known)
            raise _refuse(
                plugin,
                function,
                f"the hook {name} has no argument {strange[0]!r}, expected some of {offered}",
            )
    for name in hookspecs.spec_names():
        function = getattr(plugin.module, name, None)
        if inspect.isfunction(function) and name not in plugin.hooks:
            raise _refuse(
                plugin, function, f"the hook {name} is not marked; write @hookimpl above it"
            )


def _collect(plugins: list[Plugin]) -> Registry:
    """Calls the register hooks plugin by plugin, to know whose component it is; by kind, in the order of plugins."""
    found = Registry()
    for kind, hook in KINDS.items():
        for plugin in plugins:
            if hook in plugin.hooks:
                _register_all(found, plugin, kind, plugin.hooks[hook])
    return found


def _register_all(found: Registry, plugin: Plugin, kind: str, hook: Callable[..., Any]) -> None:
    def register(name: str, target: str | type) -> None:
        text = f"{target.__module__}:{target.__qualname__}" if isinstance(target, type) else target
        module, _, attribute = str(text).partition(":")
        if not (module and attribute):
            raise _refuse(
                plugin, hook, f'{kind} {name!r}: expected "package.module:Class", got {target!r}'
            )
        found.add(
            Component(
                kind,
                name,
                text,
                plugin.distribution,
                plugin.version,
                plugin.name,
                line_of(hook),
                plugin.file,
            )
        )

    try:
        hook(*[register][: len(inspect.signature(hook).parameters)])
    except FssegError:
        raise
    except Exception as error:
        raise _refuse(plugin, hook, f"{hook.__name__} failed ({named(error)})") from error


def _refuse(plugin: Plugin, function: Callable[..., Any], sentence: str) -> PluginError:
    way_out = (
        "correct the file"
        if plugin.file
        else f"repair it, or leave it out with --no-plugin {plugin.name}"
    )
    return PluginError(f"{plugin}{at(line_of(function))}: {sentence}; {way_out}")


@dataclass(frozen=True)
class Surveyed:
    """A plugin as `fsseg plugin list` shows it.

    Attributes:
        name: The plugin's name.
        distribution: Where it comes from.
        version: That distribution's version.
        components: What it registers, as KIND/NAME.
        listens: The hooks of a run that it implements.
        problem: Why it cannot be used, if it cannot.
    """

    name: str
    distribution: str
    version: str
    components: list[str]
    listens: list[str]
    problem: str | None = None


def survey() -> list[Surveyed]:
    """Every plugin, whether it can be used or not: one that clashes with another before it cannot."""
    good: list[Plugin] = []
    lines = []
    for origin, find in _candidates():
        try:
            for plugin in find():
                lines.append(_surveyed(plugin, load([*good, plugin])))
                good.append(plugin)
        except PluginError as error:
            lines.append(Surveyed(*origin, [], [], str(error)))
    return lines


def _candidates() -> Iterator[tuple[tuple[str, str, str], Callable[[], list[Plugin]]]]:
    """Name, distribution and version of every plugin, and how to get it."""
    for entry in entry_points():
        if not {entry.name, entry.dist.name} & set(_choice.without):
            origin = (entry.name, entry.dist.name, entry.dist.version)
            yield origin, partial(lambda e, *of: [import_entry(e, *of)], entry, *origin[1:])
    for path in _choice.files:
        yield (path.stem, path.name, ""), partial(_plugins_of, path)


def _surveyed(plugin: Plugin, found: Loaded) -> Surveyed:
    own = (plugin.distribution, plugin.name)
    components = [f"{c.kind}/{c.name}" for c in found.registry if (c.distribution, c.plugin) == own]
    listens = [name for name in plugin.hooks if name not in KINDS.values()]
    return Surveyed(plugin.name, plugin.distribution, plugin.version, components, listens)


def components_of(what: str) -> list[Component]:
    """The components of a plugin.

    Args:
        what: Its name, its distribution's, a component's `KIND/NAME`, or the path of its file or source folder.

    Raises:
        PluginError: There is no such plugin, or it registers nothing.
    """
    kind, _, name = what.partition("/")
    if kind in KINDS and name:
        return [registry().find(kind, name)]
    path, wanted = Path(what), {what}
    if path.exists():
        choose_plugins(files=[path])
        wanted = {_plugins_of(path)[0].distribution}
    found = [
        component for component in registry() if {component.plugin, component.distribution} & wanted
    ]
    if not found:
        known = sorted(
            {name for plugin in loaded().plugins for name in (plugin.name, plugin.distribution)}
        )
        raise PluginError(f"there is no plugin {what!r} with components; {nearest(what, known)}")
    return found
