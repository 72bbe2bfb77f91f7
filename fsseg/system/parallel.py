"""The same done to many things, some of them at a time, by threads or by processes. Loads no torch."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from fsseg.errors import FssegError
from fsseg.system.progress import Progress

SCANS_AT_ONCE = 4
"""Scans that are looked at, or whose supervoxels are computed, together, at most: each takes some hundred megabytes."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def processors() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def at_once(
    make: Callable[[Item], Made], items: Sequence[Item], progress: Progress, description: str
) -> Iterator[Made]:
    """Yields what is made of each item, in order, by some threads at a time.

    Threads are enough where compiled loops let go of the interpreter. What was not begun is not waited for after an
    error or a signal, and no more is made ahead than is soon asked for, since scans are large.

    Args:
        make: Makes it; several threads call it at a time.
        items: Of what.
        progress: Follows the items.
        description: What to call this there.
    """
    workers = min(SCANS_AT_ONCE, processors())
    pool = ThreadPoolExecutor(workers)
    with closing(_some_at_a_time(pool, make, items, 2 * workers, in_order=True)) as results:
        yield from progress.track((made for _, made in results), description, len(items))


def in_processes(
    make: Callable[[Item], Made],
    items: Sequence[Item],
    workers: int,
    progress: Progress,
    description: str,
) -> Generator[tuple[Item, Made], None, None]:
    """Yields each item with what is made of it, as they are finished, by processes of their own.

    No more is begun than there are processes, so that a signal has little to wait for; Ctrl-C reaches this process
    alone, and the others end with it.

    Args:
        make: Makes it; a function of a module, since it goes to other processes.
        items: Of what; they go there, too.
        workers: Processes; one means this one.
        progress: Follows the items.
        description: What to call this there.

    Raises:
        FssegError: A process was ended from outside.
    """
    workers = min(workers, len(items))
    results: Generator[tuple[Item, Made], None, None]
    if workers <= 1:
        results = ((item, make(item)) for item in items)
    else:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker)
        results = _some_at_a_time(pool, make, items, workers, in_order=False)
    try:
        with closing(results):
            yield from progress.track(results, description, len(items))
    except BrokenProcessPool:
        raise FssegError(
            f"{description}: a worker process was ended from outside, most likely for lack of memory; "
            "run the same command again with fewer --jobs"
        ) from None


def _some_at_a_time(
    pool: Executor,
    make: Callable[[Item], Made],
    items: Iterable[Item],
    most: int,
    *,
    in_order: bool,
) -> Generator[tuple[Item, Made], None, None]:
    waiting = iter(items)
    begun: dict[Future[Made], Item] = {}
    try:
        while True:
            with _ctrl_c_later():  # processes are started here, and inherit it
                for item in islice(waiting, most - len(begun)):
                    begun[pool.submit(make, item)] = item
            if not begun:
                return
            awaited = [next(iter(begun))] if in_order else begun
            for future in wait(awaited, return_when=FIRST_COMPLETED).done:
                yield begun.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Holds Ctrl-C back in this thread, and from processes that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)


def _begin_worker() -> None:
    """Leaves Ctrl-C to the main process, and ends the worker when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
