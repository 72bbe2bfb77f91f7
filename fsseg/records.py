"""What a run writes to its files. Plain values, no torch, so that tables and reports load fast."""

import json
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CaseScore:
    """Voxel counts of one case, class and variant; ratios come last.

    Attributes:
        variant: The row it belongs to.
        oracle: Whether the variant used the ground truth.
        fold: Index of the fold.
        seed: Seed of the run.
        case: The query case.
        class_name: The class.
        support_case: The case that gave the support.
        support_slice: Its labelled slice.
        intersection: Voxels that are the class in truth and prediction.
        predicted: Voxels predicted as the class.
        actual: Voxels of the class in the ground truth.
    """

    variant: str
    oracle: bool
    fold: int
    seed: int
    case: str
    class_name: str
    support_case: str
    support_slice: int
    intersection: int
    predicted: int
    actual: int

    @property
    def dice(self) -> float:
        """Dice over the scan's voxels; NaN where the class is in neither truth nor prediction."""
        total = self.predicted + self.actual
        return 2 * self.intersection / total if total else math.nan


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Writes dataclasses or dictionaries as JSON lines, all or nothing."""
    lines = [json.dumps(record if isinstance(record, dict) else asdict(record)) for record in records]
    write_text(path, "".join(line + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, all or nothing."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file, all or nothing: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        file.write(text)
    os.replace(file.name, path)
