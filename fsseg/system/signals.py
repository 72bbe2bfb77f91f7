"""Signals that ask a run to stop: what can be saved is saved first, and a second signal stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The run was asked to stop by a signal, and did; what it finished and saved is kept.

    No KeyboardInterrupt, which shells of others answer themselves, and no Exception, which components may catch.

    Attributes:
        number: The signal's number.
    """

    def __init__(self, number: int, where: str = "", *, text: str | None = None) -> None:
        """Takes the signal's number, and where the work was or the whole sentence for people."""
        self.number = number
        stopped = " ".join(["stopped by", signal.Signals(number).name, where]).rstrip()
        super().__init__(text or f"{stopped}; run the same again to go on from there")


class Asked:
    """Knows whether the run was asked to stop while something was at work that wants to save itself first.

    Attributes:
        number: The signal that asked; None as long as none did.
        savers: Blocks at work that save themselves first.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.savers = 0

    def heed(self, number: int, frame: FrameType | None) -> None:
        """Does what a signal asks for."""
        if self.number is not None:
            # The second one: not even this process's own clean-up is waited for.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        if not self.savers:
            raise Stopped(number)


_asked = Asked()


@contextmanager
def stoppable() -> Iterator[None]:
    """Lets SIGINT and SIGTERM raise Stopped in this block, or wait for what saves itself; only in the main thread.

    Blocks within such a block change nothing.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) == _asked.heed
    ):
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, _asked.heed)
    try:
        yield
    finally:
        _asked.number = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def saving_first() -> Iterator[Asked]:
    """Lets a first signal only set `number` in this block, which saves what it has and raises Stopped."""
    _asked.savers += 1
    try:
        yield _asked
    finally:
        _asked.savers -= 1
