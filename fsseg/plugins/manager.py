"""The plugins of this process: those that are loaded, their hooks, and the registry that they fill."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy

from fsseg.errors import FssegError, PluginError
from fsseg.plugins import hookspecs
from fsseg.plugins.options import nearest, schema
from fsseg.plugins.registry import KINDS, Component, Registry, at, import_string, line_of, named
from fsseg.plugins.sources import (
    Plugin,
    chosen_entry_points,
    import_entry,
    installed,
    origin_of,
    plugin_of_file,
    plugins_of_folder,
)
from fsseg.system.code_digests import changed_since_import, drop_modules, is_stale


@dataclass(frozen=True)
class Loaded:
    """The plugins of this process, with their hooks and the components that they bring."""

    plugins: list[Plugin]
    manager: pluggy.PluginManager
    registry: Registry


@dataclass(frozen=True)
class Choice:
    """The plugins to load besides the installed ones, and those of the installed ones to leave out."""

    files: tuple[Path, ...] = ()
    without: tuple[str, ...] = ()


_choice = Choice()


def choose_plugins(
    files: Iterable[Path | str] | None = None, without: Iterable[str] | None = None
) -> None:
    """Chooses the plugins that this process loads; what is not given stays as it was.

    A file that has changed since it was imported is imported anew, so that its present code runs.

    Args:
        files: Plugins of a single file that belong to no distribution, or folders of a distribution's sources.
        without: Installed plugins to leave out, by the name of the plugin or of its distribution.

    Example:
        >>> fsseg.choose_plugins(files=["my_policy.py"])
        >>> fsseg.registry().find("threshold", "my_policy").version
        '5c29ab31'
    """
    global _choice
    chosen = _choice
    stale = []
    if files is not None:
        chosen = replace(chosen, files=tuple(Path(file) for file in files))
        stale = [path for path in chosen.files if is_stale(path)]
        drop_modules(*stale)
    if without is not None:
        chosen = replace(chosen, without=tuple(without))
    if stale or chosen != _choice:
        _choice = chosen
        loaded.cache_clear()
        schema.cache_clear()


def changed_sources() -> list[Path]:
    """The source files of fsseg and of the plugins in use that have changed since this process imported them.

    What it computes is then of code that nobody can tell.
    """
    sources = [source for plugin in loaded().plugins for source in plugin.sources]
    return changed_since_import(*sources)


def plugin_arguments() -> list[str]:
    """The command line's words that have another process load the plugins that this one does."""
    words = []
    for file in _choice.files:
        words += ["--plugin", str(file.absolute())]
    for name in _choice.without:
        words += ["--no-plugin", name]
    return words


def registry() -> Registry:
    """The components of fsseg and of every plugin.

    Raises:
        PluginError: A plugin cannot be used.
    """
    return loaded().registry


def hooks() -> pluggy.HookRelay:
    """The hooks to call, each of which every plugin that implements it hears."""
    return loaded().manager.hook


@contextmanager
def listening(listeners: list[Any]) -> Iterator[None]:
    """Has objects hear the hooks of a run within the block, as plugins do all the time.

    Raises:
        PluginError: A method of one is marked as a hook and is none.
    """
    manager = loaded().manager
    with ExitStack() as stack:
        for listener in listeners:
            cls = type(listener)
            _register(manager, Plugin(cls.__name__, cls.__module__, "", listener))
            stack.callback(manager.unregister, listener)
        yield


@cache
def loaded() -> Loaded:
    """The plugins that were chosen; raises PluginError for one that cannot be used."""
    plugins = list(installed(_choice.without))
    for path in _choice.files:
        plugins += [plugin for plugin in _plugins_of(path) if plugin not in plugins]
    return load(plugins)


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
    manager = _new_manager()
    for plugin in plugins:
        _register(manager, plugin, f"{plugin.distribution}:{plugin.name}")
    return Loaded(plugins, manager, _collect(plugins))


def check_hooks(plugin: Plugin) -> None:
    """Raises PluginError for a hook that is misspelt, not marked, or asks for an argument that there is not."""
    _register(_new_manager(), plugin)


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("fsseg")
    manager.add_hookspecs(hookspecs)
    return manager


def _register(manager: pluggy.PluginManager, plugin: Plugin, name: str | None = None) -> None:
    """Has pluggy check and register a plugin's hooks, and says in our words what it refuses."""
    _refuse_unmarked_hooks(plugin)
    try:
        manager.register(plugin.module, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        if manager.is_registered(plugin.module):
            manager.unregister(plugin.module)
        hook = next(name for name in plugin.hooks if repr(name) in str(error))
        sentence = _invalid_hook(hook, str(error))
        raise _refuse(plugin, plugin.hooks[hook], sentence) from None


def _refuse_unmarked_hooks(plugin: Plugin) -> None:
    for name in hookspecs.spec_names():
        function = getattr(plugin.module, name, None)
        if inspect.isfunction(function) and name not in plugin.hooks:
            sentence = f"the hook {name} is not marked; write @hookimpl above it"
            raise _refuse(plugin, function, sentence)


def _invalid_hook(name: str, error: str) -> str:
    """A sentence of both sides: the hook as the plugin has it, and as it is."""
    if name not in hookspecs.spec_names():
        return f"there is no hook {name!r}; {nearest(name, hookspecs.spec_names())}"
    *_, problem = error.splitlines()
    arguments = ", ".join(inspect.signature(hookspecs.describe(name)).parameters)
    return f"{problem}, which is {name}({arguments})"


def _collect(plugins: list[Plugin]) -> Registry:
    """Calls the register hooks plugin by plugin, to know whose a component is; kind by kind, in the plugins' order."""
    components = Registry()
    for kind, hook in KINDS.items():
        for plugin in plugins:
            if hook in plugin.hooks:
                _add_components(components, plugin, kind)
    return components


def _add_components(components: Registry, plugin: Plugin, kind: str) -> None:
    """Calls a plugin's hook that registers the components of a kind."""
    hook = plugin.hooks[KINDS[kind]]

    def register(name: str, target: str | type) -> None:
        try:
            text = import_string(target)
        except ValueError as error:
            raise _refuse(plugin, hook, f"{kind} {name!r}: {error}") from None
        components.add(
            Component(
                kind=kind,
                name=name,
                target=text,
                distribution=plugin.distribution,
                version=plugin.version,
                plugin=plugin.name,
                where=line_of(hook),
                file=plugin.file,
            )
        )

    arguments = [register] if inspect.signature(hook).parameters else []
    try:
        hook(*arguments)
    except FssegError:
        raise
    except Exception as error:
        raise _refuse(plugin, hook, f"{hook.__name__} failed ({named(error)})") from error


def _refuse(plugin: Plugin, function: Callable[..., Any], sentence: str) -> PluginError:
    way_out = f"repair it, or leave it out with --no-plugin {plugin.name}"
    if plugin.file:
        way_out = "correct the file"
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
    """Every plugin, also those that cannot be used; of two that clash, the later one cannot."""
    usable: list[Plugin] = []
    surveyed = []
    for origin, find in _candidates():
        try:
            for plugin in find():
                surveyed.append(_surveyed(plugin, load([*usable, plugin]).registry))
                usable.append(plugin)
        except PluginError as error:
            surveyed.append(Surveyed(*origin, [], [], str(error)))
    return surveyed


def _candidates() -> Iterator[tuple[tuple[str, str, str], Callable[[], list[Plugin]]]]:
    """Name, distribution and version of every plugin, and a function that gets it."""
    for entry in chosen_entry_points(_choice.without):
        yield (entry.name, *origin_of(entry)), partial(_plugins_of_entry, entry)
    for path in _choice.files:
        yield (path.stem, path.name, ""), partial(_plugins_of, path)


def _plugins_of_entry(entry: EntryPoint) -> list[Plugin]:
    return [import_entry(entry, *origin_of(entry))]


def _surveyed(plugin: Plugin, components: Registry) -> Surveyed:
    origin = (plugin.distribution, plugin.name)
    names = []
    for component in components:
        if (component.distribution, component.plugin) == origin:
            names.append(f"{component.kind}/{component.name}")
    listens = [name for name in plugin.hooks if name not in KINDS.values()]
    return Surveyed(plugin.name, plugin.distribution, plugin.version, names, listens)


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
    path = Path(what)
    wanted = what
    if path.exists():
        choose_plugins(files=[path])
        wanted = _plugins_of(path)[0].distribution
    components = [
        component
        for component in registry()
        if wanted in (component.plugin, component.distribution)
    ]
    if not components:
        plugins = loaded().plugins
        names = {plugin.name for plugin in plugins} | {plugin.distribution for plugin in plugins}
        raise PluginError(
            f"there is no plugin {what!r} with components; {nearest(what, sorted(names))}"
        )
    return components
