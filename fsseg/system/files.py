"""Files and folders that are whole or not there, records in them, and fingerprints. Loads no torch: tables load fast."""

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
from fsseg.system.targets import end_of_links, is_special, pour, require_file
from fsseg.system.unfinished import unfinished_name

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
MISPLACED = {errno.ENOTDIR, errno.EEXIST}
UNNAMEABLE = {errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR}
TAKEN = {errno.ENOTEMPTY, errno.EEXIST}
NOTHING_TO_WAIT_FOR = {errno.EINVAL, errno.ENOTSUP}
"""What the system says of a disk that is full, a place that cannot be written, a file where a folder is expected, a name
that no file can have, a name that a folder has already, and of file systems without a disk behind them."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says about writing to `path` into one sentence; other errors stay what they are."""
    try:
        yield
    except OSError as error:
        sentence = _explain(error, path)
        if sentence is None:
            raise
        raise FssegError(sentence) from None


def _explain(error: OSError, path: Path) -> str | None:
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return f"{path}: the disk is full or the file too large ({reason}); make room or choose another folder"
    if error.errno in MISPLACED:
        return (
            f"{path.parent}: a file is where a folder is expected ({reason}); choose another folder"
        )
    if error.errno in UNNAMEABLE:
        return f"{path}: cannot be the name of a file here ({reason}); choose another"
    if error.errno in REFUSED:
        return f"{path}: cannot be written ({reason}); expected a writable folder, choose another"
    return None


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary file beside `path` that takes its place at the end, or is removed on any exception.

    A link stays, and the file that it leads to is replaced; the content is written to a device or a pipe.

    Args:
        path: The file.
        durable: Whether it is on the disk before it has its name, so that not even a power failure leaves half of it.

    Raises:
        FssegError: The path is a folder, cannot be written, or the disk is full.
    """
    require_file(path)
    special = is_special(path)
    target = path if special else end_of_links(path)
    home = Path(tempfile.gettempdir()) if special else target.parent
    temporary = None
    with writing(path):
        try:
            temporary = _temporary(home, target.name, path)
            yield temporary
            if special:
                pour(temporary, path)
            else:
                _put(temporary, target, durable)
        finally:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)


def _temporary(home: Path, name: str, path: Path) -> Path:
    """An empty file with a name of its own in a folder; raises FssegError, naming `path`, where there is no such folder."""
    home.mkdir(parents=True, exist_ok=True)
    file = home / unfinished_name(name)
    try:
        file.touch(0o600, exist_ok=False)
    except FileNotFoundError as error:
        raise FssegError(
            f"{path}: cannot be made ({error.strerror}), expected a folder that takes files; choose another"
        ) from None
    return file


def _put(temporary: Path, target: Path, durable: bool) -> None:
    """Gives a finished file its name."""
    temporary.chmod(0o666 & ~_umask())
    if durable:
        force_to_disk(temporary)
    os.replace(temporary, target)
    if durable:
        force_to_disk(target.parent)


def _umask() -> int:
    """What new files are denied; the unfinished one denies more, and the finished file should be an ordinary one."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def force_to_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NOTHING_TO_WAIT_FOR:
            raise
    finally:
        os.close(handle)


def fill_folder(
    folder: Path, make: Callable[[Path], None], check: Callable[[], None] = lambda: None
) -> None:
    """Makes a folder with its content, all or nothing: an error or a kill leaves none of it under its name.

    A folder that is there already is replaced at the end.

    Args:
        folder: The folder.
        make: Fills an empty one.
        check: Has the last word before it gets its name.
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
            unfinished = folder.with_name(unfinished_name(folder.name))
            content = unfinished / "made"
            content.mkdir(parents=True)
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
        if error.errno in TAKEN:
            return False
        raise
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file in a second place, without a second copy where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, all or nothing: a reader never sees half of it."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, all or nothing."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Writes dataclasses or dictionaries as JSON lines, all or nothing."""
    lines: list[str] = []
    for record in records:
        values = record if isinstance(record, dict) else asdict(record)
        lines.append(json.dumps(values) + "\n")
    write_text(path, "".join(lines))


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises FssegError for a damaged one."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines; raises FssegError for a damaged file."""
    with reading(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return [dict(json.loads(line)) for line in lines]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what is wrong with the content of a file that fsseg wrote into one sentence."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FssegError(
            f"{path}: damaged ({str(error) or 'no JSON'}), expected what fsseg wrote; run the recipe again with --fresh"
        ) from None


def fingerprint(value: Any) -> str:
    """Returns a hash of plain values, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
