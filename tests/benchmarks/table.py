"""The last thing that a benchmark prints: what it measured, next to its baseline."""

import statistics
import time
from collections.abc import Callable

import pytest


class Table:
    """Rows of text below a title, printed when all tests are through."""

    def __init__(self, title: str) -> None:
        self.title, self.rows = title, []

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter) -> None:
        terminalreporter.write_line(self.title)
        for row in self.rows:
            terminalreporter.write_line(f"  {row}")

    def add(
        self, what: str, ours: float, baseline: float, name: str, *, inverse: bool = False
    ) -> None:
        """A row: our time, the baseline's, and how many times as long the slower (or ours, if inverse) takes."""
        ratio = (
            f"{ours / baseline:.3f} x the baseline"
            if inverse
            else f"{baseline / ours:.1f} x as fast"
        )
        self.rows.append(f"{what:46}{told(ours):>12}{told(baseline):>12} ({name}){ratio:>24}")


def print_at_end(request, title: str) -> Table:
    """A table for a module's fixture."""
    table = Table(title)
    request.config.pluginmanager.register(table)
    return table


def in_turns(*functions: Callable[[], object], rounds: int = 7) -> list[float]:
    """Median seconds of each, measured in turns so that a busy machine slows all of them; once beforehand."""
    taken = [[] for _ in functions]
    for turn in range(rounds + 1):
        for function, times in zip(functions, taken):
            started = time.perf_counter()
            function()
            if turn:
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in taken]


def told(seconds: float) -> str:
    """Seconds as a person reads them."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"
