"""What a path to write to is: an ordinary file, a link to one, a device, a pipe, or a folder.

Ordinary files are replaced as a whole. Links stay links, and what they lead to is replaced. Devices, pipes and open
descriptors (`/dev/null`, `/dev/stdout`) are written to: a file in their place would break whoever relies on them.
"""

import errno
import os
import re
import shutil
import stat
import sys
from pathlib import Path

from fsseg.errors import FssegError

MOST_LINKS = 40
"""Links in a row that are followed."""

DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self|\d+))/fd/(\d+)")
"""The paths of what a process has open."""


def require_file(path: Path) -> None:
    """Checks that a file can stand under a name, before the work that is to be written there.

    Raises:
        FssegError: It is a folder, a disk, a link to itself, or no name at all.
    """
    if "\0" in str(path):
        raise FssegError(f"{str(path)!r}: holds the character \\x00, expected the name of a file")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENAMETOOLONG}:
            raise FssegError(
                f"{path}: cannot be the name of a file ({error.strerror}); choose another"
            ) from None
        return  # it is not there yet, or writing will say why not
    if stat.S_ISDIR(mode):
        raise FssegError(f"{path}: is a folder, expected the name of a file; give one within it")
    if stat.S_ISBLK(mode):
        raise FssegError(f"{path}: is a disk, expected the name of a file; choose another")


def end_of_links(path: Path) -> Path:
    """Returns the file that a path leads to: itself if it is no link, a file that is not there yet if the link dangles."""
    if not path.is_symlink():
        return path
    return Path(os.path.realpath(path))


def is_special(path: Path) -> bool:
    """Returns whether a path is a device, a pipe, or a descriptor: something to write to and not to replace."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def pour(content: Path, special: Path) -> None:
    """Writes the content of a file into a device, a pipe or a descriptor.

    Raises:
        FssegError: Nobody reads what is written there.
        OSError: The system refuses.
    """
    descriptor = _descriptor(special)
    handle = _open(special) if descriptor is None else _duplicate(descriptor)
    with os.fdopen(handle, "wb") as target, content.open("rb") as source:
        shutil.copyfileobj(source, target)


def _open(special: Path) -> int:
    try:
        # Opening a pipe that nobody reads would wait for ever.
        handle = os.open(special, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise FssegError(
            f"{special}: is a pipe or a socket that no program reads, expected a reader; start that program first, "
            "or give the name of a file"
        ) from None
    os.set_blocking(handle, True)
    return handle


def _duplicate(descriptor: int) -> int:
    """A second handle of what this process has open: behind what it has written there, not over it."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        return os.dup(descriptor)
    except OSError as error:
        raise FssegError(
            f"/dev/fd/{descriptor}: is not open ({error.strerror}), expected something to write to; choose a file"
        ) from None


def _descriptor(path: Path) -> int | None:
    """The number of the open descriptor that a path stands for; None for any other path."""
    for _ in range(MOST_LINKS):
        named = DESCRIPTOR.fullmatch(os.path.abspath(path))
        if named is not None:
            return int(named[1])
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None
