"""What a stage depends on, as plain values from which its key is made.

A key holds the recipe's part, the data, the seed, the device, versions, and the source of what
computes, followed along its imports: a key that held all of fsseg would make a typo in a table
retrain everything.
"""

import ast
import platform
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fsseg.errors import FssegError
from fsseg.plugins.effects import changes_of
from fsseg.plugins.manager import changed_sources, loaded, registry
from fsseg.plugins.options import schema
from fsseg.plugins.sources import OURS
from fsseg.recipe.tables import ComponentTable
from fsseg.system.code_digests import digest_at_import
from fsseg.system.files import fingerprint

LIBRARIES = ("torch", "timm", "numpy", "scipy", "numba", "scikit-image")
"""Libraries on whose versions digits may depend."""

STAGE_SOURCES = {
    "train": ("fsseg.training.loop", "fsseg.training.mapped"),
    "calibrate": ("fsseg.training.calibration",),
    "evaluate": ("fsseg.evaluation.evaluate", "fsseg.evaluation.files"),
}
"""By stage, the modules that compute it."""

PUT_TOGETHER = {
    "train": ("train.py", "data.py", "scans.py"),
    "calibrate": ("fold.py", "data.py", "scans.py"),
    "evaluate": ("fold.py", "data.py", "scans.py"),
}
"""By stage, the modules of this package that hand it what it computes with; not all that they import is meant."""

ROOT = Path(__file__).parents[1]
"""The folder of fsseg's packages."""

PACKAGES = (
    "errors", "system", "score_scale", "types", "interfaces", "plugins", "data", "recipe", "model", "training",
    "evaluation", "runs", "prediction", "analysis", "report", "jobs", "prepare", "testing", "cli",
)  # fmt: skip
"""The packages of fsseg (and modules beside them) in the order in which the data flows."""

PLUMBING = ("errors", "interfaces", "plugins", "recipe", "system")
"""Packages that carry values and decide none: options and components are in a key by themselves."""

DECIDING = ("system.devices", "system.random")
"""Modules of these that results depend on nevertheless."""


def environment(device: str) -> dict[str, Any]:
    """What the bits of a result may depend on besides recipe and data, with every plugin that is loaded."""
    plugins = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "source": plugin.digest,
        }
        for plugin in loaded().plugins
        if plugin.distribution != OURS
    ]
    return machine(device) | {"source": whole_digest(), "plugins": plugins}


def require_as_imported() -> None:
    """Checks that this process runs the code that its files hold.

    Raises:
        FssegError: A file of fsseg or of a plugin has changed since it was imported, so that nobody could
            say which of the two a result is of.
    """
    changed = changed_sources()
    if changed:
        names = ", ".join(str(file) for file in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise FssegError(
            f"{names}{more} changed since it was imported, expected the code that runs to be the code "
            "that is there; restart Python (in a notebook the kernel), or choose a plugin's file again "
            "with fsseg.choose_plugins"
        )


def machine(device: str) -> dict[str, Any]:
    """What the bits of a result may depend on besides recipe, data and source."""
    import torch  # loads with the stages that need it, not with those that only want a key

    return {
        "fsseg": _version_of("fsseg"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        **library_versions(LIBRARIES),
        **_changes(),
    }


def _changes() -> dict[str, Any]:
    """The plugins that may change what others compute, if there are any."""
    changes = changes_of(loaded().plugins)
    return {"changed_by": changes} if changes else {}


def stage_source(stage: str) -> str:
    """A short hash of the source that computes a stage: "train", "calibrate" or "evaluate"."""
    here = Path(__file__).parent
    joined = digest_at_import(*(here / name for name in PUT_TOGETHER[stage]))
    return fingerprint([source_digest(*STAGE_SOURCES[stage]), joined])[:16]


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of a checkout and whether files differ from it; None for what is none, or without git."""
    try:
        commit = _ask_git(folder, "rev-parse", "HEAD")
        changed = bool(_ask_git(folder, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": changed}


def _ask_git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """The versions of those libraries that are installed."""
    versions = {}
    for library in libraries:
        installed = _version_of(library)
        if installed is not None:
            versions[library] = installed
    return versions


@cache
def _version_of(library: str) -> str | None:
    """The version of a library, asked for once: each time its whole description would be read."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def component_identity(kind: str, table: ComponentTable) -> dict[str, Any]:
    """A component by what it computes: its options, its distribution's version and its source."""
    component = registry().find(kind, table.name)
    return {
        "name": table.name,
        "options": table.options,
        "distribution": [component.distribution, component.version],
        "source": _component_source(kind, table.name),
    }


def _component_source(kind: str, name: str) -> str:
    """A short hash of a component's source: of ours the modules that it imports, of others all files beside it."""
    component = registry().find(kind, name)
    if component.distribution == OURS:
        module = component.target.partition(":")[0]
        return digest_at_import(*imported_files(module))
    return component.digest


def reading_identity(dataset: ComponentTable, grid: dict[str, Any]) -> str:
    """What is kept of scans is kept by this besides the scans: how they are read, put on a grid and scaled."""
    component = component_identity("dataset", ComponentTable(name=dataset.name))
    source = source_digest("fsseg.data.facts", "fsseg.data.intensity", "fsseg.data.volume")
    libraries = library_versions(("numpy", "nibabel", "torch"))
    return fingerprint([component, source, libraries, grid, _changes()])


def supervoxel_identity(table: ComponentTable) -> str:
    """What supervoxels are kept by, besides the scan and their least size, however the options were written."""
    component = registry().find("supervoxels", table.name)
    options = schema(component.load())(**table.options).model_dump()
    options.pop("min_size", None)
    written_out = ComponentTable(name=table.name, **options)
    libraries = library_versions(("numpy", "scipy", "scikit-image"))
    return fingerprint([component_identity("supervoxels", written_out), libraries, _changes()])


def whole_digest() -> str:
    """A short hash of all of fsseg's source."""
    return digest_at_import(ROOT)


def source_digest(*modules: str) -> str:
    """A short hash of some modules of fsseg and of all that they import and that decides what they compute.

    Args:
        modules: Names such as "fsseg.training.loop".
    """
    files = set().union(*(imported_files(module) for module in modules))
    return digest_at_import(*files)


@cache
def imported_files(module: str) -> frozenset[Path]:
    """The file of a module of fsseg, and those of the modules that it imports, directly or not.

    Imports for type checkers do not count, nor do those of plumbing.
    """
    reached: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if name not in reached and file is not None:
            reached[name] = file
            waiting += [imported for imported in _imports(file) if _decides(imported, name)]
    return frozenset(reached.values())


def _decides(imported: str, importer: str) -> bool:
    """Whether an import can change results: not plumbing, nor a later package, which is a door for users."""
    if imported.removeprefix("fsseg.") in DECIDING:
        return True
    package = _package(imported)
    if package not in PACKAGES or package in PLUMBING:
        return False
    return PACKAGES.index(package) <= PACKAGES.index(_package(importer))


def _package(module: str) -> str:
    return module.removeprefix("fsseg.").partition(".")[0]


def _imports(file: Path) -> Iterator[str]:
    """The modules of fsseg that a file imports, at its top or within functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("fsseg."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fsseg"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a syntax tree, without what stands below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _executed(node)


def _file_of(module: str) -> Path | None:
    """The file of a module; None for a package, which holds no code, and for a name that is no module."""
    if module == "fsseg":
        return None
    file = ROOT.joinpath(*module.removeprefix("fsseg.").split(".")).with_suffix(".py")
    return file if file.is_file() else None
