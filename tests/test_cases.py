"""Programs beside the project that bring what users bring, one thing each: exit 0 where the behaviour is right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"

MOVED = {"fsseg.data.prepare.msd": "fsseg.prepare.layouts.msd"}
"""Modules that a program names and that lie elsewhere now."""


@pytest.mark.processes
@pytest.mark.parametrize("program", sorted(CASES.glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_the_behaviour_is_right(program, tmp_path):
    text = program.read_text()
    for before, now in MOVED.items():
        text = text.replace(f'"{before}"', f'"{now}"')
    copy = tmp_path / program.name
    copy.write_text(text)
    done = subprocess.run(
        [sys.executable, str(copy)],
        env=os.environ | {"FSSEG_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_programs(shared):
    """Where there is the folder; without it nothing is asked."""
    assert len(list(CASES.glob("[0-9]*.py"))) >= 25
