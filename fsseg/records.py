"""What a run writes to its files. Plain values, no torch, so that tables and reports load fast."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsseg.errors import FssegError


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
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


UNFINISHED = ".unfinished-"
"""What the names of files and folders begin with until they are finished."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to; what is there in the end takes the place of `path`, or nothing does.

    The name ends as the path does, for libraries that go by it. Raises FssegError where the file cannot be written.
    """
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix=f"-{path.name}")
        os.close(handle)
        unfinished = Path(name)
        yield unfinished
        unfinished.chmod(0o644)
        os.replace(unfinished, path)
    except OSError as error:
        raise_if_unwritable(path, error)
        raise
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)


def raise_if_unwritable(path: Path, error: OSError) -> None:
    """Raises the FssegError for an error that says that a path cannot be written: the folder's or the disk's fault."""
    what_to_do = {
        errno.ENOSPC: "make room on the disk",
        errno.EDQUOT: "make room in your quota",
        errno.EFBIG: "raise the limit on the size of files, or make room",
        errno.EROFS: "choose a folder that can be written to",
        errno.EACCES: "choose a folder that can be written to",
        errno.EPERM: "choose a folder that can be written to",
        errno.ENOTDIR: "choose another folder",
        errno.EEXIST: "choose another folder",
    }
    if error.errno in what_to_do:
        raise FssegError(
            f"{path}: cannot be written ({os.strerror(error.errno).lower()}), nothing of it is left; {what_to_do[error.errno]}"
        ) from None
