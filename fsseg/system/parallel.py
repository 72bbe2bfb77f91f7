"""What the system says of processes, without torch."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from fsseg.system.progress import Progress

SCANS_AT_ONCE = 4
"""Scans that are looked at, or whose supervoxels are computed, together, at most: each takes some hundred megabytes."""

Made = TypeVar("Made")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_running(pid: int, born: str) -> bool:
    """Whether this process of this machine lives: its number is taken, and by a process as old."""
    found = birth(pid)
    if found is not None:
        return found == born
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


def birth(pid: int) -> str | None:
    """When a process began, in ticks since the machine did; None where that is not known, or of a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def boot() -> str:
    """Which start of the machine this is."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""


def space() -> str:
    """Which numbering of processes this process sees: containers have their own."""
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def at_once(
    make: Callable[[str], Made], cases: Sequence[str], progress: Progress, what: str
) -> Iterator[Made]:
    """What is made of each case, some at a time. Threads are enough: compiled loops let go of the interpreter."""
    pool = ThreadPoolExecutor(min(SCANS_AT_ONCE, processors()))
    try:
        yield from progress.track(pool.map(make, cases), what, len(cases))
    finally:
        pool.shutdown(
            cancel_futures=True
        )  # what was not begun is not waited for after an error or a signal
