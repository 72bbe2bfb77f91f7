"""Hidden names of what is not finished, which tell the process that is at work on it, and what killed ones left."""

import glob
import hashlib
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from fsseg.system.names import shortened
from fsseg.system.processes import birth, is_alive, this_machine

UNFINISHED = ".unfinished"
"""What the names of files and folders end with until they are finished."""

OWNER = re.compile(
    r"\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<born>\d*)\.[0-9a-f]{8}\.unfinished$"
)
"""The end of a hidden name, which tells the process that is at work on what has it."""

LONGEST_BEGINNING = 80
"""Bytes that hidden names hold of the name to come; some file systems take no more than 143 in all."""

A_DAY = 24 * 60 * 60.0
"""Seconds after which what a process of another machine left counts as abandoned."""


def unfinished_name(name: str) -> str:
    """A hidden name for what will get a name once it is finished, and that tells which process is at it."""
    pid = os.getpid()
    owner = f"{_machine_code()}-{pid}-{birth(pid) or ''}"
    return f".{_beginning(name)}.{owner}.{secrets.token_hex(4)}{UNFINISHED}"


def _beginning(name: str) -> str:
    """As much of a name as leaves room for what tells who is at work on it."""
    return shortened(name, LONGEST_BEGINNING)


def sweep(folder: Path) -> None:
    """Removes what processes that were killed left of this folder; only for who holds its lock."""
    beginning = glob.escape(_beginning(folder.name))
    for left in folder.parent.glob(f".{beginning}.*{UNFINISHED}"):
        _remove(left)


def sweep_abandoned(folder: Path) -> None:
    """Removes from a folder what dead processes of this machine left unfinished, and others a day ago or longer."""
    for left in folder.glob(f".*{UNFINISHED}"):
        if _is_abandoned(left):
            _remove(left)


def _is_abandoned(left: Path) -> bool:
    owner = OWNER.search(left.name)
    if owner is not None and owner["machine"] == _machine_code():
        return is_alive(int(owner["pid"]), owner["born"]) is False
    try:
        return time.time() - left.stat().st_mtime > A_DAY
    except OSError:
        return False


def _machine_code() -> str:
    return hashlib.sha256(this_machine().encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    """Removes a file or a folder; what cannot be removed stays for the next time."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
