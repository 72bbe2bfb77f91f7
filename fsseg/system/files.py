"""What a run writes to its files. Plain values, no torch, so that tables and reports load fast."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
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
        support_slices: Its labelled slices.
        intersection: Voxels that are the class in truth and prediction.
        predicted: Voxels predicted as the class.
        actual: Voxels of the class in the ground truth.
        measures: By name, the values of the recipe's metrics; None where one is not defined.
    """

    variant: str
    oracle: bool
    fold: int
    seed: int
    case: str
    class_name: str
    support_case: str
    support_slices: tuple[int, ...]
    intersection: int
    predicted: int
    actual: int
    measures: dict[str, float | None] = field(default_factory=dict)

    @property
    def dice(self) -> float:
        """Dice over the scan's voxels; NaN where the class is in neither truth nor prediction."""
        total = self.predicted + self.actual
        return 2 * self.intersection / total if total else math.nan


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Writes dataclasses or dictionaries as JSON lines, all or nothing."""
    lines = [json.dumps(record if isinstance(record, dict) else asdict(record)) for record in records]
    write_text(path, "".join(line + "\n" for line in lines))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what is wrong with the content of a file that fsseg wrote into one sentence."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FssegError(
            f"{path}: damaged ({str(error) or 'no JSON'}), expected what fsseg wrote; run the recipe again with --fresh"
        ) from None


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises FssegError for a damaged one."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines; raises FssegError for a damaged file."""
    with reading(path):
        return [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


SCORES = "scores.jsonl"
"""The file of a run's or an evaluation's scores."""


def read_scores(path: Path) -> list[CaseScore]:
    """Reads scores that `write_lines` wrote; raises FssegError for a damaged file."""
    with reading(path):
        return [CaseScore(**{**line, "support_slices": tuple(line["support_slices"])}) for line in read_lines(path)]


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, all or nothing."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file, all or nothing: a reader never sees half of it."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


UNFINISHED = ".unfinished"
"""What the names of files and folders end with until they are finished."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
MISPLACED = {errno.ENOTDIR, errno.EEXIST}


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or is removed on any exception.

    With `durable`, it is on the disk before it does, so that not even a power failure leaves half of it.

    Raises FssegError for a folder that cannot be written and for a full disk.
    """
    temporary = None
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            if durable:
                force_to_disk(temporary)
            os.replace(temporary, path)
            if durable:
                force_to_disk(path.parent)
        finally:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)


def force_to_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some file systems have nothing to wait for
            raise
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says about writing to `path` into one sentence; other errors stay what they are."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            sentence = f"{path}: the disk is full or the file too large ({reason}); make room or choose another folder"
        elif error.errno in MISPLACED:
            sentence = f"{path.parent}: a file is where a folder is expected ({reason}); choose another folder"
        elif error.errno in REFUSED:
            sentence = f"{path}: cannot be written ({reason}); expected a writable folder, choose another"
        else:
            raise
        raise FssegError(sentence) from None


def _umask() -> int:
    """What new files are denied; mkstemp denies more, and the finished file should be an ordinary one."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
