"""Who is at work on what: real processes that wait, die and are recognised as dead, here and on other machines."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from fsseg import FssegError
from fsseg.system import locks, processes
from fsseg.system.locks import Holder, holding, is_held, is_left_behind, read_holder

HOLD = """
import sys
from pathlib import Path
from fsseg.system.locks import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
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
def another_process(path):
    """A process that holds the lock until its input ends; it is gone after the block."""
    command = [sys.executable, "-c", HOLD, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def write(path, holder):
    path.write_text(locks.NAME + json.dumps(asdict(holder)) + "\n")


def elsewhere():
    return replace(Holder.me(), machine="another its own", pid=1)


@pytest.fixture
def hurry(monkeypatch):
    """Looks often, and loses patience soon."""
    monkeypatch.setattr(locks, "PATIENCE", 0.5)
    monkeypatch.setattr(locks, "BEAT", 0.1)
    monkeypatch.setattr(locks, "POLL", 0.02)


@contextmanager
def somebody_waiting(path):
    """A thread that waits for the lock; yields what it is told, and an event that is set once it has it."""
    told, taken, done = [], threading.Event(), threading.Event()

    def wait():
        with holding(path, told.append):
            taken.set()
            done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield told, taken
    finally:
        done.set()
        thread.join()


def wait_for(happened):
    while not happened():
        time.sleep(0.01)


@pytest.mark.processes
def test_the_second_process_waits_and_is_told_who_is_first(tmp_path, hurry):
    path = tmp_path / "work.lock"
    with another_process(path) as process, somebody_waiting(path) as (told, taken):
        wait_for(lambda: told)
        assert not taken.is_set()
        process.stdin.close()
        taken.wait()
        assert read_holder(path).pid == os.getpid()
    [sentence] = told
    assert f"process {process.pid} on {platform.node()} (since 2" in sentence
    assert sentence.endswith("is at it, waiting for it")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_a_killed_process_holds_nothing(tmp_path):
    path, told = tmp_path / "work.lock", []
    with another_process(path) as process:
        assert is_held(path) and not is_left_behind(path)
        process.kill()  # and not waited for: what is left of it in the table of processes is dead as well
        wait_for(lambda: is_left_behind(path))
        with holding(path, told.append):
            assert read_holder(path).pid == os.getpid()
    assert f"left behind by process {process.pid} on" in told[-1]


@pytest.mark.processes
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
    assert not is_held(path) and is_left_behind(path)
    write(path, Holder.me())
    assert is_held(path)


@pytest.mark.processes
def test_without_proc_or_for_a_process_that_is_hidden_its_number_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "birth", lambda pid: None)
    monkeypatch.setattr(locks, "birth", lambda pid: None)
    assert Holder.me().lives() is True
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert replace(Holder.me(), pid=gone.pid).lives() is False
    monkeypatch.setattr(os, "name", "nt")
    assert Holder.me().lives() is None


def test_who_holds_a_lock_touches_it(tmp_path, hurry):
    path = tmp_path / "work.lock"
    with holding(path):
        os.utime(path, (10, 10))
        wait_for(lambda: path.stat().st_mtime > 10)
        assert read_holder(path).pid == os.getpid()


@pytest.fixture
def clock(monkeypatch):
    """The time of this machine, to be set."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(locks.time, "monotonic", lambda: now.seconds)
    return now


def test_another_machine_is_dead_once_it_is_silent(tmp_path, clock):
    path = tmp_path / "work.lock"
    write(path, elsewhere())
    os.utime(path, (10, 10))  # its clock may be anywhere
    assert is_held(path)
    watched = locks._Watched(path)
    assert not watched.is_dead()
    clock.seconds += locks.PATIENCE
    assert not watched.is_dead()
    os.utime(path, (20, 20))
    clock.seconds += 1
    assert not watched.is_dead()
    clock.seconds += locks.PATIENCE + 1
    assert watched.is_dead()


@pytest.mark.processes
def test_a_process_of_this_machine_that_is_stopped_is_not_dead(tmp_path, clock):
    path = tmp_path / "work.lock"
    with another_process(path) as process:
        process.send_signal(signal.SIGSTOP)
        watched = locks._Watched(path)
        assert not watched.is_dead()
        clock.seconds += 1000 * locks.PATIENCE
        assert not watched.is_dead() and is_held(path)
        process.kill()
        wait_for(watched.is_dead)


@pytest.mark.parametrize("content", ["", "{", "1\nhost\n"])
def test_a_file_that_names_nobody_is_taken_over_after_a_while(tmp_path, content, hurry):
    path, told = tmp_path / "work.lock", []
    path.write_text(content)
    assert not is_held(path)
    with holding(path, told.append):
        assert read_holder(path).pid == os.getpid()
    assert "work.lock: names no process, expected who holds it" in told[0]
    assert "left behind by a process that died" in told[1]


@pytest.mark.parametrize("kind", ["folder", "dangling link"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "work.lock"
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FssegError, match="work.lock: a folder or a link, expected a lock file"):
        holding(path).__enter__()
    assert not is_held(path) and os.path.lexists(path)


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FssegError, match="a file is where a folder is expected"):
        holding(tmp_path / "file" / "work.lock").__enter__()


def test_a_lock_that_was_taken_over_is_noticed(tmp_path):
    path = tmp_path / "work.lock"
    with holding(path) as lock:
        lock.require()
        path.unlink()
        write(path, elsewhere())
        with pytest.raises(FssegError, match="taken over by process 1 on another"):
            lock.require()
    assert read_holder(path).pid == 1  # not ours to give back


def test_who_finds_a_dead_lock_does_not_remove_a_new_one(tmp_path):
    path = tmp_path / "work.lock"
    write(path, elsewhere())
    dead = locks._state(path)
    with holding(tmp_path / "other.lock"):
        os.replace(tmp_path / "other.lock", path)
        locks._bury(path, dead)
        assert read_holder(path).pid == os.getpid()


def test_a_thread_may_ask_again_and_another_waits(tmp_path, hurry):
    path = tmp_path / "work.lock"
    outer = ExitStack()
    outer.enter_context(holding(path))
    with somebody_waiting(path) as (told, taken):
        with holding(path):
            pass
        wait_for(lambda: told)
        assert not taken.is_set() and is_held(path)
        outer.close()
        taken.wait()
    assert not is_held(path)
