"""What a stage depends on, as plain values from which its key is made."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fsseg.plugins.manager import registry
from fsseg.plugins.options import schema
from fsseg.system.files import fingerprint

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
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
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
