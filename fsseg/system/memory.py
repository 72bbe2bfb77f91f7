"""How much memory the machine has, and how many bytes are in words."""

import os
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how much memory a container or a job of a cluster may take."""

USUAL_MEMORY = 16 * 2**30
"""Bytes of memory that are taken for granted where the system does not tell."""


def machine_memory() -> int:
    """Returns the bytes of memory that this process may take at most: the machine's, or its container's."""
    physical = _physical_memory()
    try:
        allowed = int(CONTROL_GROUP.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return physical
    return min(physical, allowed)


def size_in_words(count: int) -> str:
    """Returns a number of bytes for people.

    Example:
        >>> size_in_words(66), size_in_words(7_700_000), size_in_words(8 * 2**30)
        ('66 bytes', '7.34 MiB', '8 GiB')
    """
    if count < 2**10:
        return f"{count} bytes"
    for unit, size in (("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30)):
        if count < 1000 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 2**40:.3g} TiB"


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return USUAL_MEMORY
