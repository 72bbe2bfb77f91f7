"""Who is at work on something: a lock file that names its process, and that is recognised when that process is dead.

Locks of the operating system are not enough, because runs lie on file systems that several machines share. The file
is a lease of filelock, which brings it into being exclusively (network file systems answer that truly since NFS 3, also
where an answer is lost on the way), touches it every few seconds, and lets go of nothing that is not its own any more.

Whether the process behind a lock is dead is decided here, because filelock (4.3) would wait for ever where two names
cannot be exchanged in one step (NFS, Lustre), for a zombie and for an empty file, and would take over from a process of
this machine that is only stopped. A process of this machine is dead when it is gone, or another has its number; one of
another machine when its file was not touched for two minutes by this machine's own clock, so that clocks need not agree.
"""

import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from fsseg.errors import FssegError
from fsseg.system.files import writing
from fsseg.system.processes import birth, is_alive, this_machine
from fsseg.system.unfinished import unfinished_name

BEAT, PATIENCE, POLL = 10.0, 120.0, 0.5
"""Seconds between two touches of a lock, without one after which a foreign process is dead, and between two looks."""

NAME = "fsseg="
"""Begins the line of a lock file that names the holder; filelock's own lines are before it."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        machine: The machine's name, and which numbering of processes: containers have their own.
        pid: The process.
        born: When it began, as the machine counts; numbers of processes are used again.
        since: When it took the lock, for people.
    """

    machine: str
    pid: int
    born: str
    since: str

    @staticmethod
    def me() -> "Holder":
        """Returns this process as a holder from now on."""
        pid = os.getpid()
        since = datetime.now().isoformat(" ", "seconds")
        return Holder(this_machine(), pid, birth(pid) or "", since)

    def lives(self) -> bool | None:
        """Returns whether the process lives; None where that cannot be seen from here."""
        if self.machine != this_machine():
            return None
        return is_alive(self.pid, self.born)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.machine.partition(' ')[0]} (since {self.since})"


class Lock:
    """A lock that this thread holds."""

    def __init__(self, lease: SoftFileLease) -> None:
        self._lease = lease

    def require(self) -> None:
        """Raises FssegError if another process took it over, believing this one dead."""
        owner = self._lease.owner
        if owner is None or owner.token != self._lease.token:
            path = Path(self._lease.lock_file)
            raise FssegError(
                f"{path}: taken over by {read_holder(path) or 'another process'}, which found this one silent for "
                f"{PATIENCE:.0f} s; expected to keep it until done; the other process goes on with the work, wait for it"
            )


@contextmanager
def holding(path: Path, tell: Callable[[str], None] = lambda text: None) -> Iterator[Lock]:
    """Holds the lock in this block; until it is free, waits, after telling once who holds it.

    A thread that holds a lock may ask for it again. Raises FssegError where no lock can be.
    """
    lease = SoftFileLease(path, lease_duration=PATIENCE, heartbeat_interval=BEAT, is_singleton=True)
    try:
        if lease.is_locked:
            lease.acquire()
        else:
            with writing(path):
                _wait_and_take(lease, path, tell)
        yield Lock(lease)
    finally:
        with suppress(OSError):
            lease.release()


def is_held(path: Path) -> bool:
    """Returns whether a process that is not known to be dead holds the lock."""
    holder = read_holder(path)
    return holder is not None and holder.lives() is not False


def is_left_behind(path: Path) -> bool:
    """Returns whether a process that is known to be dead left the lock."""
    holder = read_holder(path)
    return holder is not None and holder.lives() is False


def read_holder(path: Path) -> Holder | None:
    """Returns who holds the lock; None if nobody does, or the file does not say."""
    with suppress(OSError, ValueError, TypeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(NAME):
                return Holder(**json.loads(line.removeprefix(NAME)))
    return None


def _wait_and_take(lease: SoftFileLease, path: Path, tell: Callable[[str], None]) -> None:
    watched = _Watched(path)
    told = False
    while not _take(lease, path):
        if watched.is_dead():
            tell(f"{path}: left behind by {watched.holder or 'a process that died'}, taken over")
            _bury(path, watched.state)
            continue
        time.sleep(POLL)
        if not told and os.path.lexists(path):
            tell(watched.describe())
            told = True


def _take(lease: SoftFileLease, path: Path) -> bool:
    """Takes the lock if it is free, and returns whether it was."""
    if os.path.lexists(path):
        return False
    try:
        lease.acquire(blocking=False)
    except (Timeout, LeaseSettingsMismatch):  # somebody was faster
        return False
    with suppress(OSError), path.open("a", encoding="utf-8") as file:
        file.write(f"{NAME}{json.dumps(asdict(Holder.me()))}\n")
    return True


class _Watched:
    """Looks at a lock again and again, and counts the time in which nothing happened to it.

    Attributes:
        holder: Who held it at the last look.
        state: Tells the file that was seen from others under its name, and from itself when touched.
    """

    def __init__(self, path: Path) -> None:
        self.holder: Holder | None = None
        self.state: tuple[int, int] | None = None
        self._path = path
        self._since = 0.0

    def is_dead(self) -> bool:
        """Looks once more, and returns whether the holder is known to be dead."""
        try:
            state = _state(self._path)  # first, so that what is read is not older
        except FileNotFoundError:
            return False  # it is free by now
        if state != self.state:
            self.state = state
            self._since = time.monotonic()
        self.holder = read_holder(self._path)
        lives = None if self.holder is None else self.holder.lives()
        silent = time.monotonic() - self._since > PATIENCE
        return silent if lives is None else not lives

    def describe(self) -> str:
        """Returns what is waited for, as a sentence."""
        if self.holder is not None:
            return f"{self._path.stem}: {self.holder} is at it, waiting for it"
        return (
            f"{self._path}: names no process, expected who holds it; taken over if it is not touched for "
            f"{PATIENCE:.0f} s, remove it if nobody is at work"
        )


def _state(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise FssegError(f"{path}: a folder or a link, expected a lock file or nothing; remove it")
    return status.st_ino, status.st_mtime_ns


def _bury(path: Path, dead: tuple[int, int] | None) -> None:
    """Removes the lock of a dead process, but not one that somebody took in the meantime."""
    aside = path.with_name(unfinished_name(path.name))
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if _state(aside) != dead:
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink()
