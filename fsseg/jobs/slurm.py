"""Jobs as an array of a Slurm cluster, submitted by submitit.

By its `SlurmExecutor`, not by `AutoExecutor`, which would rename and convert what a recipe asks of Slurm in Slurm's words.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsseg.errors import FssegError
from fsseg.jobs.job import ENDED, SAFE_PATH, Job, JobSet, Show, start
from fsseg.recipe.tables import LauncherTable
from fsseg.system.files import write_json
from fsseg.system.names import visible
from fsseg.system.signals import Stopped, stoppable

LOOK_EVERY = 0.5
"""Seconds between two looks at the jobs' files."""

ASK_EVERY = 10.0
"""Seconds between two questions to Slurm."""

WAIT_TO_SAVE = 80.0
"""Seconds that a job may take to save itself before Slurm takes its node away."""

NUMBERS = "slurm.json"
"""The file of a set of jobs with the number that Slurm gave each."""


def run_on_slurm(
    jobs: JobSet, table: LauncherTable, show: Show, note: Callable[[str], None]
) -> None:
    """Submits jobs as a Slurm array and returns when all have ended, however they did.

    Those that are queued or running from an earlier call are watched, not submitted again.

    Args:
        jobs: The jobs.
        table: What to ask Slurm for.
        show: Called with how far they are.
        note: Called with the numbers of submitted jobs.

    Raises:
        FssegError: Slurm or submitit are not here, Slurm refuses, or the folder cannot stand in its script.
        Stopped: A signal ended the watching; the jobs go on.
    """
    _require_for_script(jobs.folder.absolute())
    _require_for_script(Path(sys.executable))
    numbers = _read_numbers(jobs)
    queued = _in_queue(numbers.values())
    missing = []
    for job in jobs.jobs:
        is_queued = numbers.get(job.name) in queued
        if not is_queued and job.state().status not in {"done", "running"}:
            missing.append(job)
    if missing:
        for job in missing:
            job.queue_again()
        numbers |= _submit(jobs, missing, table)
        write_json(jobs.folder / NUMBERS, numbers)
        submitted = ", ".join(numbers[job.name] for job in missing)
        note(f"{len(missing)} jobs submitted: {submitted}")
    with stoppable():
        try:
            _watch(jobs, numbers, show)
        except Stopped as stop:
            left = sum(state.status not in ENDED for state in jobs.states())
            text = (
                f"detached: {left} jobs go on without; fsseg status {jobs.folder} shows them, "
                "the same command attaches again"
            )
            raise Stopped(stop.number, text=text) from None


def _require_for_script(path: Path) -> None:
    """Checks that a path can stand in the script that sbatch reads, whose lines are orders to Slurm.

    Raises:
        FssegError: It would break a line, or Slurm would put something else in its place.
    """
    for sign, why in (("%", "which Slurm replaces"), ("\\", "with which Slurm replaces nothing")):
        if sign in str(path):
            raise FssegError(
                f"launcher slurm: {path} holds {sign}, {why} in names of logs, expected a folder without; move the runs"
            )
    if visible(str(path)) != str(path) or "\n" in str(path):
        raise FssegError(
            f"launcher slurm: {str(path)!r} holds a line break or another control character, which would add lines to "
            "Slurm's script, expected a folder without; rename it"
        )


def _watch(jobs: JobSet, numbers: dict[str, str], show: Show) -> None:
    """Shows the jobs until none is in the queue any more, or all have ended."""
    asked_at = time.monotonic()
    while True:
        states = jobs.states()
        show(states)
        if all(state.status in ENDED for state in states):
            return
        if time.monotonic() - asked_at > ASK_EVERY:
            asked_at = time.monotonic()
            queued = _in_queue(numbers.values())
            left = [
                job
                for job, state in zip(jobs.jobs, states)
                if state.status not in ENDED and numbers.get(job.name) in queued
            ]
            if not left and all(state.status != "running" for state in states):
                show(jobs.states())
                return
        time.sleep(LOOK_EVERY)


def _submit(jobs: JobSet, missing: list[Job], table: LauncherTable) -> dict[str, str]:
    """Submits jobs as one array; returns the numbers that Slurm gave them, by name."""
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise FssegError(
            'launcher slurm: needs submitit; install it with pip install "fsseg[slurm]"'
        ) from None
    try:
        executor = submitit.SlurmExecutor(
            folder=jobs.folder / "slurm",
            max_num_timeout=10_000,
            python=f"{shlex.quote(sys.executable)} -P",
        )
        executor.update_parameters(**_parameters(jobs, table))
        with executor.batch():
            submitted = [executor.submit(SlurmJob(str(job.folder.absolute()))) for job in missing]
    except (RuntimeError, FailedJobError) as error:
        raise FssegError(
            f"launcher slurm: {str(error).strip()}; correct the [launcher] table or ask your cluster"
        ) from None
    return {job.name: entry.job_id for job, entry in zip(missing, submitted)}


def _parameters(jobs: JobSet, table: LauncherTable) -> dict[str, object]:
    """What Slurm is asked for, in the words of submitit."""
    values = {
        "job_name": f"fsseg-{jobs.folder.name}",
        "time": table.time,
        "cpus_per_task": table.cpus,
        "mem": table.memory,
        "array_parallelism": table.parallelism,
        "signal_delay_s": min(120, 30 * table.time),
        "partition": table.partition,
        "account": table.account,
        "qos": table.qos,
        "gpus_per_node": table.gpus or None,
        "stderr_to_stdout": True,
        "setup": [f"export {name}={value}" for name, value in SAFE_PATH.items()],
        "additional_parameters": table.extra or None,
    }
    return {key: value for key, value in values.items() if value is not None}


class SlurmJob:
    """A job on its node: a process, which is asked to save itself before Slurm takes the node away."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._process: subprocess.Popen[Any] | None = None

    def __call__(self) -> int:
        """Runs the job and returns its exit code."""
        self._process = start(Job.read(Path(self.folder)), preexec_fn=_ignore_warning)
        # Not wait(): a signal's answer must be able to look at the process as well.
        while self._process.poll() is None:
            time.sleep(LOOK_EVERY)
        return self._process.returncode

    def checkpoint(self) -> object:
        """Called by submitit on a preemption or shortly before the time is up; what it returns is queued again."""
        import submitit

        if self._process is not None:
            _save(self._process)
        job = Job.read(Path(self.folder))
        state = job.told()
        if state.status not in ENDED:
            error = "its node was taken away; it goes on when its turn comes"
            job.tell(replace(state, status="queued", rate=0.0, error=error))
        return submitit.helpers.DelayedSubmission(SlurmJob(self.folder))


def _save(process: "subprocess.Popen[Any]") -> None:
    """Asks a job's process to save itself, and waits as long as Slurm lets it."""
    if process.poll() is not None:
        return
    process.terminate()
    until = time.monotonic() + WAIT_TO_SAVE
    while process.poll() is None and time.monotonic() < until:
        time.sleep(LOOK_EVERY)


def _ignore_warning() -> None:
    """Slurm's warning goes to all processes of a job; this one hears of it from the process that started it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _in_queue(numbers: Iterable[str]) -> set[str]:
    """Those of the jobs that Slurm still has."""
    wanted = sorted(set(numbers))
    if not wanted:
        return set()
    command = ["squeue", "--noheader", "--array", "--format", "%i", "--jobs", ",".join(wanted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise FssegError(
            "launcher slurm: there is no squeue here, expected a machine of the cluster"
        ) from None
    except subprocess.TimeoutExpired:
        return set(wanted)  # a busy cluster has not lost them
    if done.returncode and "Invalid job id" not in done.stderr:
        return set(wanted)
    return set(done.stdout.split()) & set(wanted)


def _read_numbers(jobs: JobSet) -> dict[str, str]:
    """The numbers that Slurm gave the jobs, by name; none where they were not submitted, or the file is damaged."""
    try:
        numbers = json.loads((jobs.folder / NUMBERS).read_text(encoding="utf-8"))
        return {str(name): str(number) for name, number in numbers.items()}
    except (OSError, ValueError, AttributeError):
        return {}
