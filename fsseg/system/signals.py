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
        self.number = number
        stopped = f"stopped by {signal.Signals(number).name}{f' {where}' if where else ''}"
        super().__init__(text or f"{stopped}; run the same again to go on from there")


class Asked:
    """Whether the run was asked to stop while something was at work that wants to save itself first."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.savers = 0

    def heed(self, number: int, frame: FrameType | None) -> None:
        """What a signal does."""
        if (
            self.number is not None
        ):  # the second one: not even this process's own clean-up is waited for
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        if not self.savers:
            raise Stopped(number)


_asked = Asked()


@contextmanager
def stoppable() -> Iterator[None]:
    """In this block SIGINT and SIGTERM raise Stopped, or wait for what is saving itself; only in the main thread.

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
    """In this block a first signal only sets `number`; the block saves what it has and raises Stopped."""
    _asked.savers += 1
    try:
        yield _asked
    finally:
        _asked.savers -= 1
