"""New plugins: a complete package with a component that works (`fsseg plugin new`)."""

import importlib.metadata
import json
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import unquote, urlparse

from fsseg.errors import FssegError
from fsseg.plugins.manager import registry
from fsseg.plugins.options import nearest
from fsseg.plugins.registry import KINDS
from fsseg.system.files import fill_folder, write_text

TEMPLATES = Path(__file__).parent / "templates"

USAGE = {
    "dataset": "In a recipe:\n\n    [dataset]\n    name = \"$name\"",
    "supervoxels": "In a recipe:\n\n    [supervoxels]\n    name = \"$name\"",
    "intensity": "In a recipe:\n\n    [intensity]\n    name = \"$name\"",
    "episodes": 'In a recipe:\n\n    [episodes]\n    source = "$name"',
    "augmentation": 'In a recipe, behind those that the list has:\n\n    [episodes]\n    augmentations = ["gamma", "warp", "$name"]',
    "backbone": "In a recipe:\n\n    [backbone]\n    name = \"$name\"",
    "prototypes": 'In a recipe, for training and in the rows to evaluate with it:\n\n    [training]\n    prototypes = "$name"\n\n'
    '    [[variants]]\n    name = "My row"\n    prototypes = "$name"\n    threshold = "ce_t"',
    "head": 'In a recipe, for training and in the rows to evaluate with it:\n\n    [training]\n    head = "$name"\n\n'
    '    [[variants]]\n    name = "My row"\n    head = "$name"\n    threshold = "ce_t"',
    "segmenter": 'In a recipe, as one more row, without prototypes and head:\n\n    [[variants]]\n    name = "My row"\n'
    '    segmenter = "$name"\n    threshold = "lin_est"',
    "loss": 'In a recipe, beside the usual losses:\n\n    [training]\n    losses = ["query", "alignment", '
    '{ name = "$name", weight = 0.5 }]',
    "optimiser": "In a recipe:\n\n    [training.optimiser]\n    name = \"$name\"",
    "schedule": 'In a recipe:\n\n    [training]\n    schedule = "$name"',
    "threshold": 'In a recipe, as one more row:\n\n    [[variants]]\n    name = "My row"\n    threshold = "$name"',
    "refiner": 'In a recipe, in one more row:\n\n    [[variants]]\n    name = "My row"\n    threshold = "lin_est"\n    refiners = "$name"',
    "folds": "In a recipe:\n\n    [protocol]\n    folds = \"$name\"",
    "protocol": "In a recipe:\n\n    [protocol]\n    name = \"$name\"",
    "metric": 'In a recipe, at the top:\n\n    metrics = ["$name"]',
    "tracker": 'In a recipe, at the top:\n\n    trackers = ["$name"]',
}  # fmt: skip


@dataclass(frozen=True)
class NewPlugin:
    """A package that was written.

    Attributes:
        distribution: The distribution's name.
        folder: The folder that holds it.
        files: Its files, seen from there.
    """

    distribution: str
    folder: Path
    files: list[Path]


def write_plugin(kind: str, name: str, folder: Path | None = None) -> NewPlugin:
    """Writes a package with a component of this kind that works, and a test that runs its contract checks.

    Args:
        kind: The kind of component.
        name: Its name in recipes: small letters, digits and underscores.
        folder: The folder to write, `fsseg-NAME` in the working folder when omitted; it must not exist yet.

    Raises:
        FssegError: There is no such kind, the name cannot be used or is taken, or the folder is there already.
    """
    _check(kind, name)
    distribution = f"fsseg-{name.replace('_', '-')}"
    folder = folder or Path(distribution)
    if folder.exists():
        raise FssegError(
            f"{folder}: it is there already, and nothing is overwritten; choose another with --dir"
        )
    words = _words(kind, name, distribution)
    files = _templates(kind, name, words["package"])

    def fill(unfinished: Path) -> None:
        for path, template in files.items():
            text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
            write_text(unfinished / path, Template(text).substitute(words))

    fill_folder(folder, fill)
    return NewPlugin(distribution, folder, list(files))


def _words(kind: str, name: str, distribution: str) -> dict[str, str]:
    """The values of the templates' placeholders."""
    return {
        "kind": kind,
        "name": name,
        "distribution": distribution,
        "package": f"fsseg_{name}",
        "module": name,
        "Class": "".join(part.capitalize() for part in name.split("_")),
        "hook": KINDS[kind],
        "sources": _sources(),
        "usage": Template(USAGE[kind]).substitute(name=name),
    }


def _templates(kind: str, name: str, package: str) -> dict[Path, str]:
    """The template of each file."""
    return {
        Path("pyproject.toml"): "pyproject.toml",
        Path("README.md"): "README.md",
        Path(package, "__init__.py"): "__init__.py",
        Path(package, f"{name}.py"): f"{kind}.py",
        Path("tests", f"test_{name}.py"): "test.py",
    }


def _check(kind: str, name: str) -> None:
    if kind not in KINDS:
        raise FssegError(f"there is no kind of component {kind!r}; {nearest(kind, list(KINDS))}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise FssegError(
            f"{name!r}: expected small letters, digits and single underscores, such as my_{kind}"
        )
    if name in registry().names(kind):
        taken = registry().find(kind, name)
        raise FssegError(
            f"there is a {kind} {name!r} already, of {taken.distribution}; choose another name"
        )


def _sources() -> str:
    """The table of pyproject.toml that says where fsseg is, if this one is a checkout and not from a package index."""
    text = importlib.metadata.distribution("fsseg").read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    if "dir_info" not in origin:
        return ""
    path = unquote(urlparse(origin["url"]).path)
    lines = [
        "",
        "# The checkout of fsseg that wrote this; take it out once fsseg comes from a package index.",
        "[tool.uv.sources]",
        f"fsseg = {{ path = {json.dumps(path)}, editable = true }}",
        "",
    ]
    return "\n".join(lines)
