"""Jobs: commands of fsseg that run as processes of their own, here or on a cluster, and tell in files how far they are.

A set of jobs is a folder with a folder for each job: `job.json` says what to do, `state.json` how far it is, `log.txt`
what it printed, `job.lock` that its process lives. Whoever looks needs nothing but these files.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from fsseg.errors import FssegError
from fsseg.system.files import write_json
from fsseg.system.locks import holding, is_held
from fsseg.system.signals import Stopped

Item = TypeVar("Item")

SET, JOB, STATE, LOG, LOCK = "jobs.json", "job.json", "state.json", "log.txt", "job.lock"

TELL_EVERY = 1.0
"""Seconds between two states at least."""

LAST_LINES = 12
"""Of the log of a job that failed, what is shown."""

ENDED = {"done", "failed"}


@dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
        status: "queued", "running", "done", "failed" (an error), "stopped" (by a signal; can go on) or "lost" (its process
            is gone without a word; can go on).
        stage: What it is doing.
        done: Steps of the stage that are done.
        total: Steps of the stage.
        rate: Steps a second, lately.
        where: The machine and process.
        error: What went wrong.
    """

    status: str = "queued"
    stage: str = ""
    done: int = 0
    total: int = 0
    rate: float = 0.0
    where: str = ""
    error: str = ""

    @property
    def seconds_left(self) -> float | None:
        """For the rest of the stage; None where that is not known."""
        return (
            (self.total - self.done) / self.rate
            if self.status == "running" and self.rate > 0
            else None
        )


@dataclass(frozen=True)
class Job:
    """A job of a set.

    Attributes:
        folder: Its folder.
        name: What people call it.
        arguments: Those of the command line of fsseg.
    """

    folder: Path
    name: str
    arguments: list[str]

    @staticmethod
    def read(folder: Path) -> "Job":
        """The job of a folder; raises FssegError for a folder of something else."""
        try:
            told = json.loads((folder / JOB).read_text(encoding="utf-8"))
            return Job(folder, str(told["name"]), [str(argument) for argument in told["arguments"]])
        except (OSError, ValueError, KeyError, TypeError):
            raise FssegError(
                f"{folder}: holds no job, expected a folder that fsseg run --jobs made"
            ) from None

    def state(self) -> State:
        """How far it is, from its files alone."""
        found = self.told()
        if found.status == "running" and not is_held(self.folder / LOCK):
            again = self.told()  # it may have ended between the two looks
            return replace(again, status="lost") if again.status == "running" else again
        return found

    def told(self) -> State:
        """What it said last."""
        with suppress(OSError, ValueError, TypeError):
            values = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            found = State(**values)
            kinds = {
                key: str if isinstance(usual, str) else (int, float)
                for key, usual in asdict(State()).items()
            }
            if all(isinstance(value, kinds[key]) for key, value in asdict(found).items()):
                return found
        return State()

    def tell(self, state: State) -> None:
        """Says how far it is."""
        write_json(self.folder / STATE, asdict(state))

    def last_lines(self) -> list[str]:
        """The end of its log."""
        with suppress(OSError):
            return (
                (self.folder / LOG)
                .read_text(encoding="utf-8", errors="replace")
                .splitlines()[-LAST_LINES:]
            )
        return []


@dataclass(frozen=True)
class JobSet:
    """Jobs that belong together.

    Attributes:
        folder: Their folder.
        title: What they are for.
        jobs: The jobs.
    """

    folder: Path
    title: str
    jobs: list[Job] = field(default_factory=list)

    @staticmethod
    def make(folder: Path, title: str, commands: dict[str, list[str]]) -> "JobSet":
        """The set of these commands by name; the states of jobs that are there already stay."""
        jobs = [
            Job(folder / name.replace(" ", "-"), name, arguments)
            for name, arguments in commands.items()
        ]
        for job in jobs:
            write_json(job.folder / JOB, {"name": job.name, "arguments": job.arguments})
        write_json(folder / SET, {"title": title, "jobs": [job.folder.name for job in jobs]})
        return JobSet(folder, title, jobs)

    @staticmethod
    def read(folder: Path) -> "JobSet":
        """The set of a folder; raises FssegError for a folder of something else."""
        try:
            told = json.loads((folder / SET).read_text(encoding="utf-8"))
            names, title = [Path(name).name for name in told["jobs"]], str(told["title"])
        except (OSError, ValueError, KeyError, TypeError):
            raise FssegError(
                f"{folder}: holds no jobs, expected a folder that fsseg run --jobs made"
            ) from None
        return JobSet(folder, title, [Job.read(folder / name) for name in names])

    def states(self) -> list[State]:
        """How far each job is."""
        return [job.state() for job in self.jobs]

    def require_done(self) -> None:
        """Raises FssegError with the last lines of every job that did not end well."""
        ended = [(job, job.state()) for job in self.jobs]
        bad = [(job, state) for job, state in ended if state.status != "done"]
        if not bad:
            return
        told = [
            f"{len(bad)} of {len(ended)} jobs did not end well; the same command runs them again and keeps the others"
        ]
        for job, state in bad:
            told.append(
                f"{job.name}: {state.status}{f', {state.error}' if state.error else ''} ({job.folder / LOG})"
            )
            told += [f"    {line}" for line in job.last_lines()]
        raise FssegError("\n".join(told))


class JobProgress:
    """Follows the stages of a job in its state; what is said in passing goes to its log."""

    def __init__(self, job: Job) -> None:
        self._job, self._last = job, 0.0
        self._state = State("running", where=f"{platform.node()}, process {os.getpid()}")
        job.tell(self._state)

    def __enter__(self) -> "JobProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        started = time.monotonic()
        self._tell(replace(self._state, stage=description, done=0, total=total, rate=0.0))
        for number, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - self._last >= TELL_EVERY:
                self._tell(replace(self._state, done=number, rate=number / (now - started)))
        print(f"{description} {total}/{total}, {time.monotonic() - started:.0f} s", flush=True)

    def note(self, text: str) -> None:
        print(text, flush=True)

    def end(self, status: str, error: str = "") -> None:
        """Says how it ended."""
        self._tell(replace(self._state, status=status, error=error))

    def _tell(self, state: State) -> None:
        self._state, self._last = state, time.monotonic()
        self._job.tell(state)


_at_work: list[JobProgress] = []


def job_progress() -> JobProgress | None:
    """Where this process tells how far it is, if it is a job's."""
    return _at_work[-1] if _at_work else None


def work(folder: Path, call: Callable[[list[str]], Any]) -> None:
    """Does a job in this process: calls fsseg with the job's arguments, and keeps its state.

    A job that another process is at is left to that process.
    """
    job = Job.read(folder)
    if is_held(folder / LOCK):
        print(f"{folder}: another process is at it", flush=True)
        return
    with holding(folder / LOCK):
        # Only the first attempt starts over; later ones go on from where it came to.
        again = job.told() != State()
        arguments = [
            argument for argument in job.arguments if not (again and argument == "--fresh")
        ]
        progress = JobProgress(job)
        _at_work.append(progress)
        try:
            call(arguments)
        except Stopped as stop:
            progress.end("stopped", str(stop))
            raise
        except FssegError as error:
            progress.end("failed", str(error))
            raise
        except BaseException as error:
            progress.end("failed", repr(error))
            raise
        finally:
            _at_work.pop()
        progress.end("done")
