"""Where plugins come from: installed distributions, single files, and source folders."""

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from fsseg.errors import PluginError
from fsseg.plugins.options import nearest
from fsseg.plugins.registry import named, place_of
from fsseg.system.code_digests import content_digest, digest_at_import, keep_module, sources_of

OURS = "fsseg"
"""The distribution of the built-in components."""


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin.

    Attributes:
        name: The name of its entry point, or of its file.
        distribution: As a component's.
        version: As a component's.
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
        found = {}
        for name in dir(self.module):
            function = getattr(self.module, name, None)
            options = getattr(function, "fsseg_impl", None)
            if inspect.isroutine(function) and options is not None:
                found[options.get("specname") or name] = function
        return found

    @property
    def sources(self) -> list[Path]:
        """Where its code is: the file that was given, or the folders of its distribution's top-level packages."""
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


def entry_points() -> list[importlib.metadata.EntryPoint]:
    """The entry points of the installed plugins, our own first."""
    entries = importlib.metadata.entry_points(group="fsseg")
    return sorted(entries, key=lambda entry: (entry.dist.name != OURS, entry.dist.name, entry.name))


def installed(without: tuple[str, ...] = ()) -> Iterator[Plugin]:
    """The installed plugins but for those named; raises PluginError if one cannot be imported or is not there."""
    entries = entry_points()
    names = {name for entry in entries for name in (entry.name, entry.dist.name)} - {
        OURS,
        "builtin",
    }
    for name in without:
        if name not in names:
            raise PluginError(
                f"--no-plugin {name}: there is no such plugin; {nearest(name, sorted(names))}"
            )
    for entry in entries:
        if not {entry.name, entry.dist.name} & set(without):
            yield import_entry(entry, entry.dist.name, entry.dist.version)


def import_entry(entry: importlib.metadata.EntryPoint, distribution: str, version: str) -> Plugin:
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
    if not _is_of(path, module):
        raise PluginError(
            f"--plugin {path}: there is another module {path.stem!r} ({getattr(module, '__file__', 'built in')}); "
            "give the file another name"
        )
    return Plugin(path.stem, path.name, content_digest(path)[:8], module, path.resolve())


def _is_of(path: Path, module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "").resolve() == path.resolve()


def plugins_of_folder(folder: Path) -> list[Plugin]:
    """The plugins of a distribution's source folder, which need not be installed; if it is, the installed ones.

    Raises PluginError if there is no plugin in it.
    """
    file = folder / "pyproject.toml"
    project = (
        tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}) if file.is_file() else {}
    )
    named_there = project.get("entry-points", {}).get("fsseg", {})
    if not named_there:
        raise PluginError(
            f"{folder}: expected a pyproject.toml with entry points in [project.entry-points.fsseg]"
        )
    there = [entry for entry in entry_points() if entry.dist.name == project["name"]]
    if there:
        return [import_entry(entry, entry.dist.name, entry.dist.version) for entry in there]
    for place in (folder / "src", folder):
        _look_in(place)
    entries = [
        importlib.metadata.EntryPoint(name, value, "fsseg") for name, value in named_there.items()
    ]
    return [import_entry(entry, project["name"], project.get("version", "")) for entry in entries]


def _look_in(folder: Path) -> None:
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))


def _import_file(path: Path) -> ModuleType:
    """The file's module, or another one that goes before it where Python looks for its name."""
    _look_in(path.parent)
    importlib.invalidate_caches()
    keep_module(path.stem)
    try:
        spec = importlib.util.find_spec(path.stem)
        if spec.origin and Path(spec.origin).resolve() == path.resolve():
            return _run(path)
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


def _run(path: Path) -> ModuleType:
    loader = _FromSource(path.stem, str(path.resolve()))
    spec = importlib.util.spec_from_loader(path.stem, loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
