"""Checksums of a folder's files, with which damage is found before anything in them is believed."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fsseg.errors import FssegError
from fsseg.system.files import write_json
from fsseg.system.names import within

MANIFEST = "manifest.json"
"""The name of the file that lists the others."""

FORMAT = 1


def write_manifest(folder: Path) -> None:
    """Writes the list of all files of a folder that is finished, with their sizes and checksums."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = _facts(path)
    write_json(folder / MANIFEST, {"format": FORMAT, "files": files})


def find_damage(folder: Path) -> str | None:
    """Returns what is wrong with the files of a folder, in words; None where they are what was written.

    Files that were put beside them are no damage.
    """
    try:
        listed = _read(folder)
        return _first_damage(folder, listed, listed)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"


def require_undamaged(folder: Path, *files: Path) -> None:
    """Checks some files of a folder before they are read; one of an earlier version, without a list, is believed.

    Raises:
        FssegError: One is missing, or not what was written.
    """
    try:
        listed = _read(folder)
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FssegError(
            f"{folder / MANIFEST}: damaged ({error}), expected the list of the run's files; run the recipe again"
        ) from None
    wanted = [file.relative_to(folder).as_posix() for file in files]
    damage = _first_damage(folder, listed, wanted)
    if damage is not None:
        raise FssegError(
            f"{folder}: damaged ({damage}), expected what fsseg wrote; run the recipe again, which makes anew what is damaged"
        )


def _read(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] != FORMAT:
        raise ValueError(f"its format is {manifest['format']!r}, expected {FORMAT}")
    return dict(manifest["files"])


def _first_damage(folder: Path, listed: dict[str, Any], wanted: Iterable[str]) -> str | None:
    for name in wanted:
        if name not in listed:
            return f"{name} is not in its {MANIFEST}"
        try:
            path = within(folder, name)
        except FssegError as error:
            return str(error)
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != listed[name]["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, expected {listed[name]['bytes']}"
        if _facts(path) != listed[name]:
            return f"{name} has another checksum"
    return None


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
