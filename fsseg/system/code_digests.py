"""Source files as they were when Python imported them, which tells what code a long-lived process really runs.

A file's time and size are kept before it is imported, and its digest as soon as somebody asks for it. A file that differs
later may have been imported before or after the change, so that nobody can say what ran.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `import fsseg` imports this module, and is to stay fast
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Stamp = tuple[int, int]
"""The time of the last change in ns, and the size in bytes."""

_stamps: dict[str, Stamp | None] = {}
_digests: dict[str, str] = {}


def keep(*paths: str | Path) -> None:
    """Keeps the state of source files that are about to be imported.

    Args:
        paths: Files, and folders for all Python files below them. What is kept of a file already stays.
    """
    for file in _files_of(paths):
        if file not in _stamps:
            _stamps[file] = _stamp(file)


def keep_module(module: str) -> None:
    """Keeps the state of all source files of a module's top-level package, which is about to be imported.

    Files that were imported before, by others, and have changed since, count as changed; their bytecode tells.
    """
    top = module.partition(".")[0]
    sources = sources_of(top)
    if top not in sys.modules:
        forget(*sources)
    keep(*sources)
    for file, name in imported_modules(*sources).items():
        if file not in _digests and _is_newer_than_bytecode(file, sys.modules[name]):
            _stamps[file] = None


def forget(*paths: str | Path) -> None:
    """Drops what is kept of source files, and of those in folders, since their code will be imported anew."""
    for file in _among(list(_stamps), paths):
        del _stamps[file]
        _digests.pop(file, None)


def digest_at_import(*paths: str | Path) -> str:
    """The digest of source files as they were when they were imported.

    Args:
        paths: Files, and folders for all Python files below them. The state of a file that nothing was kept of is kept
            from now on.

    Returns:
        Sixteen hexadecimal digits. Files count by their contents, and by their place below the folder.
    """
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(os.path.realpath(path) for path in paths):
        for file in _files_below(path):
            place = os.path.relpath(file, os.path.dirname(path))
            digest.update(f"{place} {_digest_of(file)}\n".encode())
    return digest.hexdigest()[:16]


def content_digest(file: str | Path) -> str:
    """The SHA-256 digest of a file's bytes as they were when it was imported.

    A file that has changed since, before anybody asked for its digest, has one that is no other file's.
    """
    return _digest_of(os.path.realpath(file))


def _digest_of(file: str) -> str:
    """The digest of a file by its real path, which takes long to find out."""
    import hashlib

    if file not in _stamps:
        _stamps[file] = _stamp(file)
    if file not in _digests:
        content = _read(file)
        if _stamp(file) != _stamps[file]:
            content += f"changed after its import at {_stamps[file]}".encode()
        _digests[file] = hashlib.sha256(content).hexdigest()
    return _digests[file]


def changed_since_import(*paths: str | Path) -> list[Path]:
    """The source files whose contents are no longer those that were imported.

    Args:
        paths: Files, and folders for what is below them; all files of which a state is kept when omitted.
    """
    from pathlib import Path

    kept = list(_stamps)
    if paths:
        kept = _among(kept, paths)
    return [Path(file) for file in sorted(kept) if _has_changed(file)]


def is_stale(path: str | Path) -> bool:
    """True if code of a file, or from below a folder, is imported that is no longer what is there."""
    modules = imported_modules(path)
    for name in modules.values():
        keep_module(name)
    return bool(modules) and bool(changed_since_import(*modules))


def sources_of(module: str) -> list[Path]:
    """The folder or the file of a module's top-level package, which need not be imported; none if it is not there."""
    import importlib.util
    from pathlib import Path

    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [Path(folder) for folder in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.has_location and spec.origin else []


def imported_modules(*paths: str | Path) -> dict[str, str]:
    """The names of the modules that are imported from these files, or from below these folders, by real path."""
    wanted, folders = _places(paths)
    modules = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and (file in wanted or file.startswith(folders)):
            modules[os.path.realpath(file)] = name
    return modules


def drop_modules(*paths: str | Path) -> None:
    """Takes the modules of files, and of those in folders, out of `sys.modules`, so that they are imported anew."""
    import importlib

    for name in imported_modules(*paths).values():
        module = sys.modules.pop(name)
        _remove_bytecode(module)
    importlib.invalidate_caches()
    forget(*paths)


def _remove_bytecode(module: Any) -> None:
    """Removes a module's bytecode, which passes for that of a file as long that was written in the same second."""
    with suppress(OSError):
        os.unlink(getattr(module, "__cached__", None) or "")


def _has_changed(file: str) -> bool:
    stamp = _stamp(file)
    if stamp == _stamps[file]:
        return False
    if stamp is None or file not in _digests:
        return True
    import hashlib

    if hashlib.sha256(_read(file)).hexdigest() != _digests[file]:
        return True
    _stamps[file] = stamp  # it was touched, or written again as it was
    return False


def _is_newer_than_bytecode(file: str, module: Any) -> bool:
    """Says of an imported module if its file is another than the one that its bytecode was made of.

    Where Python writes no bytecode, what lies there is of an earlier import and says nothing.
    """
    if sys.dont_write_bytecode:
        return False
    header = _read(getattr(module, "__cached__", None) or "")[:16]
    stamp = _stamp(file)
    if len(header) < 16 or stamp is None or header[4:8] != bytes(4):
        return False  # no bytecode, no file, or bytecode that goes by something else than time and size
    seconds = int.from_bytes(header[8:12], "little")
    size = int.from_bytes(header[12:16], "little")
    return (seconds, size) != (stamp[0] // 10**9 & 0xFFFFFFFF, stamp[1] & 0xFFFFFFFF)


def _stamp(file: str) -> Stamp | None:
    try:
        state = os.stat(file)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError:
        return b""


def _files_of(paths: Iterable[str | Path]) -> Iterator[str]:
    """Real paths of the files, and of the Python files below the folders, in order."""
    for path in paths:
        yield from _files_below(os.path.realpath(path))


def _files_below(real: str) -> Iterator[str]:
    """The Python files below a folder, in order; a file itself."""
    if not os.path.isdir(real):
        yield real
        return
    for folder, folders, names in os.walk(real):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.join(folder, name)


def _among(files: list[str], paths: tuple[str | Path, ...]) -> list[str]:
    """Those of the files that are one of the paths, or below one."""
    wanted, folders = _places(paths)
    return [file for file in files if file in wanted or file.startswith(folders)]


def _places(paths: tuple[str | Path, ...]) -> tuple[set[str], tuple[str, ...]]:
    """The paths, also with links followed, and what the names of files below them begin with."""
    wanted = {os.path.abspath(path) for path in paths} | {os.path.realpath(path) for path in paths}
    return wanted, tuple(path + os.sep for path in wanted)
