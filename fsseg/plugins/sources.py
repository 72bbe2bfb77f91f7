"""Where plugins come from: installed distributions, single files, and source folders."""

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from fsseg.errors import PluginError
from fsseg.plugins.options import nearest
from fsseg.plugins.registry import named, place_of
from fsseg.system.code_digests import content_digest, digest_at_import, keep_module, sources_of
from fsseg.system.text import read_toml

OURS = "fsseg"
"""The distribution of the built-in components."""


@dataclass(frozen=True)
class Plugin:
    """A plugin whose module is imported.

    Attributes:
        name: The name of its entry point, or of its file.
        distribution: The distribution it comes from; the file's name for one that was given with `--plugin`.
        version: That distribution's version; a file's is the beginning of its hash.
        module: The module or object that has the hooks.
        file: The file that was given with `--plugin`, if it was.
    """

    name: str
    distribution: str
    version: str
    module: Any
    file: Path | None = None

    def __str__(self) -> str:
        if self.file:
            return f"plugin {self.file}"
        return f"plugin {self.name!r} of {self.distribution} {self.version}"

    @property
    def hooks(self) -> dict[str, Callable[..., Any]]:
        """Its hooks by name, as it marked them."""
        hooks: dict[str, Callable[..., Any]] = {}
        for name in dir(self.module):
            function = getattr(self.module, name, None)
            options = getattr(function, "fsseg_impl", None)
            if inspect.isroutine(function) and options is not None:
                hooks[options.get("specname") or name] = function
        return hooks

    @cached_property
    def sources(self) -> list[Path]:
        """The places of its code: the file that was given, or the folders of its distribution's top-level packages."""
        if self.file:
            return [self.file]
        module = getattr(self.module, "__name__", type(self.module).__module__)
        packages = {module.partition(".")[0], *_packages_of(self.distribution)}
        return [source for package in sorted(packages) for source in sources_of(package)]

    @property
    def digest(self) -> str:
        """The digest of its source files as they were when they were imported."""
        return digest_at_import(*self.sources)


@cache
def _packages_of(distribution: str) -> set[str]:
    """The names under which an installed distribution's Python files are imported, as far as it lists them."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py"}


def origin_of(entry: EntryPoint) -> tuple[str, str]:
    """The name and the version of the distribution that an installed entry point is from."""
    assert entry.dist is not None  # only those that nobody installed have none
    return entry.dist.name, entry.dist.version


def entry_points() -> list[EntryPoint]:
    """The entry points of the installed plugins, our own first."""

    def order(entry: EntryPoint) -> tuple[bool, str, str]:
        distribution, _ = origin_of(entry)
        return distribution != OURS, distribution, entry.name

    return sorted(importlib.metadata.entry_points(group="fsseg"), key=order)


def chosen_entry_points(without: tuple[str, ...]) -> list[EntryPoint]:
    """The entry points of the installed plugins but for those whose name or distribution is given."""
    return [entry for entry in entry_points() if not _names_of(entry) & set(without)]


def _names_of(entry: EntryPoint) -> set[str]:
    distribution, _ = origin_of(entry)
    return {entry.name, distribution}


def installed(without: tuple[str, ...] = ()) -> Iterator[Plugin]:
    """The installed plugins but for those named; raises PluginError if one cannot be imported or is not there."""
    names = set().union(*map(_names_of, entry_points())) - {OURS, "builtin"}
    for name in without:
        if name not in names:
            raise PluginError(
                f"--no-plugin {name}: there is no such plugin; {nearest(name, sorted(names))}"
            )
    for entry in chosen_entry_points(without):
        yield import_entry(entry, *origin_of(entry))


def import_entry(entry: EntryPoint, distribution: str, version: str) -> Plugin:
    """The plugin behind an entry point; raises PluginError if its module cannot be imported."""
    keep_module(entry.module)
    try:
        return Plugin(entry.name, distribution, version, entry.load())
    except Exception as error:
        raise PluginError(
            f"plugin {entry.name!r} of {distribution} {version}: {entry.value} cannot be imported "
            f"({named(error)}{place_of(error, entry.module)}); repair or uninstall that distribution, or leave it out "
            f"with --no-plugin {entry.name}"
        ) from error


def plugin_of_file(path: Path) -> Plugin:
    """A plugin that is a single Python file. Its module has the file's name, so that worker processes find it too.

    Raises PluginError if it cannot be imported under that name.
    """
    if path.suffix != ".py" or not path.is_file() or not path.stem.isidentifier():
        raise PluginError(
            f"--plugin {path}: expected a Python file whose name can be imported, such as ./my_idea.py"
        )
    module = sys.modules.get(path.stem) or _import_file(path)
    file = getattr(module, "__file__", None)
    if not _is_same(file, path):
        raise PluginError(
            f"--plugin {path}: there is another module {path.stem!r} ({file or 'built in'}); "
            "give the file another name"
        )
    return Plugin(path.stem, path.name, content_digest(path)[:8], module, path.resolve())


def _is_same(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).resolve() == path.resolve()


def plugins_of_folder(folder: Path) -> list[Plugin]:
    """The plugins of a distribution's source folder, which need not be installed; if it is, the installed ones.

    Raises PluginError if there is no plugin in it.
    """
    project = _project(folder / "pyproject.toml")
    modules = project.get("entry-points", {}).get("fsseg", {})
    if not modules:
        raise PluginError(
            f"{folder}: expected a pyproject.toml with entry points in [project.entry-points.fsseg]"
        )
    entries = [entry for entry in entry_points() if origin_of(entry)[0] == project["name"]]
    if entries:
        return [import_entry(entry, *origin_of(entry)) for entry in entries]
    for place in (folder / "src", folder):
        _look_in(place)
    version = project.get("version", "")
    entries = [EntryPoint(name, module, "fsseg") for name, module in modules.items()]
    return [import_entry(entry, project["name"], version) for entry in entries]


def _project(file: Path) -> dict[str, Any]:
    """The table [project] of a pyproject.toml; empty if there is none."""
    if not file.is_file():
        return {}
    return read_toml(file, PluginError).get("project", {})


def _look_in(folder: Path) -> None:
    """Has Python look for modules in a folder, also in files that are new there."""
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    importlib.invalidate_caches()


def _import_file(path: Path) -> ModuleType:
    """The file's module, or another one of its name where Python finds that one first."""
    _look_in(path.parent)
    keep_module(path.stem)
    try:
        spec = importlib.util.find_spec(path.stem)
        if spec is not None and _is_same(spec.origin, path):
            return _import_from_source(path)
        return importlib.import_module(path.stem)
    except Exception as error:
        raise PluginError(
            f"--plugin {path}: it cannot be imported ({named(error)}{place_of(error, path.stem)}); correct the file"
        ) from error


class _FromSource(SourceFileLoader):
    """Runs a file as it is: its bytecode may be of another one that was as long, written within the same second."""

    def path_stats(self, path: str) -> Any:
        """Raises OSError, after which no bytecode is used or written."""
        raise OSError


def _import_from_source(path: Path) -> ModuleType:
    loader = _FromSource(path.stem, str(path.resolve()))
    spec = ModuleSpec(path.stem, loader, origin=str(path.resolve()))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
