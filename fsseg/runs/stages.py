"""Stage keys and the folders that hold finished stages, so that recipes share what they have in common."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fsseg.system.locks import Lock, holding, is_left_behind
from fsseg.plugins.options import schema
from fsseg.plugins.manager import registry
from fsseg.system.progress import Progress
from fsseg.recipe.tables import fingerprint
from fsseg.system.files import UNFINISHED, force_to_disk, writing

LIBRARIES = ("torch", "timm", "numpy", "scipy", "numba", "scikit-image")


def environment(device: str) -> dict[str, Any]:
    """What the bits of a result may depend on besides recipe and data."""
    import torch  # loads with the stages that need it, not with those that only want a key

    return {
        "fsseg": version("fsseg"),
        "source": source_digest(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        **_versions(LIBRARIES),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of a checkout and whether files differ from it; None for what is none, or without git."""
    try:
        ask = lambda *words: subprocess.run(  # noqa: E731
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for library in libraries:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def source_digest() -> str:
    """A hash of fsseg's own source."""
    return _digest(Path(__file__).parents[1].rglob("*.py"))


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def component_identity(kind: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A component by what it computes: its options, its distribution's version and the source of its folder."""
    component = registry().find(kind, name)
    return {
        "name": name,
        "options": options,
        "distribution": [component.distribution, component.version],
        "source": _digest(component.sources()),
    }


def reading_identity(dataset: str, grid: dict[str, Any]) -> str:
    """What is kept of scans is kept by this besides the scans: how they are read, put on a grid and scaled.

    Changes elsewhere in fsseg leave it valid.
    """
    folder = Path(__file__).parents[1]
    source = _digest((folder / "data").rglob("*.py"))
    libraries = _versions(("numpy", "nibabel", "torch"))
    return fingerprint([component_identity("dataset", dataset, {}), source, libraries, grid])


def supervoxel_identity(name: str, options: dict[str, Any]) -> str:
    """What supervoxels are kept by, besides the scan and their least size, however the options were written."""
    defaults = schema(registry().find("supervoxels", name).load())(**options).model_dump()
    defaults.pop("min_size", None)
    libraries = _versions(("numpy", "scipy", "scikit-image"))
    return fingerprint([component_identity("supervoxels", name, defaults), libraries])


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

    def finish(self, stage: str, identity: dict[str, Any], make: Callable[[Path], None]) -> tuple[Path, bool]:
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
            if is_left_behind(self._lock(folder)):  # killed after its last rename, before it could clean up
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


def sweep(folder: Path) -> None:
    """Removes what processes that were killed left of this folder."""
    for left in folder.parent.glob(f".{folder.name}.*{UNFINISHED}"):
        shutil.rmtree(left, ignore_errors=True)


def fill_folder(folder: Path, make: Callable[[Path], None], check: Callable[[], None] = lambda: None) -> None:
    """Makes a folder with its content, all or nothing: an error or a kill leaves none of it under its name.

    A folder that is there already is replaced at the end. `check` has the last word before that.
    """
    unfinished = None
    with writing(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=UNFINISHED))
            unfinished.chmod(0o755)
            made = unfinished / "made"
            made.mkdir()
            make(made)
            for path in (*made.rglob("*"), made):
                force_to_disk(path)
            check()
            if folder.is_dir():
                os.rename(folder, unfinished / "old")
            os.rename(made, folder)
            force_to_disk(folder.parent)
        finally:
            if unfinished is not None:
                shutil.rmtree(unfinished, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file in a second place without a second copy where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
