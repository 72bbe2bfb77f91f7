"""Arrays that are computed once and kept by content in the user's cache folder, as safetensors under a checksum."""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fsseg.system.files import replacing
from fsseg.system.locks import holding
from fsseg.system.unfinished import sweep_abandoned

SUFFIX = ".safetensors"

Kept = TypeVar("Kept")

Note = Callable[[str], None]
"""Hears of entries that are damaged."""


def cache_folder() -> Path:
    """Returns `$FSSEG_CACHE`, or `fsseg` in the system's folder for users' caches where that is empty or not set."""
    chosen = os.environ.get("FSSEG_CACHE", "")
    return Path(chosen) if chosen else user_cache_path("fsseg", appauthor=False)


def content_key(*parts: object) -> str:
    """Returns a key that differs whenever one of the arrays or values does."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:32]


def cached(
    kind: str, key: str, compute: Callable[[], np.ndarray], note: Note = lambda text: None
) -> np.ndarray:
    """Returns the array of this kind and key, computed if it is not there yet or damaged.

    Processes that need the same wait for the first of them.

    Args:
        kind: A folder of the cache.
        key: Stands for all that the array depends on.
        compute: Computes it.
        note: Hears of a damaged entry.
    """
    path = cache_folder() / kind / f"{key}{SUFFIX}"
    kept = read_kept(path, _read_array, note)
    if kept is not None:
        return kept
    with holding(path.with_suffix(".lock")):
        kept = read_kept(path, _read_array)
        if kept is not None:
            return kept
        array = compute()
        write_arrays(path, {"array": array}, {"content": content_key(array)})
        return array


def read_kept(
    path: Path, read: Callable[[Path], Kept], note: Note = lambda text: None
) -> Kept | None:
    """Returns what an entry of the cache holds; None if it is not there, or damaged, which is noted."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        note(f"{path}: damaged ({error}), made again")
        return None


def write_arrays(path: Path, arrays: dict[str, np.ndarray], about: dict[str, str]) -> None:
    """Writes arrays, and words about them, all or nothing."""
    # The library writes memory as it lies, whatever its order.
    in_rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    _sweep_once(path.parent)
    with replacing(path) as unfinished:
        unfinished.write_bytes(save(in_rows, about))


@cache
def _sweep_once(folder: Path) -> None:
    """Removes what killed processes left in a folder of the cache, once for each process."""
    sweep_abandoned(folder)


def _read_array(path: Path) -> np.ndarray:
    with safe_open(path, "np") as file:
        array = file.get_tensor("array")
        about = file.metadata()
    require_content(about, array)
    return array


def require_content(about: dict[str, str] | None, *parts: object) -> None:
    """Raises ValueError unless these are the arrays and values that were written with these words."""
    if (about or {}).get("content") != content_key(*parts):
        raise ValueError("its checksum is another")
