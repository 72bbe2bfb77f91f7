"""Text that people bring: UTF-8, with or without a byte order mark, and what TOML and JSON say in it."""

import codecs
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from fsseg.errors import FssegError

MOST_BYTES = 2**28
"""A longer file is no text that a person wrote."""

MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks of other encodings; that of UTF-32 begins as that of UTF-16 does."""


def read_text(path: Path, error: type[FssegError] = FssegError) -> str:
    """Returns the text of a file in UTF-8, without its byte order mark and with `\\n` for line ends.

    Args:
        path: The file.
        error: What is raised; of another kind for recipes than for data.

    Raises:
        FssegError: The file cannot be read, is longer than any text, or is of another encoding.
    """
    try:
        if not path.is_file():
            _refuse_what_is_no_file(path, error)
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise error(
                f"{path}: has {size} bytes, expected a text of at most {MOST_BYTES}; is it the right file?"
            )
        content = path.read_bytes()
    except OSError as problem:
        reason = problem.strerror or problem
        raise error(
            f"{path}: cannot be read ({reason}); expected a text file, check its name and rights"
        ) from None
    return decode(content, path, error)


def decode(content: bytes, where: object, error: type[FssegError] = FssegError) -> str:
    """Returns the text of some bytes, as `read_text` does; `where` stands in front of messages."""
    for mark, name in MARKS.items():
        if content.startswith(mark):
            raise error(f"{where}: is {name}, expected UTF-8; save it anew as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        byte = content[problem.start]
        raise error(
            f"{where}: line {line} has the byte 0x{byte:02X}, which is no UTF-8 (is it Latin-1 or Windows-1252?); "
            "save it anew as UTF-8"
        ) from None
    if "\0" in text:
        raise error(
            f"{where}: has NUL bytes, expected text in UTF-8 (is it UTF-16?); save it anew as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_toml(path: Path, error: type[FssegError] = FssegError) -> dict[str, Any]:
    """Returns the tables of a TOML file; raises `error` with a sentence where it cannot be read or is no TOML."""
    text = read_text(path, error)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as problem:  # also of numbers with thousands of digits
        raise error(f"{path}: not valid TOML: {_reason(problem)}; correct the file") from None


def read_json_text(path: Path, error: type[FssegError] = FssegError) -> Any:
    """Returns the value of a JSON file that a person or another program wrote.

    A key that is there twice, NaN and Infinity are refused: readers of JSON differ in what they make of them.

    Raises:
        FssegError: As `error`, with a sentence, where the file cannot be read or is no JSON.
    """
    text = read_text(path, error)
    try:
        return json.loads(text, object_pairs_hook=_table_of, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: not valid JSON: {_reason(problem)}; correct the file") from None


def _reason(problem: Exception) -> str:
    if isinstance(problem, RecursionError):
        return "tables within tables without end"
    return " ".join(str(problem).split())


def _table_of(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!r} is there twice")
        table[key] = value
    return table


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _refuse_what_is_no_file(path: Path, error: type[FssegError]) -> None:
    """Says what is at a path where no file is."""
    if path.is_symlink() and not path.exists():
        raise error(
            f"{path}: is a link to {path.readlink()}, where nothing is; expected a text file, mend the link"
        )
    if path.is_dir():
        raise error(f"{path}: is a folder, expected a text file; name the file in it")
    if path.exists():
        raise error(f"{path}: is a pipe or a device, expected a text file; copy it into one")
    raise error(f"{path}: there is no such file; expected a text file, check its name")
