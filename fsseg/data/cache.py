"""Arrays that are computed once and kept by content in the user's cache folder.

A file ends with a checksum of what is before it, which numpy does not look at: a damaged entry is computed again.
"""

import hashlib
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from fsseg.system.files import replacing
from fsseg.system.locks import holding

CHECKSUM = hashlib.sha256().digest_size
"""Bytes of the checksum at the end of a file."""

one_header_at_a_time = threading.Lock()
"""Held while numpy reads a header, which it parses as Python. Where threads take turns in that, CPython 3.11 may raise
SystemError for a text that is right (python/cpython#106905)."""


def cache_folder() -> Path:
    """Returns `$FSSEG_CACHE`, or `fsseg` in this system's folder for the user's caches where that is empty or not set."""
    chosen = os.environ.get("FSSEG_CACHE", "")
    return Path(chosen) if chosen else user_cache_path("fsseg", appauthor=False)


def content_key(*parts: object) -> str:
    """A key that differs whenever one of the arrays or values does."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:32]


def cached(kind: str, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of this kind and key, computed if it is not there yet (or cannot be read).

    Processes that need the same wait for the first of them.
    """
    path = cache_folder() / kind / f"{key}.npy"
    try:
        return _read(path)
    except (OSError, ValueError, EOFError):
        pass
    with holding(path.with_suffix(".lock")):
        try:
            return _read(path)
        except (OSError, ValueError, EOFError):
            array = compute()
            with (
                replacing(path) as unfinished,
                unfinished.open("wb") as file,
            ):  # a name would get the suffix .npy
                file.write(_dump(array))
            return array


def _dump(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getvalue()
    return content + hashlib.sha256(content).digest()


def _read(path: Path) -> np.ndarray:
    """Raises ValueError for a file that is not as it was written."""
    whole = path.read_bytes()
    content, checksum = whole[:-CHECKSUM], whole[-CHECKSUM:]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError(f"{path}: its checksum is another")
    with one_header_at_a_time:
        return np.load(io.BytesIO(content), allow_pickle=False)
