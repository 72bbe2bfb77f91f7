"""Who is at work on what: real processes that wait, die and are recognised as dead, here and on other machines."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest

from fsseg import FssegError
from fsseg.system import locks
from fsseg.system.locks import Holder, Lock, acquire, holding, is_held, read_holder, release

HOLD = """
import sys, time
from pathlib import Path
from fsseg.system.locks import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""

COUNT = """
import sys, time
from pathlib import Path
from fsseg.system.locks import holding
counter = Path(sys.argv[1]) / "counter"
for _ in range(20):
    with holding(Path(sys.argv[1]) / "work.lock"):
        number = int(counter.read_text())
        time.sleep(0.001)
        counter.write_text(str(number + 1))
"""


@contextmanager
def another_process(path, seconds=600):
    """A process that holds the lock for so long; it is gone after the block."""
    command = [sys.executable, "-c", HOLD, path, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def write(path, holder):
    path.write_text(json.dumps(asdict(holder)))


def elsewhere():
    return replace(Holder.me(), host="another", boot="its own", space="its own", pid=1)


def test_the_second_process_waits_and_is_told_who_is_first(tmp_path):
    path, told = tmp_path / "work.lock", []
    with another_process(path, 1.5) as process, holding(path, told.append):
        assert read_holder(path).pid == os.getpid()
    [sentence] = told
    assert f"process {process.pid} on " in sentence and sentence.endswith(
        "is at it, waiting for it"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    path, told = tmp_path / "work.lock", []
    with another_process(path) as process:
        assert is_held(path)
        process.kill()  # and not waited for: what is left of it in the table of processes is dead as well
        taken = threading.Event()
        threading.Thread(
            target=lambda: (acquire(path, told.append), taken.set()), daemon=True
        ).start()
        assert taken.wait(30)
    assert "left behind by process" in told[-1] and read_holder(path).pid == os.getpid()


def test_four_processes_count_without_losing_any(tmp_path):
    (tmp_path / "counter").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, tmp_path]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "counter").read_text() == "80"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_a_process_number_that_is_used_again(tmp_path):
    """The number lives, but the process behind it is younger than the lock's."""
    path = tmp_path / "work.lock"
    write(path, replace(Holder.me(), pid=os.getppid(), born="1"))
    assert not is_held(path)
    write(path, replace(Holder.me(), boot="the day before"))
    assert not is_held(path)
    write(path, Holder.me())
    assert is_held(path)


def test_another_machine_that_is_silent_is_dead_and_one_that_is_not_is_waited_for(tmp_path):
    path = tmp_path / "work.lock"
    write(path, elsewhere())
    os.utime(path, (10, 10))  # its clock may be anywhere
    started = time.monotonic()
    acquire(path, patience=0.5, poll=0.05)
    assert time.monotonic() - started >= 0.5
    path.unlink()

    write(path, elsewhere())
    stop = threading.Event()

    def touch():
        while not stop.wait(0.1):
            os.utime(path)

    toucher = threading.Thread(target=touch)
    toucher.start()
    taken = threading.Event()
    waiter = threading.Thread(
        target=lambda: (acquire(path, patience=0.8, poll=0.05), taken.set()), daemon=True
    )
    waiter.start()
    assert not taken.wait(2)
    stop.set()
    toucher.join()
    assert taken.wait(10)


def test_a_live_process_of_this_machine_is_never_dead(tmp_path):
    path = tmp_path / "work.lock"
    with another_process(path) as process:
        process.send_signal(signal.SIGSTOP)
        taken = threading.Event()
        waiter = threading.Thread(
            target=lambda: (acquire(path, patience=0.2, poll=0.05), taken.set()), daemon=True
        )
        waiter.start()
        assert not taken.wait(1.5)
    assert taken.wait(10)


def test_a_file_that_says_nothing_is_taken_over_after_a_while(tmp_path):
    path, told = tmp_path / "work.lock", []
    path.write_text("{")
    acquire(path, told.append, patience=0.2, poll=0.05)
    assert read_holder(path).pid == os.getpid() and "left behind by a process that died" in told[0]


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("fsseg.system.locks.os.link", refuse)
    path = tmp_path / "work.lock"
    mine = acquire(path)
    assert read_holder(path) == mine and not locks._create(path, Holder.me())
    release(Lock(path, mine))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_taken_over_is_noticed(tmp_path):
    path = tmp_path / "work.lock"
    with holding(path) as lock:
        lock.require()
        write(path, elsewhere())
        with pytest.raises(FssegError, match="taken over by process 1 on another"):
            lock.require()
    assert read_holder(path).host == "another"  # not ours to give back


def test_who_finds_a_dead_lock_does_not_remove_a_new_one(tmp_path):
    path = tmp_path / "work.lock"
    write(path, elsewhere())
    dead = read_holder(path)
    write(path, Holder.me())
    locks._bury(path, dead)
    assert read_holder(path).pid == os.getpid()


def test_a_thread_may_ask_again_and_another_waits(tmp_path):
    path, seen = tmp_path / "work.lock", []

    def ask():
        with holding(path):
            seen.append(1)

    with holding(path), holding(path):
        other = threading.Thread(target=ask)
        other.start()
        other.join(0.7)
        assert other.is_alive() and not seen
    other.join(10)
    assert seen == [1]
