"""Source files as they were when they were imported: what a process that lives longer than an edit knows of them."""

import importlib
import os
import py_compile
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import fsseg
from fsseg import choose_plugins, registry
from fsseg.plugins import sources
from fsseg.plugins.manager import changed_sources, loaded
from fsseg.system.code_digests import (
    changed_since_import,
    digest_at_import,
    forget,
    keep,
    keep_module,
)

IDEA = """
from typing import ClassVar
from fsseg import hookimpl

class Idea:
    oracle: ClassVar[bool] = False
    def __init__(self, *, shift: float = 0.0) -> None:
        self.shift = shift + {shift}
    def __call__(self, evidence):
        return evidence.query_location * 0 + self.shift

@hookimpl
def register_thresholds(register):
    register("idea", Idea)
"""


@pytest.fixture
def chosen():
    yield choose_plugins
    choose_plugins([], [])


def shift():
    return registry().build("threshold", "idea", {}).shift


def test_a_changed_file_is_loaded_anew(chosen, tmp_path):
    file = tmp_path / "idea_that_changes.py"
    file.write_text(IDEA.format(shift=1))
    chosen(files=[file])
    plugin = loaded().plugins[-1]
    component = registry().find("threshold", "idea")
    before = (plugin.digest, plugin.version, component.digest)
    module = plugin.module
    assert shift() == 1 and changed_sources() == []

    file.write_text(IDEA.format(shift=2))
    assert changed_sources() == [file]
    assert (plugin.digest, plugin.version, component.digest) == before
    assert shift() == 1, "the code that was imported goes on"

    chosen(files=[file])
    plugin = loaded().plugins[-1]
    component = registry().find("threshold", "idea")
    after = (plugin.digest, plugin.version, component.digest)
    assert shift() == 2 and changed_sources() == []
    assert not set(before) & set(after)
    assert plugin.module is not module and sys.modules["idea_that_changes"] is plugin.module


def test_an_unchanged_file_is_not_loaded_anew(chosen, tmp_path):
    file = tmp_path / "idea_that_stays.py"
    file.write_text(IDEA.format(shift=1))
    chosen(files=[file])
    module = loaded().plugins[-1].module
    os.utime(file, (1, 1))
    assert changed_sources() == []
    chosen(files=[])
    chosen(files=[file])
    assert loaded().plugins[-1].module is module


def test_a_file_that_was_imported_by_hand_and_edited_is_loaded_anew(chosen, tmp_path, monkeypatch):
    file = tmp_path / "idea_by_hand.py"
    file.write_text(IDEA.format(shift=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    importlib.import_module("idea_by_hand")
    file.write_text(IDEA.format(shift=1.5))
    chosen(files=[file])
    assert shift() == 1.5 and changed_sources() == []


def test_a_changed_source_folder_is_loaded_anew(chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = tmp_path / "project"
    (folder / "package_that_changes").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        "[project]\nname = 'dist-that-changes'\n"
        "[project.entry-points.fsseg]\nchanging = 'package_that_changes.idea'\n"
    )
    (folder / "package_that_changes" / "__init__.py").write_text("")
    file = folder / "package_that_changes" / "idea.py"
    for number in (1, 2, 3):  # as long each time, and within a second
        file.write_text(IDEA.format(shift=number))
        chosen(files=[folder])
        assert shift() == number and changed_sources() == []
    chosen(files=[folder])
    assert loaded().plugins[-1].distribution == "dist-that-changes"


def package(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("from fsseg import hookimpl\n")
    (folder / "method.py").write_text("VALUE = 1\n")
    return folder


def test_the_files_of_a_package_are_watched_from_its_import(tmp_path, monkeypatch):
    folder = package(tmp_path, "watched_package")
    monkeypatch.syspath_prepend(tmp_path)
    plugin = sources.import_entry(EntryPoint("w", "watched_package", "fsseg"), "dist", "1.0")
    assert plugin.sources == [folder]
    before = plugin.digest
    (folder / "method.py").write_text("VALUE = 2\n")
    (folder / "another.py").write_text("")
    assert changed_since_import(*plugin.sources) == [folder / "method.py"]
    (folder / "another.py").unlink()
    assert plugin.digest == before
    (folder / "method.py").write_text("VALUE = 1\n")
    assert changed_since_import(*plugin.sources) == []


def test_a_change_before_anybody_asks_for_the_digest_is_seen(tmp_path):
    folder = package(tmp_path, "changed_early")
    file = folder / "method.py"
    right = digest_at_import(folder)
    forget(folder)
    keep(folder)
    file.write_text("VALUE = 22\n")
    assert changed_since_import(folder) == [file]
    unknown = digest_at_import(folder)
    assert changed_since_import(folder) == [file]
    forget(folder)
    assert len({right, unknown, digest_at_import(folder)}) == 3


def test_bytecode_of_an_earlier_import_says_nothing(tmp_path, monkeypatch):
    """It stays as it was where Python writes none."""
    folder = package(tmp_path, "stale_bytecode")
    py_compile.compile(str(folder / "method.py"))
    (folder / "method.py").write_text("VALUE = 10\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert importlib.import_module("stale_bytecode.method").VALUE == 10
    keep_module("stale_bytecode")
    assert changed_since_import(folder) == []


def test_a_deleted_file_has_changed(tmp_path):
    folder = package(tmp_path, "deleted")
    keep(folder)
    (folder / "method.py").unlink()
    assert changed_since_import(folder) == [folder / "method.py"]


def test_the_digest_is_of_places_and_contents(tmp_path):
    first = package(tmp_path, "here")
    second = package(tmp_path / "here", "here")
    digest = digest_at_import(second)
    (second / "method.py").rename(second / "other.py")
    assert digest_at_import(second) != digest
    assert digest_at_import(first / "method.py") != digest_at_import(first / "__init__.py")


@pytest.mark.processes
def test_fsseg_itself_is_watched_from_its_first_import(tmp_path):
    copy = shutil.copytree(
        Path(fsseg.__file__).parent, tmp_path / "fsseg", ignore=shutil.ignore_patterns("*.pyc")
    )
    code = (
        "import fsseg\n"
        f"open({str(copy / 'report' / '__init__.py')!r}, 'a').write('# edited')\n"
        "from fsseg.plugins.manager import changed_sources\n"
        "print(*changed_sources())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.strip() == str(copy / "report" / "__init__.py"), done.stderr
