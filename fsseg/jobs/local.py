"""Jobs as processes of this machine, so many at a time.

submitit, which submits the jobs of a cluster, could start them here as well, but all at once, all with the same GPUs, and
only where it is installed.
"""

import subprocess
import time
from typing import Any

from fsseg.jobs.job import JobSet, Show, start
from fsseg.system.parallel import processors
from fsseg.system.signals import Stopped, saving_first, stoppable

LOOK_EVERY = 0.5
"""Seconds between two looks at the jobs' files."""

PATIENT = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Makes threads sleep while they wait, where there are more of them than processors."""


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
        show: Called with how far they are.

    Raises:
        Stopped: A signal asked to stop, and the jobs have saved themselves.
    """
    waiting = [job for job in jobs.jobs if job.state().status not in {"done", "running"}]
    for job in waiting:
        job.queue_again()
    patience = PATIENT if at_once * threads > processors() else {}
    started: dict[int, subprocess.Popen[Any]] = {}
    with stoppable(), saving_first() as stop:
        while True:
            busy = {slot for slot, process in started.items() if process.poll() is None}
            free = sorted(set(range(at_once)) - busy)
            for slot in free:
                if waiting and stop.number is None:
                    environment = patience | places[slot % len(places)]
                    # In a session of its own: a terminal's Ctrl-C is for the one who watches, who then asks the jobs.
                    started[slot] = start(waiting.pop(0), environment, start_new_session=True)
                    busy.add(slot)
            states = jobs.states()
            show(states)
            if stop.number is not None:
                _stop(list(started.values()))
                show(jobs.states())
                raise Stopped(stop.number, "after its jobs saved themselves")
            elsewhere = any(state.status == "running" for state in states)
            if not (busy or waiting or elsewhere):
                return
            time.sleep(LOOK_EVERY)


def _stop(processes: list["subprocess.Popen[Any]"]) -> None:
    """Asks processes to stop, and waits until they have."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        process.wait()
