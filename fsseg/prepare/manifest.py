"""`manifest.json`: what every prepared case was made of and how. No times, no machine's paths: equal input, equal file."""

import json
import os
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fsseg.errors import DataError
from fsseg.prepare.plan import CasePlan, Plan, Prepared
from fsseg.prepare.save import checksum
from fsseg.system.files import write_text

FILE_NAME = "manifest.json"

PREPARE_VERSION = 1
"""Raised whenever the same source and options would give other files: finished cases are then made again."""

PERCENTILES = (0, 1, 50, 99, 99.5, 100)

Record = dict[str, Any]


@dataclass
class Manifest:
    """The manifest of an output folder.

    Attributes:
        path: The file.
        layout: The layout that the folder holds.
        description: The checksum of the dataset.toml that was written last; empty if none was.
        classes: Class names and their values.
        cases: One record a case.
    """

    path: Path
    layout: str
    description: str = ""
    classes: dict[str, Any] = field(default_factory=dict)
    cases: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Manifest | None":
        """The manifest in the file, or None where there is no file; raises DataError for one of another kind."""
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                path,
                stored["layout"],
                stored["description"],
                stored["classes"],
                dict(stored["cases"]),
            )
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}: is no manifest of fsseg prepare; expected the one it wrote, restore it or choose another --out"
            ) from None

    def save(self) -> None:
        """Writes the file, all or nothing."""
        contents = {
            "layout": self.layout,
            "fsseg": _version("fsseg"),
            "prepare_version": PREPARE_VERSION,
            "simpleitk": _version("simpleitk"),
            "description": self.description,
            "classes": self.classes,
            "cases": dict(sorted(self.cases.items())),
        }
        write_text(self.path, json.dumps(contents, indent=1) + "\n")


def source_of(plan: CasePlan, source: Path) -> Record:
    """The part of a record that decides whether a finished case is still good."""
    # Not Path.relative_to: a dataset.json may list files elsewhere.
    files = {
        Path(os.path.relpath(path, source)).as_posix(): checksum(path)
        for path in (*plan.image, *plan.label)
    }
    return {"prepare_version": PREPARE_VERSION, "options": plan.options, "sources": files}


def result_of(prepared: Prepared, outputs: dict[str, str]) -> Record:
    """The part of a record that says what was made."""
    image, labels = prepared.image.voxels, prepared.label.voxels
    values, counts = np.unique(labels, return_counts=True)
    percentiles = np.percentile(image, PERCENTILES)
    return {
        "outputs": outputs,
        "steps": prepared.steps,
        "before": prepared.before,
        "after": prepared.image.geometry(),
        "intensity_percentiles": {
            f"{q:g}": round(float(p), 4) for q, p in zip(PERCENTILES, percentiles)
        },
        "voxels": {str(int(value)): int(count) for value, count in zip(values, counts)},
    }


def is_current(record: Record | None, source: Record, out: Path) -> bool:
    """Whether a case was made of these sources and its files are as they were written."""
    if record is None or any(record.get(key) != value for key, value in source.items()):
        return False
    files = record.get("outputs") or {"": ""}
    return all(
        (out / name).is_file() and checksum(out / name) == written
        for name, written in files.items()
    )


def open_manifest(plan: Plan, out: Path) -> Manifest:
    """The folder's manifest, a new one in a new folder.

    Raises DataError for a folder of another layout, and for one whose images fsseg prepare did not write.
    """
    path = out / FILE_NAME
    manifest = Manifest.load(path)
    if manifest is None:
        names = [
            pattern.format(case=case.case)
            for case in plan.cases
            for pattern in (plan.image, plan.label)
        ]
        strange = next((name for name in names if (out / name).exists()), None)
        if strange:
            raise DataError(
                f"{out / strange}: exists and was not written by fsseg prepare (there is no {FILE_NAME}); "
                "choose an empty folder with --out"
            )
        manifest = Manifest(path, plan.layout)
    if manifest.layout != plan.layout:
        raise DataError(
            f"{out}: holds a dataset of the layout {manifest.layout}, expected {plan.layout} or an empty folder; "
            "choose another --out"
        )
    return manifest


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
