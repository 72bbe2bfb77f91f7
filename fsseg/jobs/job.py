"""Jobs: commands of fsseg that run as processes of their own, here or on a cluster, and tell in files how far they are.

A set of jobs is a folder with a folder for each job: `job.json` says what to do, `state.json` how far it is, `log.txt`
what it printed, `job.lock` that its process lives. Whoever looks needs nothing but these files.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from fsseg.errors import FssegError
from fsseg.system.files import write_json
from fsseg.system.locks import holding, is_held
from fsseg.system.names import file_name
from fsseg.system.signals import Stopped

Item = TypeVar("Item")

SET = "jobs.json"
"""The file that says which jobs belong to a set."""

JOB = "job.json"
STATE = "state.json"
LOG = "log.txt"
LOCK = "job.lock"
"""The files of a job: what to do, how far it is, what it printed, and that its process lives."""

TELL_EVERY = 1.0
"""Seconds between two states at least."""

LAST_LINES = 12
"""Lines that are shown of the log of a job that failed."""

ENDED = {"done", "failed"}
"""The states of jobs that do not go on."""

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Keeps Python, and all that it starts, from importing what lies in the working folder."""


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
        if self.status != "running" or self.rate <= 0:
            return None
        return (self.total - self.done) / self.rate


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
            record = json.loads((folder / JOB).read_text(encoding="utf-8"))
            arguments = [str(argument) for argument in record["arguments"]]
            return Job(folder, str(record["name"]), arguments)
        except (OSError, ValueError, KeyError, TypeError):
            raise FssegError(
                f"{folder}: holds no job, expected a folder that fsseg run --jobs made"
            ) from None

    def state(self) -> State:
        """How far the job is, from its files alone."""
        state = self.told()
        if state.status == "running" and not is_held(self.folder / LOCK):
            state = self.told()  # it may have ended between the two looks
            if state.status == "running":
                return replace(state, status="lost")
        return state

    def told(self) -> State:
        """The state that the job told last; "queued" where it told none, or the file is damaged."""
        with suppress(OSError, ValueError, TypeError):
            values = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            state = State(**values)
            if _has_right_types(state):
                return state
        return State()

    def tell(self, state: State) -> None:
        """Writes how far the job is."""
        write_json(self.folder / STATE, asdict(state))

    def queue_again(self) -> None:
        """Has a job that ended wait for its turn once more."""
        if self.told().status in ENDED:
            self.tell(State())

    def last_lines(self) -> list[str]:
        """The end of the job's log."""
        with suppress(OSError):
            log = (self.folder / LOG).read_text(encoding="utf-8", errors="replace")
            return log.splitlines()[-LAST_LINES:]
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
            Job(folder / file_name(name.replace(" ", "-")), name, arguments)
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
            record = json.loads((folder / SET).read_text(encoding="utf-8"))
            names = [Path(name).name for name in record["jobs"]]
            title = str(record["title"])
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
        states = [(job, job.state()) for job in self.jobs]
        bad = [(job, state) for job, state in states if state.status != "done"]
        if not bad:
            return
        lines = [
            f"{len(bad)} of {len(self.jobs)} jobs did not end well; the same command runs them again "
            "and keeps the others"
        ]
        for job, state in bad:
            ending = f"{state.status}, {state.error}" if state.error else state.status
            lines.append(f"{job.name}: {ending} ({job.folder / LOG})")
            lines += [f"    {line}" for line in job.last_lines()]
        raise FssegError("\n".join(lines))


Show = Callable[[list[State]], None]
"""Called again and again with how far the jobs of a set are."""


def start(
    job: Job, environment: Mapping[str, str] | None = None, **how: Any
) -> "subprocess.Popen[Any]":
    """Starts a job as a process whose output goes to the job's log.

    Files of the working folder cannot be imported by it: with `python -m` alone a `typer.py` there would run.

    Args:
        job: The job.
        environment: What to add to this process's own.
        how: Further arguments of `subprocess.Popen`.
    """
    with (job.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command_of(job),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **SAFE_PATH, **(environment or {})},
            **how,
        )


def command_of(job: Job) -> list[str]:
    """The command line of a job's process."""
    return [sys.executable, "-P", "-m", "fsseg", "job", str(job.folder.absolute())]


def _has_right_types(state: State) -> bool:
    usual = asdict(State())
    for key, value in asdict(state).items():
        kind = str if isinstance(usual[key], str) else (int, float)
        if not isinstance(value, kind):
            return False
    return True


class JobProgress:
    """Follows the stages of a job in its state; what is said in passing goes to its log."""

    def __init__(self, job: Job, say: Callable[[str], None]) -> None:
        self._job = job
        self._say = say
        self._last_told = 0.0
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
            if now - self._last_told >= TELL_EVERY:
                self._tell(replace(self._state, done=number, rate=number / (now - started)))
        seconds = time.monotonic() - started
        self._say(f"{description} {total}/{total}, {seconds:.0f} s")

    def note(self, text: str) -> None:
        self._say(text)

    def end(self, status: str, error: str = "") -> None:
        """Tells how the job ended."""
        self._tell(replace(self._state, status=status, error=error))

    def _tell(self, state: State) -> None:
        self._state = state
        self._last_told = time.monotonic()
        self._job.tell(state)


_at_work: list[JobProgress] = []


def job_progress() -> JobProgress | None:
    """The progress that tells of this process's job, if it is at one."""
    return _at_work[-1] if _at_work else None


def work(folder: Path, call: Callable[[list[str]], Any], say: Callable[[str], None]) -> None:
    """Does a job in this process, and keeps its state.

    A job that another process is at is left to that process.

    Args:
        folder: The job's folder.
        call: Calls fsseg with the arguments of a command line.
        say: Called with the lines of the job's log.
    """
    job = Job.read(folder)
    if is_held(folder / LOCK):
        say(f"{folder}: another process is at it")
        return
    with holding(folder / LOCK):
        # Only the first attempt starts over; later ones go on from where it came to.
        arguments = job.arguments
        if job.told() != State():
            arguments = [argument for argument in arguments if argument != "--fresh"]
        progress = JobProgress(job, say)
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
