"""Who is at work on something: a lock file that names its process, and that is recognised when that process is dead.

Locks of the operating system are not enough, because runs lie on file systems that several machines share. A lock is a
file that only one process can bring into being; whoever holds it touches it every few seconds. A process of this
machine is dead when it is gone (or another has its number); one of another machine when its file was not touched for
two minutes by this machine's own clock, so that clocks need not agree.
"""

import errno
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from fsseg.errors import FssegError
from fsseg.system.files import UNFINISHED, writing
from fsseg.system.parallel import birth, boot, is_running, space

BEAT, PATIENCE, POLL = 10.0, 120.0, 0.5
"""Seconds between two touches of a lock, without one after which a foreign process is dead, and between two looks."""

LINKS_MISSING = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
"""What file systems without hard links answer."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: The machine's name.
        boot: Which start of the machine.
        space: Which numbering of processes: containers have their own.
        pid: The process.
        born: When it began, as the machine counts; numbers of processes are used again.
        since: When it took the lock, for people.
        token: Tells this lock from all others.
    """

    host: str
    boot: str
    space: str
    pid: int
    born: str
    since: str
    token: str

    @staticmethod
    def me() -> "Holder":
        """This process."""
        pid, since = os.getpid(), datetime.now().isoformat(" ", "seconds")
        return Holder(
            platform.node(), boot(), space(), pid, birth(pid) or "", since, secrets.token_hex(8)
        )

    def is_gone(self) -> bool:
        """Whether it is known to be dead; of a process that cannot be seen from here that is never known."""
        if self.host != platform.node():
            return False
        if self.boot != boot():
            return True
        return self.space == space() and not is_running(self.pid, self.born)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"


class Lock:
    """A lock that this process holds."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path, self.holder = path, holder

    def require(self) -> None:
        """Raises FssegError if another process took it over, believing this one dead."""
        found = read_holder(self.path)
        if found is None or found.token != self.holder.token:
            raise FssegError(
                f"{self.path}: taken over by {found or 'another process'}, which found this one silent for {PATIENCE:.0f} s; "
                "expected to keep it until done; the other process goes on with the work, wait for it"
            )


_held: dict[tuple[Path, int], Lock] = {}
"""By path and thread: who holds a lock may ask for it again."""


@contextmanager
def holding(path: Path, tell: Callable[[str], None] = lambda text: None) -> Iterator[Lock]:
    """In this block the lock is this thread's; until it is free, waits, after telling once who holds it."""
    key = (path.absolute(), threading.get_ident())
    if key in _held:
        yield _held[key]
        return
    lock, done = Lock(path, acquire(path, tell)), threading.Event()
    beating = threading.Thread(target=_beat, args=(lock, done), daemon=True)
    beating.start()
    _held[key] = lock
    try:
        yield lock
    finally:
        del _held[key]
        done.set()
        beating.join()
        release(lock)


def is_held(path: Path) -> bool:
    """Whether a process that is not known to be dead holds it."""
    found = read_holder(path)
    return found is not None and not found.is_gone()


def is_left_behind(path: Path) -> bool:
    """Whether a process that is known to be dead left it."""
    found = read_holder(path)
    return found is not None and found.is_gone()


def acquire(
    path: Path,
    tell: Callable[[str], None] = lambda text: None,
    *,
    patience: float | None = None,
    poll: float = POLL,
) -> Holder:
    """Waits for the lock and takes it; nobody touches it for the holder."""
    mine, told, watched = Holder.me(), False, _Watched(PATIENCE if patience is None else patience)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while not _create(path, mine):
            other = read_holder(path)
            if watched.is_dead(path, other):
                tell(f"{path}: left behind by {other or 'a process that died'}, taken over")
                _bury(path, other)
                continue
            if not told and other is not None:
                tell(f"{path.stem}: {other} is at it, waiting for it")
                told = True
            time.sleep(poll)
    return mine


def release(lock: Lock) -> None:
    """Gives the lock back, if it is still this process's."""
    with suppress(OSError):
        found = read_holder(lock.path)
        if found is not None and found.token == lock.holder.token:
            lock.path.unlink()


def read_holder(path: Path) -> Holder | None:
    """Who holds the lock; None if nobody does, or the file says nothing."""
    with suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    return None


class _Watched:
    """Looks at a lock again and again, and counts the time in which nothing happened to it."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seen: tuple[object, ...] = ()
        self._since = 0.0

    def is_dead(self, path: Path, other: Holder | None) -> bool:
        if other is not None and other.is_gone():
            return True
        try:
            seen = (other and other.token, path.stat().st_mtime_ns)
        except OSError:
            return False  # it is free by now
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        alive_here = other is not None and other.host == platform.node() and other.space == space()
        return not alive_here and time.monotonic() - self._since > self._patience


def _create(path: Path, mine: Holder) -> bool:
    """Brings the lock into being with its content; a link does so at once, also where a network is between."""
    text = json.dumps(asdict(mine))
    draft = path.with_name(f".{path.name}.{mine.token}{UNFINISHED}")
    try:
        draft.write_text(text, encoding="utf-8")
        try:
            os.link(draft, path)
            return True
        except OSError as error:
            if error.errno in LINKS_MISSING:
                return _create_exclusively(path, text)
            # A network may lose the answer: then two names lead to the draft.
            if draft.stat().st_nlink == 2:
                return True
            if error.errno == errno.EEXIST:
                return False
            raise
    finally:
        draft.unlink(missing_ok=True)


def _create_exclusively(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        return True
    except FileExistsError:
        return False


def _bury(path: Path, dead: Holder | None) -> None:
    """Removes the lock of a dead process, but not one that somebody took in the meantime."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        found = read_holder(aside)
        if found != dead:
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink()


def _beat(lock: Lock, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with suppress(OSError):
            os.utime(lock.path)
