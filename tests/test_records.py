"""Files are written whole or not at all, and what keeps them from being written is explained."""

import errno
import os
import subprocess
import sys
import time

import pytest

from fsseg import FssegError
from fsseg.evaluation.scores import read_scores
from fsseg.system import unfinished
from fsseg.system.files import fill_folder, replacing, write_text
from fsseg.system.unfinished import sweep_abandoned, unfinished_name

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from fsseg import FssegError
from fsseg.system.files import write_text
from fsseg.system.files import fill_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
folder = Path(sys.argv[1])
for write in (
    lambda: write_text(folder / "a.txt", "x" * 100_000),
    lambda: fill_folder(folder / "b", lambda place: (place / "c").write_bytes(bytes(100_000))),
):
    try:
        write()
    except FssegError as error:
        print(error)
"""


@pytest.mark.processes
def test_a_full_disk_leaves_nothing(tmp_path):
    """Simulated by a limit on the size of files, which the system reports as it does a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True
    )
    first, second = done.stdout.splitlines()
    assert (
        f"{tmp_path}/a.txt: the disk is full or the file too large (File too large); make room"
        in first
    )
    assert f"{tmp_path}/b: the disk is full or the file too large" in second
    assert list(tmp_path.iterdir()) == [] and done.stderr == ""


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(
        FssegError, match="x: a file is where a folder is expected .*; choose another folder"
    ):
        write_text(tmp_path / "x" / "y.txt", "")
    with pytest.raises(FssegError, match="x: a file is where a folder is expected"):
        fill_folder(tmp_path / "x" / "y", lambda folder: None)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_what_the_system_says_is_explained(tmp_path, monkeypatch, code):
    """A test may run as root, who may write anywhere; so the system's answer is put in its mouth."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fsseg.system.files.os.replace", refuse)
    (tmp_path / "kept.txt").write_text("before")
    with pytest.raises(
        FssegError,
        match=f".{os.strerror(code)}.; .*(make room|writable folder)"
        if code == errno.ENOSPC
        else f"cannot be written .{os.strerror(code)}.",
    ):
        write_text(tmp_path / "kept.txt", "after")
    assert (tmp_path / "kept.txt").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{", "[1]\n", '{"variant": 1}\n', '"x"\n', "\x80"])
def test_a_damaged_file_is_a_sentence(tmp_path, content):
    (tmp_path / "scores.jsonl").write_bytes(content.encode("latin-1"))
    if not content:
        assert read_scores(tmp_path / "scores.jsonl") == []
        return
    with pytest.raises(
        FssegError,
        match="scores.jsonl: line 1: damaged .*, expected what fsseg wrote; run the recipe again",
    ):
        read_scores(tmp_path / "scores.jsonl")


def test_what_is_no_fault_of_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        (tmp_path / "nothing").read_text()
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def left_by(folder, name, monkeypatch, *, pid=None, machine=None, hours=0):
    """What a process leaves that was killed so many hours ago."""
    with monkeypatch.context() as patched:
        if pid is not None:
            patched.setattr(os, "getpid", lambda: pid)
        if machine is not None:
            patched.setattr(unfinished, "this_machine", lambda: machine)
        left = folder / unfinished_name(name)
    left.mkdir()
    (left / "made").mkdir()
    when = time.time() - hours * 3600
    os.utime(left, (when, when))
    return left


def test_what_dead_processes_left_is_swept_and_what_others_are_at_stays(tmp_path, monkeypatch):
    gone = 2**22 + 1  # no process has a number as high
    dead = [
        left_by(tmp_path, "run-1", monkeypatch, pid=gone),
        left_by(tmp_path, "run-1", monkeypatch, pid=gone, machine="another", hours=25),
        left_by(tmp_path, "of an older version", monkeypatch, hours=25),
    ]
    dead[2] = dead[2].rename(tmp_path / ".run.0a1b2c.unfinished")
    file = tmp_path / dead[0].name.replace("run-1", "checkpoint.safetensors")
    file.write_bytes(b"half")
    alive = [
        left_by(tmp_path, "run-2", monkeypatch, hours=100),  # of this process
        left_by(tmp_path, "run-2", monkeypatch, pid=gone, machine="another", hours=23),
        tmp_path / "results.unfinished",  # a user's, not hidden
    ]
    alive[2].mkdir()
    sweep_abandoned(tmp_path)
    assert not any(path.exists() for path in [*dead, file])
    assert all(path.exists() for path in alive)


def test_a_folder_is_swept_by_its_own_name_alone(tmp_path, monkeypatch):
    """Brackets and stars in a name are no patterns."""
    own = left_by(tmp_path, "run[1]", monkeypatch)
    other = left_by(tmp_path, "run1", monkeypatch)
    unfinished.sweep(tmp_path / "run[1]")
    assert not own.exists() and other.exists()
