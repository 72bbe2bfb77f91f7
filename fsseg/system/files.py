"""What a run writes to its files. Plain values, no torch, so that tables and reports load fast."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsseg.errors import FssegError


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Writes dataclasses or dictionaries as JSON lines, all or nothing."""
    lines = [
        json.dumps(record if isinstance(record, dict) else asdict(record)) for record in records
    ]
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
            handle, name = tempfile.mkstemp(
                dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED
            )
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
        if error.errno not in {
            errno.EINVAL,
            errno.ENOTSUP,
        }:  # some file systems have nothing to wait for
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
            sentence = (
                f"{path}: cannot be written ({reason}); expected a writable folder, choose another"
            )
        else:
            raise
        raise FssegError(sentence) from None


def _umask() -> int:
    """What new files are denied; mkstemp denies more, and the finished file should be an ordinary one."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def fingerprint(value: Any) -> str:
    """A hash of plain values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def sweep(folder: Path) -> None:
    """Removes what processes that were killed left of this folder."""
    for left in folder.parent.glob(f".{folder.name}.*{UNFINISHED}"):
        shutil.rmtree(left, ignore_errors=True)


def fill_folder(
    folder: Path, make: Callable[[Path], None], check: Callable[[], None] = lambda: None
) -> None:
    """Makes a folder with its content, all or nothing: an error or a kill leaves none of it under its name.

    A folder that is there already is replaced at the end. `check` has the last word before that.
    """
    with _filled(folder, make) as content:
        check()
        if folder.is_dir():
            os.rename(folder, content.with_name("old"))
        os.rename(content, folder)


def fill_new_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    """Makes a folder as `fill_folder` does, but under a name that nobody has: NAME, or NAME-2, NAME-3, ...

    Two processes that ask for one name at the same time get two folders.

    Returns:
        The folder.
    """
    with _filled(folder, make) as content:
        number = 1
        free = folder
        while not _rename_to_new(content, free):
            number += 1
            free = folder.with_name(f"{folder.name}-{number}")
        return free


@contextmanager
def _filled(folder: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """The content of a folder, on the disk beside the place where it will lie; removed if it does not get there."""
    unfinished = None
    with writing(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(
                tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=UNFINISHED)
            )
            unfinished.chmod(0o755)
            content = unfinished / "made"
            content.mkdir()
            make(content)
            for path in (*content.rglob("*"), content):
                force_to_disk(path)
            yield content
            force_to_disk(folder.parent)
        finally:
            if unfinished is not None:
                shutil.rmtree(unfinished, ignore_errors=True)


def _rename_to_new(content: Path, folder: Path) -> bool:
    """Gives a folder a name unless something has it: the system renames no folder over one that holds something."""
    if folder.exists():
        return False
    try:
        os.rename(content, folder)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file in a second place without a second copy where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
