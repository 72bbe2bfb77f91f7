"""Stages of a run as values, and the folders that hold finished ones, so that recipes share what they have in common."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fsseg.runs.identity import require_as_imported
from fsseg.system.files import fill_folder, fingerprint
from fsseg.system.locks import Lock, holding, is_left_behind
from fsseg.system.manifests import find_damage, write_manifest
from fsseg.system.progress import Progress
from fsseg.system.unfinished import sweep


@dataclass(frozen=True)
class Stage:
    """Something that a run makes once and keeps.

    Attributes:
        name: Its kind, with which its folder's name begins: "train", "calibrate" or "evaluate".
        identity: All that its content depends on, as plain values.
        make: Fills an empty folder with its files.
    """

    name: str
    identity: dict[str, Any]
    make: Callable[[Path], None]

    @cached_property
    def key(self) -> str:
        """The name of its folder."""
        return f"{self.name}-{fingerprint(self.identity)[:16]}"


@dataclass(frozen=True)
class FinishedStage:
    """A stage whose folder is there.

    Attributes:
        identity: All that its content depends on.
        folder: Its folder.
        reused: Whether an earlier run had made it.
    """

    identity: dict[str, Any]
    folder: Path
    reused: bool


class Stages:
    """Finished stages of all recipes, and who is at work on the others.

    Attributes:
        fresh: Whether stages that are there are made again. What is there stays until it is made.
    """

    def __init__(self, runs: Path, progress: Progress, *, fresh: bool = False) -> None:
        """Stages below a folder of runs; `progress` hears of locks."""
        self.fresh = fresh
        self._folder = runs / "stages"
        self._snapshots = runs / "checkpoints"
        self._progress = progress
        self._remade: set[Path] = set()
        self._sound: dict[Path, bool] = {}

    def path(self, stage: Stage) -> Path:
        """The folder that a stage has once it is finished."""
        return self._folder / stage.key

    def is_finished(self, stage: Stage) -> bool:
        """Whether the stage need not be made; what is damaged, which is noted, must be."""
        folder = self.path(stage)
        if not folder.is_dir() or (self.fresh and folder not in self._remade):
            return False
        if folder not in self._sound:
            self._sound[folder] = self._is_sound(folder)
        return self._sound[folder]

    def _is_sound(self, folder: Path) -> bool:
        damage = find_damage(folder)
        if damage is not None:
            self._progress.note(f"{folder}: damaged ({damage}), made again")
        return damage is None

    def snapshots(self, stage: Stage) -> Path:
        """The folder in which an unfinished training keeps its state."""
        return self._snapshots / stage.key

    def holding(self, stage: Stage) -> AbstractContextManager[Lock]:
        """A block in which no other process makes this stage."""
        return holding(self._lock(stage), self._progress.note)

    def finish(self, stage: Stage) -> FinishedStage:
        """The finished stage, made if it is not there yet; if another process makes it, waits for that."""
        folder = self.path(stage)
        if self.is_finished(stage):
            self._clean_up(stage)
            return FinishedStage(stage.identity, folder, reused=True)
        with self.holding(stage) as lock:
            # Another process may have made it anew while this one waited.
            self._sound[folder] = folder.is_dir() and find_damage(folder) is None
            if self.is_finished(stage):
                return FinishedStage(stage.identity, folder, reused=True)
            sweep(folder)
            fill_folder(folder, partial(_make_with_manifest, stage), partial(_require_kept, lock))
            self._remade.add(folder)
            self._sound[folder] = True
        return FinishedStage(stage.identity, folder, reused=False)

    def _clean_up(self, stage: Stage) -> None:
        """Removes what a process left that was killed after its last rename."""
        if is_left_behind(self._lock(stage)):
            with self.holding(stage):
                sweep(self.path(stage))

    def _lock(self, stage: Stage) -> Path:
        folder = self.path(stage)
        return folder.with_name(f"{folder.name}.lock")


def _make_with_manifest(stage: Stage, folder: Path) -> None:
    stage.make(folder)
    write_manifest(folder)


def _require_kept(lock: Lock) -> None:
    """Checks before a stage gets its name that it is this process's, and made by the code that its key stands for."""
    lock.require()
    require_as_imported()
