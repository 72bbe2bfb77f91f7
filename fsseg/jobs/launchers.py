"""Where jobs run: as processes of this machine, or as an array of jobs on a Slurm cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from fsseg.errors import FssegError
from fsseg.jobs.job import ENDED, LOG, Job, JobSet, State
from fsseg.recipe.tables import LauncherTable
from fsseg.system.files import write_json
from fsseg.system.parallel import processors
from fsseg.system.signals import Stopped, saving_first, stoppable

LOOK_EVERY, ASK_EVERY = 0.5, 10.0
"""Seconds between two looks at the jobs' files, and between two questions to Slurm."""

WAIT_TO_SAVE = 80.0
"""Seconds that a job may take to save itself before Slurm takes its node away."""

Show = Callable[[list[State]], None]


def launch(jobs: JobSet, asked: LauncherTable, show: Show, note: Callable[[str], None]) -> None:
    """Runs jobs where the table says, and raises FssegError if one did not end well."""
    note(f"{len(jobs.jobs)} jobs: fsseg status {jobs.folder}")
    if asked.name == "slurm":
        run_on_slurm(jobs, asked, show, note)
    else:
        run_here(jobs, asked.jobs or 1, [{}], 1, show)
    jobs.require_done()


def command_of(job: Job) -> list[str]:
    """What runs a job."""
    return [sys.executable, "-m", "fsseg", "job", str(job.folder.absolute())]


def run_here(
    jobs: JobSet, at_once: int, places: list[dict[str, str]], threads: int, show: Show
) -> None:
    """Runs jobs as processes of this machine and returns when all have ended, however they did.

    Jobs that other processes are at are waited for. When a signal asks to stop, all jobs save themselves first.

    Args:
        jobs: The jobs.
        at_once: How many at a time.
        places: What to add to the environment of each, in turns: which GPU it sees.
        threads: Those that each computes with.
        show: Told how far they are.
    """
    waiting = [job for job in jobs.jobs if job.state().status not in {"done", "running"}]
    for job in waiting:
        if job.told().status in ENDED:
            job.tell(State())
    started: dict[int, subprocess.Popen[bytes]] = {}
    crowded = (
        {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
        if at_once * threads > processors()
        else {}
    )
    with stoppable(), saving_first() as asked:
        while True:
            taken = {place for place, process in started.items() if process.poll() is None}
            for place in sorted(set(range(at_once)) - taken):
                if waiting and asked.number is None:
                    added = crowded | places[place % len(places)]
                    started[place] = _start(waiting.pop(0), added)
                    taken.add(place)
            states = jobs.states()
            show(states)
            if asked.number is not None:
                _stop(list(started.values()))
                show(jobs.states())
                raise Stopped(asked.number, "after its jobs saved themselves")
            if not taken and not waiting and "running" not in {state.status for state in states}:
                return
            time.sleep(LOOK_EVERY)


def _start(job: Job, added: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A session of its own: a terminal's Ctrl-C is for the one who watches, who then asks the jobs to stop."""
    with (job.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command_of(job),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | added,
            start_new_session=True,
        )


def _stop(processes: list["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        process.wait()


def run_on_slurm(
    jobs: JobSet, asked: LauncherTable, show: Show, note: Callable[[str], None]
) -> None:
    """Submits jobs as a Slurm array and returns when all have ended, however they did.

    Those that are queued or running from an earlier call are watched, not submitted again. A signal ends the watching,
    not the jobs.
    """
    told = jobs.folder / "slurm.json"
    numbers = _read_numbers(told)
    known = _in_queue(numbers.values())
    missing = [
        job
        for job in jobs.jobs
        if job.state().status not in {"done", "running"} and numbers.get(job.name) not in known
    ]
    if missing:
        for job in missing:
            if job.told().status in ENDED:
                job.tell(State())
        numbers |= _submit(jobs, missing, asked)
        _write_numbers(told, numbers)
        note(f"{len(missing)} jobs submitted: {', '.join(numbers[job.name] for job in missing)}")
    with stoppable():
        try:
            _watch(jobs, numbers, show)
        except Stopped as stop:
            left = sum(state.status not in ENDED for state in jobs.states())
            raise Stopped(
                stop.number,
                text=f"detached: {left} jobs go on without; fsseg status {jobs.folder} shows them, the same command attaches again",
            ) from None


def _watch(jobs: JobSet, numbers: dict[str, str], show: Show) -> None:
    """Until no job is in the queue any more, or all have ended."""
    asked, known = time.monotonic(), _in_queue(numbers.values())
    while True:
        states = jobs.states()
        show(states)
        if time.monotonic() - asked > ASK_EVERY:
            asked, known = time.monotonic(), _in_queue(numbers.values())
            left = [
                job for job, state in zip(jobs.jobs, states)
                if state.status not in ENDED and numbers.get(job.name) in known
            ]  # fmt: skip
            if not left and "running" not in {state.status for state in states}:
                show(jobs.states())
                return
        if all(state.status in ENDED for state in states):
            return
        time.sleep(LOOK_EVERY)


def _submit(jobs: JobSet, missing: list[Job], asked: LauncherTable) -> dict[str, str]:
    """The numbers that Slurm gave the jobs, by name."""
    try:
        import submitit
    except ImportError:
        raise FssegError(
            'launcher slurm: needs submitit; install it with pip install "fsseg[slurm]"'
        ) from None
    try:
        executor = submitit.SlurmExecutor(folder=jobs.folder / "slurm", max_num_timeout=10_000)
        executor.update_parameters(**_parameters(jobs, asked))
        with executor.batch():
            submitted = [executor.submit(SlurmJob(str(job.folder.absolute()))) for job in missing]
    except (RuntimeError, submitit.core.utils.FailedJobError) as error:
        raise FssegError(
            f"launcher slurm: {str(error).strip()}; correct the [launcher] table or ask your cluster"
        ) from None
    return {job.name: entry.job_id for job, entry in zip(missing, submitted)}


def _parameters(jobs: JobSet, asked: LauncherTable) -> dict[str, object]:
    """What Slurm is asked for, in the words of submitit."""
    values = {
        "job_name": f"fsseg-{jobs.folder.name}",
        "time": asked.time,
        "cpus_per_task": asked.cpus,
        "mem": asked.memory,
        "array_parallelism": asked.parallelism,
        "signal_delay_s": min(120, 30 * asked.time),
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "gpus_per_node": asked.gpus or None,
        "stderr_to_stdout": True,
        "additional_parameters": asked.extra or None,
    }
    return {key: value for key, value in values.items() if value is not None}


class SlurmJob:
    """What runs on the node: the job as a process, which is asked to save itself before Slurm takes the node away."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        job = Job.read(Path(self.folder))
        with (job.folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                command_of(job),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_ignore_warning,
            )
        # Not wait(): a signal's answer must be able to look at the process as well.
        while self._process.poll() is None:
            time.sleep(LOOK_EVERY)
        return self._process.returncode

    def checkpoint(self) -> object:
        """Called by submitit on a preemption or shortly before the time is up; what it returns is queued again."""
        import submitit

        job, process = Job.read(Path(self.folder)), self._process
        if process is not None and process.poll() is None:
            process.terminate()
            until = time.monotonic() + WAIT_TO_SAVE
            while process.poll() is None and time.monotonic() < until:
                time.sleep(LOOK_EVERY)
        if job.told().status not in ENDED:
            job.tell(
                replace(
                    job.told(),
                    status="queued",
                    rate=0.0,
                    error="its node was taken away; it goes on when its turn comes",
                )
            )
        return submitit.helpers.DelayedSubmission(SlurmJob(self.folder))


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


def _read_numbers(path: Path) -> dict[str, str]:
    try:
        return {
            str(name): str(number)
            for name, number in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, AttributeError):
        return {}


def _write_numbers(path: Path, numbers: dict[str, str]) -> None:
    write_json(path, numbers)
