"""Stage keys and the folders that hold finished stages, so that recipes share what they have in common."""

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fsseg.options import schema
from fsseg.plugins import registry
from fsseg.recipe import fingerprint
from fsseg.records import UNFINISHED, writing

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


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for library in libraries:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def source_digest() -> str:
    """A hash of fsseg's own source."""
    return _digest(Path(__file__).parent.rglob("*.py"))


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
    folder = Path(__file__).parent
    source = _digest([*(folder / "data").glob("*.py"), folder / "grids.py"])
    libraries = _versions(("numpy", "nibabel", "torch"))
    return fingerprint([component_identity("dataset", dataset, {}), source, libraries, grid])


def supervoxel_identity(name: str, options: dict[str, Any]) -> str:
    """What supervoxels are kept by, besides the scan and their least size, however the options were written."""
    defaults = schema(registry().find("supervoxels", name).load())(**options).model_dump()
    defaults.pop("min_size", None)
    libraries = _versions(("numpy", "scipy", "scikit-image"))
    return fingerprint([component_identity("supervoxels", name, defaults), libraries])


def stage_folder(runs: Path, stage: str, identity: dict[str, Any], make: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder of a finished stage, made if it is not there yet.

    Args:
        runs: Where runs are kept; stages are shared below it.
        stage: The stage's name.
        identity: All that the stage depends on.
        make: Fills an empty folder with the stage's files.

    Returns:
        The folder, and whether it was there already.
    """
    folder = stage_path(runs, stage, identity)
    if folder.is_dir():
        return folder, True
    fill_folder(folder, make)
    return folder, False


def stage_path(runs: Path, stage: str, identity: dict[str, Any]) -> Path:
    """Where a stage is once it is finished."""
    return runs / "stages" / f"{stage}-{fingerprint(identity)[:16]}"


def fill_folder(folder: Path, make: Callable[[Path], None]) -> None:
    """Makes a folder with its content, all or nothing: an error or a kill leaves none of it under its name."""
    unfinished = None
    with writing(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=UNFINISHED))
            unfinished.chmod(0o755)
            make(unfinished)
            os.rename(unfinished, folder)
        finally:
            if unfinished is not None:
                shutil.rmtree(unfinished, ignore_errors=True)  # it is there no more when all went well


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file in a second place without a second copy where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
