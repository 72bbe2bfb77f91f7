"""docs/tutorial-plugin.md, command by command, in an empty folder with a virtual environment of its own."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial-plugin.md").read_text()
BLOCKS = re.findall(r"```(\w+)(?: file=(\S+))?\n(.*?)```", PAGE, flags=re.S)


def code_of(text):
    """A module without its docstring, imports and hook."""
    return text[text.index("class Otsu") :].partition("\n\n\n@hookimpl")[0].strip()


def test_the_tutorial_builds_the_plugin_that_is_there():
    page = next(text for language, file, text in BLOCKS if file == "otsu.py")
    there = (ROOT / "plugins" / "fsseg-otsu" / "fsseg_otsu" / "otsu.py").read_text()
    assert code_of(page) == code_of(there)
    assert (
        len(there.splitlines())
        + len((ROOT / "plugins/fsseg-otsu/fsseg_otsu/__init__.py").read_text().splitlines())
        < 70
    )


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")
def test_every_command_of_the_tutorial(tmp_path):
    (tmp_path / "fsseg").symlink_to(ROOT)
    folder = tmp_path / "empty"
    folder.mkdir()
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("VIRTUAL_ENV", "PYTHON"))
    }
    said = []
    for language, file, text in BLOCKS:
        if file:
            (folder / file).write_text(text)
        elif language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=folder,
                env=kept,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            said.append(done.stdout)
    told = "\n".join(said)
    assert "13 passed, 0 failed" in told  # the check of the file, and of the package
    tables = [text for text in said if "3-D Dice in percent" in text]
    assert len(tables) == 2 and all(
        re.search(r"^LinEst .*\nOtsu ", text, flags=re.M) for text in tables
    )
    rows = [re.findall(r"^(?:LinEst|Otsu) .*$", text, flags=re.M) for text in tables]
    assert rows[0] == rows[1]  # the package does what the file did
    assert re.search(
        r"1[34] passed, 3 skipped", told
    )  # its own tests: the contract, and one with known numbers
