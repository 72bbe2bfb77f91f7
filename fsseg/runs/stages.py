"""Stage keys and the folders that hold finished stages, so that recipes share what they have in common."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsseg.system.files import fill_folder, fingerprint, sweep
from fsseg.system.locks import Lock, holding, is_left_behind
from fsseg.system.progress import Progress


@dataclass(frozen=True)
class Stages:
    """Finished stages of all recipes, and who is at work on the others.

    Attributes:
        runs: Where runs are kept; stages are shared below it.
        progress: Hears of locks.
        fresh: Whether stages that are there are made again. What is there stays until it is made.
        remade: Those that were.
    """

    runs: Path
    progress: Progress
    fresh: bool = False
    remade: set[Path] = field(default_factory=set)

    def path(self, stage: str, identity: dict[str, Any]) -> Path:
        """Where a stage is once it is finished."""
        return self.runs / "stages" / f"{stage}-{fingerprint(identity)[:16]}"

    def is_finished(self, folder: Path) -> bool:
        """Whether the stage need not be made."""
        return folder.is_dir() and (not self.fresh or folder in self.remade)

    def checkpoints(self, folder: Path) -> Path:
        """Where a training that is not finished keeps its state."""
        return self.runs / "checkpoints" / folder.name

    def holding(self, folder: Path) -> AbstractContextManager[Lock]:
        """In this block no other process makes this stage."""
        return holding(self._lock(folder), self.progress.note)

    def _lock(self, folder: Path) -> Path:
        return folder.with_name(f"{folder.name}.lock")

    def finish(
        self, stage: str, identity: dict[str, Any], make: Callable[[Path], None]
    ) -> tuple[Path, bool]:
        """The folder of a finished stage, made if it is not there yet; if another process makes it, waits for that.

        Args:
            stage: The stage's name.
            identity: All that the stage depends on.
            make: Fills an empty folder with the stage's files.

        Returns:
            The folder, and whether it was there already.
        """
        folder = self.path(stage, identity)
        if self.is_finished(folder):
            if is_left_behind(
                self._lock(folder)
            ):  # killed after its last rename, before it could clean up
                with self.holding(folder):
                    sweep(folder)
            return folder, True
        with self.holding(folder) as lock:
            if self.is_finished(folder):
                return folder, True
            sweep(folder)
            fill_folder(folder, make, lock.require)
            self.remade.add(folder)
        return folder, False
