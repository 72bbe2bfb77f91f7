"""Names that people and plugins give: as names of files, as text on a terminal, and which of them cannot be used.

Names may hold letters of any script. What a terminal would obey, or what nobody can see, is refused where a name is
described, and shown by its number wherever a name comes from elsewhere.
"""

import base64
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from fsseg.errors import FssegError

LONGEST_FILE = 120
"""Bytes of a file's name without its ending; some file systems take no more than 143 with it."""

LONGEST_NAME = 200
"""Characters of a name."""

SHORTENED = 60
"""Characters that a message shows of a name that is too long."""

DEVICES = {
    *("con", "prn", "aux", "nul"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
}
"""Names that are devices on Windows, whatever they end with."""

UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of characters that break lines or steer a terminal, and of halves of characters."""

TURNS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of the text behind them."""


def file_name(*parts: str) -> str:
    """Returns the name of a file or folder for what these names together stand for, without an ending.

    Plain words (letters of any script, digits, `_`, `-` and dots within) keep their form and are joined by underscores.
    Everything else keeps its letters and digits and ends with `~` and a digest of the exact names, so that other names
    give other files. A name has at most 120 bytes, no separator, and is the same on every machine.

    Names that differ in nothing but capitals, and words that join to the same text, are told apart by `require_distinct`,
    which asks before anything is written.

    Example:
        >>> file_name("12", "right_kidney"), file_name("ADNet++")
        ('12_right_kidney', 'ADNet~7d5cwsogvj')
    """
    plain = "_".join(parts)
    are_plain = all(_is_plain(part) for part in parts)
    if are_plain and len(plain.encode()) <= LONGEST_FILE:
        return plain
    exact = json.dumps(parts).encode()
    digest = base64.b32encode(hashlib.sha256(exact).digest()).decode().lower()[:10]
    words = "_".join(_words(part) for part in parts)
    readable = _cut(words, LONGEST_FILE - len(digest) - 1)
    return f"{readable or '_'}~{digest}"


@lru_cache(maxsize=100_000)
def _is_plain(name: str) -> bool:
    is_word = name != "" and all(_is_letter(letter) or letter in "_.-" for letter in name)
    starts_and_ends_well = is_word and name[0] not in ".-" and name[-1] != "."
    is_normal = unicodedata.normalize("NFC", name) == name
    return starts_and_ends_well and is_normal and name.partition(".")[0].lower() not in DEVICES


def _is_letter(letter: str) -> bool:
    """Whether it is a letter, a mark on one (vowels of Indic scripts are marks), or a digit."""
    return unicodedata.category(letter)[0] in "LMN"


def _words(name: str) -> str:
    """The letters and digits of a name, with an underscore for all that is between them."""
    composed = unicodedata.normalize("NFC", name)
    kept = "".join(letter if _is_letter(letter) or letter == "-" else "_" for letter in composed)
    return re.sub("_+", "_", kept).strip("_-")


def _cut(text: str, size: int) -> str:
    """The beginning of a text that takes no more bytes than this."""
    return text.encode(errors="replace")[:size].decode(errors="ignore").rstrip("_-")


def shortened(file: str, most: int) -> str:
    """Returns the beginning of a file's name, so short (bytes) that a longer name can be made of it."""
    return _cut(file, most) if len(file.encode(errors="replace")) > most else file


def alike(name: str) -> str:
    """Returns the same for names that look the same, or that some file systems take for the same.

    Example:
        >>> alike("ADNet") == alike("adnet"), alike("é") == alike("e\\u0301")
        (True, True)
    """
    if name.isascii():
        return " ".join(name.casefold().split())
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def first_alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Returns the first two names that are `alike`, or None where all differ."""
    seen: dict[str, str] = {}
    for name in names:
        key = alike(name)
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def problem_of(name: str) -> str | None:
    """Returns why nothing can be called so, as the end of a sentence; None for a name that can be used.

    Example:
        >>> problem_of("right kidney"), problem_of(" liver")
        (None, 'begins or ends with a space, expected a name without')
    """
    if not name.strip():
        return "is empty, expected a name"
    if name != name.strip():
        return "begins or ends with a space, expected a name without"
    unseen = [letter for letter in name if _is_unseen(letter)]
    if unseen:
        return f"holds the character {_numbered(unseen[0])}, expected characters that can be seen"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters, expected at most {LONGEST_NAME}"
    return None


def told(name: str) -> str:
    """Returns a name as messages show it: in quotes, on one line, and not endless."""
    shown = name if len(name) <= SHORTENED else f"{name[:SHORTENED]}..."
    return repr(shown)


def visible(text: str) -> str:
    r"""Returns text in which characters that a terminal would obey are written by their numbers; line breaks stay.

    Example:
        >>> visible("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _numbered(letter) if _is_unseen(letter) and letter not in "\n\t" else letter
        for letter in text
    )


def _is_unseen(letter: str) -> bool:
    return unicodedata.category(letter) in UNSEEN or letter in TURNS


def _numbered(letter: str) -> str:
    return letter.encode("unicode_escape", errors="surrogatepass").decode()


def within(folder: Path, *parts: str | Path) -> Path:
    """Returns a path below a folder, whoever made its parts.

    Raises:
        FssegError: It leads out of the folder.
    """
    path = folder.joinpath(*parts)
    inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    if not inside or "\0" in str(path):
        named = Path(*parts) if parts else path
        raise FssegError(
            f"{told(str(named))}: leads out of the folder {folder}, expected a path within it; choose another name"
        )
    return path


def require_distinct(files: dict[str, str], what: str, remedy: str) -> None:
    """Checks that things with these file names have files of their own on every file system.

    Args:
        files: By what they are called, the names of their files.
        what: What they are, such as "rows".
        remedy: What to do, such as "rename one".

    Raises:
        FssegError: Two have files of one name, where capitals and the way that accents are stored do not count.
    """
    seen: dict[str, str] = {}
    for called, file in files.items():
        key = alike(file)
        if key in seen:
            raise FssegError(
                f"{what} {told(seen[key])} and {told(called)}: their files would both be called {file} "
                f"(capitals do not count everywhere), expected names that differ in more; {remedy}"
            )
        seen[key] = called
