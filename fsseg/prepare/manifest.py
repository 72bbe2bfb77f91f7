"""`manifest.json`: what every prepared case was made of and how. No times, no machine's paths: equal input, equal file."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsseg.data.datasets.finding import file_problem
from fsseg.errors import DataError
from fsseg.prepare.foreign import require_near
from fsseg.prepare.plan import CasePlan, Plan, Prepared
from fsseg.system.files import write_text
from fsseg.system.text import read_json_text

FILE_NAME = "manifest.json"

PREPARE_VERSION = 1
"""Raised whenever the same source and options would give other files: finished cases are then made again."""

PERCENTILES = (0, 1, 50, 99, 99.5, 100)
"""Those of an image's intensities that a record tells."""

LabelText = Annotated[str, Field(pattern=r"^\d{1,5}$")]
"""A label value as a key of JSON."""

Record = dict[str, Any]
"""Of a case, what it was made of and how; plain JSON values."""


class StoredRecord(BaseModel):
    """What a file says of a case: see `source_of` and `result_of`."""

    model_config = ConfigDict(extra="allow")
    prepare_version: int
    options: dict[str, Any]
    sources: dict[str, str]
    outputs: dict[str, str]
    steps: list[str]
    before: dict[str, Any]
    after: dict[str, Any]
    intensity_percentiles: dict[str, float]
    voxels: dict[LabelText, Annotated[int, Field(ge=0)]]


class Stored(BaseModel):
    """The contents of a manifest's file, besides the versions that it was written with."""

    layout: str
    description: str
    classes: dict[str, int | list[int]]
    cases: dict[str, StoredRecord]


@dataclass
class Manifest:
    """The manifest of an output folder, in memory.

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
        """Returns the manifest in the file, or None where there is no file; raises DataError for one of another kind."""
        if not os.path.lexists(path):
            return None
        table = read_json_text(path, DataError)
        try:
            stored = Stored.model_validate(table, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "it"
            raise DataError(
                f"{path}: is no manifest of fsseg prepare ({place}: {first['msg']}); expected the one it wrote, restore it or "
                "choose another --out"
            ) from None
        return cls(path, stored.layout, stored.description, stored.classes, table["cases"])

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
    """Returns the part of a record that decides whether a finished case is still good.

    Raises:
        DataError: A file is none, or a header names one outside the folder.
    """
    files: dict[str, str] = {}
    for path in (*plan.image, *plan.label):
        problem = file_problem(path)
        if problem is not None:
            raise DataError(f"{path}: {problem}")
        require_near(path, source)
        # Not Path.relative_to: a dataset.json may list files elsewhere.
        place = Path(os.path.relpath(path, source))
        files[place.as_posix()] = checksum(path)
    return {"prepare_version": PREPARE_VERSION, "options": plan.options, "sources": files}


def result_of(prepared: Prepared, outputs: dict[str, str]) -> Record:
    """Returns the part of a record that says what was made.

    Args:
        prepared: The case.
        outputs: Checksums of its files, by their place below the output folder.
    """
    values, counts = np.unique(prepared.label.voxels, return_counts=True)
    limits = np.percentile(prepared.image.voxels, PERCENTILES)
    return {
        "outputs": outputs,
        "steps": prepared.steps,
        **({"notes": list(prepared.notes)} if prepared.notes else {}),
        "before": prepared.before,
        "after": prepared.image.geometry(),
        "intensity_percentiles": {
            f"{percent:g}": round(float(limit), 4) for percent, limit in zip(PERCENTILES, limits)
        },
        "voxels": {str(int(value)): int(count) for value, count in zip(values, counts)},
    }


def is_current(record: Record | None, source: Record, out: Path, names: set[str]) -> bool:
    """Returns whether a case was made of these sources and its files are as they were written.

    Args:
        record: What an earlier run has recorded, if one did.
        source: What `source_of` says now.
        out: The output folder.
        names: The files that a case consists of, by their place below that folder.
    """
    if record is None or any(record.get(key) != value for key, value in source.items()):
        return False
    outputs = record["outputs"]
    if set(outputs) != names:
        return False
    return all(_is_as_written(out / name, written) for name, written in outputs.items())


def _is_as_written(path: Path, written: str) -> bool:
    return path.is_file() and checksum(path) == written


def checksum(path: Path) -> str:
    """Returns the SHA-256 digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_manifest(plan: Plan, out: Path) -> Manifest:
    """Returns the folder's manifest, a new one in a new folder.

    Raises:
        DataError: The folder is of another layout, or holds images that fsseg prepare did not write.
    """
    manifest = Manifest.load(out / FILE_NAME)
    if manifest is None:
        _refuse_files_of_others(plan, out)
        return Manifest(out / FILE_NAME, plan.layout)
    if manifest.layout != plan.layout:
        raise DataError(
            f"{out}: holds a dataset of the layout {manifest.layout}, expected {plan.layout} or an empty folder; "
            "choose another --out"
        )
    return manifest


def _refuse_files_of_others(plan: Plan, out: Path) -> None:
    for case in plan.cases:
        for pattern in (plan.image, plan.label):
            path = out / pattern.format(case=case.case)
            if path.exists():
                raise DataError(
                    f"{path}: exists and was not written by fsseg prepare (there is no {FILE_NAME}); "
                    "choose an empty folder with --out"
                )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
