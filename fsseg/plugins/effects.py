"""Plugins that change more than they register: a patched loss changes results without being named in a recipe.

A plugin that only defines components and hooks cannot change a stage in which none of them is used. One
that writes to what it imported can, so its digest belongs to the key of everything that is computed
beside it. To be told apart too often costs time, too seldom wrong numbers: what cannot be told counts.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

from fsseg.plugins.sources import OURS, Plugin
from fsseg.system.code_digests import content_digest

REACHING_CALLS = {"exec", "eval", "compile", "globals", "vars", "setattr", "delattr", "patch"}
"""Functions with which code changes what is not its own, whatever it is given."""

LOOKUPS = {"import_module", "__import__", "getattr"}
"""Functions that hand over what is somebody else's."""


def changes_of(plugins: Iterable[Plugin]) -> list[list[str]]:
    """The distribution, name and digest of each plugin that may change what others compute.

    Args:
        plugins: The plugins that are loaded.
    """
    foreign = _foreign_code()
    changes = []
    for plugin in plugins:
        if plugin.distribution != OURS and _changes_others(plugin, foreign):
            changes.append([plugin.distribution, plugin.name, plugin.digest])
    return sorted(changes)


def may_change_others(plugin: Plugin) -> bool:
    """Whether a plugin's code writes to what it imports, or is found in the place of a function of fsseg."""
    return _changes_others(plugin, _foreign_code())


def _changes_others(plugin: Plugin, foreign: set[str]) -> bool:
    """As `may_change_others`, with the files of the functions that are found in fsseg and are not its own."""
    files = _python_files(tuple(plugin.sources))
    if any(_writes_to_imports(file, content_digest(file)) for file in files):
        return True
    return not foreign.isdisjoint(str(file) for file in files)


@cache
def _python_files(sources: tuple[Path, ...]) -> list[Path]:
    """The Python files of a plugin; one that is added later is imported by none of them."""
    files: list[Path] = []
    for source in sources:
        files += sorted(source.rglob("*.py")) if source.is_dir() else [source]
    return files


@cache
def _writes_to_imports(file: Path, digest: str) -> bool:
    """Whether a source file assigns to attributes or items of what it imported; kept by the file's digest."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return True
    own = _own_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _reaches(node, own):
            return True
        for target in _targets(node):
            if isinstance(target, ast.Attribute | ast.Subscript) and not _is_own(target, own):
                return True
    return False


def _reaches(call: ast.Call, own: set[str]) -> bool:
    """Whether a call may change something that is not among these names."""
    if _name_of(call.func) not in REACHING_CALLS:
        return False
    return not (call.args and _is_own(call.args[0], own))


def _own_names(tree: ast.AST) -> set[str]:
    """Names that stand for what the file made itself: `self`, `cls`, and variables made by calls or literals."""
    own = {"self", "cls"}
    foreign = _imported_names(tree) | _parameters(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            own.add(node.name)
        for target in _targets(node):
            value = getattr(node, "value", None)
            looked_up = isinstance(value, ast.Call) and _name_of(value.func) in LOOKUPS
            if isinstance(target, ast.Name) and not looked_up and _root(value) not in foreign:
                own.add(target.id)
    return own - foreign


def _imported_names(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                names.add((alias.asname or alias.name).partition(".")[0])
    return names


def _parameters(tree: ast.AST) -> set[str]:
    """Names of arguments, which may stand for anything; not `self` and `cls`."""
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return names - {"self", "cls"}


def _targets(node: ast.AST) -> Iterator[ast.AST]:
    """The places that a statement writes to."""
    if isinstance(node, ast.Assign | ast.Delete):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    else:
        return
    for target in targets:
        yield from target.elts if isinstance(target, ast.Tuple | ast.List) else [target]


def _is_own(node: ast.AST, own: set[str]) -> bool:
    return _root(node) in own


def _root(node: ast.AST | None) -> str | None:
    """The name that a chain of attributes and items begins with; None for what is made on the spot."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _name_of(function: ast.AST) -> str:
    """The last name of what is called: `object` for `mock.patch.object`, whose parent counts as well."""
    if isinstance(function, ast.Attribute):
        parent = _name_of(function.value)
        return parent if parent in REACHING_CALLS else function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _foreign_code() -> set[str]:
    """The files of functions and methods that are found in fsseg's modules."""
    files = set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == OURS and isinstance(module, ModuleType):
            files |= {function.__code__.co_filename for function in _functions(module)}
    return files


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """The functions of a module and the methods of its classes."""
    for value in list(vars(module).values()):
        if isinstance(value, FunctionType):
            yield value
        elif isinstance(value, type) and value.__module__ == module.__name__:
            yield from (
                method for method in vars(value).values() if isinstance(method, FunctionType)
            )
