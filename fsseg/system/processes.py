"""Processes by a name that no other has: the machine, the number, and when it began, since numbers are used again."""

import os
import platform
from contextlib import suppress
from pathlib import Path


def this_machine() -> str:
    """The machine's name, and which numbering of processes: containers have their own."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{platform.node()} {space}"


def birth(pid: int) -> str | None:
    """When a process began, in ticks since the machine did; empty for a zombie, None where that cannot be seen."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def is_alive(pid: int, born: str) -> bool | None:
    """Whether the process of this machine that began at `born` is there; None where that cannot be seen."""
    now = birth(pid)
    return _answers(pid) if now is None else now == born


def _answers(pid: int) -> bool | None:
    """Whether there is a process of this number; None where asking is not possible."""
    if os.name == "nt":  # where this signal is Ctrl-C
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True
