"""Patterns with `{case}` in them: how the path of a file tells the id of its case."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath

from fsseg.errors import DataError

MOST_WILDCARDS = 16
LONGEST = 1000
"""Limits of a pattern, far above what paths of scans need."""

STEPS_AT_FIRST = 100_000
STEPS_PER_PATH = 100
"""How many steps matching may take altogether: a usual pattern takes ten for a path."""


class Wildcard(Enum):
    """What stands for other text in a pattern."""

    CASE = "{case}"
    NAME = "*"
    FOLDERS = "**/"


Token = str | Wildcard


class TooManySteps(Exception):
    """A pattern fits a path in so many ways that trying all would take minutes."""


class Steps:
    """What is left of the steps that matching may take: some at first, and some more with every path."""

    def __init__(self) -> None:
        self._left = STEPS_AT_FIRST

    def begin_path(self) -> None:
        """Adds what one more path may take."""
        self._left += STEPS_PER_PATH

    def take(self) -> None:
        """Takes one; raises TooManySteps where none is left."""
        self._left -= 1
        if self._left < 0:
            raise TooManySteps


@dataclass(frozen=True)
class Pattern:
    """A path below a folder. `{case}` stands for the id, `*` for anything within a name, `**/` for any folders.

    The id is any text within one name, the same wherever the pattern repeats it. Letters count as they look, however
    they are encoded (Unicode's form NFC). `./` and `//` say nothing.

    Args:
        text: The pattern.

    Raises:
        DataError: It leads out of the folder, lacks `{case}`, or has too many wildcards.

    Example:
        >>> Pattern("sub-{case}/sub-{case}_T2w.nii.gz").case_of("sub-7/sub-7_T2w.nii.gz")
        '7'
    """

    text: str
    names: tuple[str, ...] = field(init=False, compare=False)
    tokens: tuple[Token, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        problem = pattern_problem(self.text)
        if problem is not None:
            raise DataError(f"pattern {self.text!r} {problem}")
        names = _names(self.text)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "tokens", tuple(_tokens(names)))

    @property
    def is_deep(self) -> bool:
        """True where `**/` stands for any number of folders."""
        return Wildcard.FOLDERS in self.tokens

    @property
    def weight(self) -> int:
        """How many letters it says: of two patterns that fit one path, the heavier one says what the file is."""
        return sum(len(token) for token in self.tokens if isinstance(token, str))

    def case_of(self, path: str, steps: Steps | None = None) -> str | None:
        """Returns the id in a path, or None where the pattern does not fit.

        Args:
            path: Below the folder, with `/` between names.
            steps: What is left of the steps that matching may take; a new count when omitted.

        Raises:
            TooManySteps: None is left.
        """
        steps = steps or Steps()
        steps.begin_path()
        return _Match(self.tokens, composed(path), steps).search(0, 0, None)


def pattern_problem(text: str) -> str | None:
    """Returns what is wrong with the text of a pattern, and what to do; None where nothing is."""
    count = len(re.findall(r"\{case\}|\*+", text))
    if Wildcard.CASE.value not in text:
        return "lacks {case}, expected it where the id is; write for example images/{case}.nii.gz"
    if "{{case}}" in text:
        return "has {{case}}, expected single braces; write {case}"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        return "has control characters, expected a path; remove them"
    if "\\" in text:
        return "has a backslash, expected / between folders; replace it"
    if text.startswith(("/", "~")):
        return "is an absolute path, expected one below the folder; leave the folder's own path out"
    if ".." in PurePosixPath(text).parts:
        return "leads out of the folder, expected a path below it; leave .. out"
    if count > MOST_WILDCARDS or len(text) > LONGEST:
        return (
            f"has {count} wildcards and {len(text)} letters, expected at most {MOST_WILDCARDS} and {LONGEST}; "
            "shorten it"
        )
    return None


def composed(text: str) -> str:
    """Returns the text in Unicode's form NFC, in which letters that look the same are the same."""
    return unicodedata.normalize("NFC", text)


def by_number(case: str) -> tuple[tuple[int, int | str], ...]:
    """Returns a key that sorts ids by the numbers in them.

    Example:
        >>> sorted(["scan_10", "scan_9"], key=by_number)
        ['scan_9', 'scan_10']
    """
    parts: list[tuple[int, int | str]] = []
    for part in re.split(r"(\d+)", case):
        if part.isdecimal():
            parts.append((0, int(part)))
        elif part:
            parts.append((1, part))
    return tuple(parts)


def _names(text: str) -> tuple[str, ...]:
    """The pattern of each folder and of the file, in order; stars that follow one another count once."""
    names: list[str] = []
    for name in composed(text).split("/"):
        is_same = name == "**" and names[-1:] == ["**"]
        if name in ("", ".") or is_same:
            continue
        names.append(name if name == "**" else re.sub(r"\*+", "*", name))
    if names[-1:] == ["**"]:  # no folder follows it
        names[-1] = "*"
    return tuple(names)


def _tokens(names: tuple[str, ...]) -> list[Token]:
    """The pattern in pieces, without two texts that follow one another."""
    tokens: list[Token] = []
    last = len(names) - 1
    for place, name in enumerate(names):
        if name == "**":
            tokens.append(Wildcard.FOLDERS)
            continue
        whole = name if place == last else f"{name}/"
        for part in re.split(r"(\{case\}|\*)", whole):
            if part in (Wildcard.CASE.value, Wildcard.NAME.value):
                tokens.append(Wildcard(part))
            elif part and tokens and isinstance(tokens[-1], str):
                tokens[-1] += part
            elif part:
                tokens.append(part)
    return tokens


class _Match:
    """A search for the id in one path; the longest text is tried first, and no dead end twice."""

    def __init__(self, tokens: tuple[Token, ...], path: str, steps: Steps) -> None:
        self._tokens = tokens
        self._path = path
        self._steps = steps
        self._dead: set[tuple[int, int, str | None]] = set()
        self._last_case = max(place for place, token in enumerate(tokens) if token is Wildcard.CASE)

    def search(self, place: int, start: int, case: str | None) -> str | None:
        """Returns the id, if the tokens from `place` fit the path from `start`."""
        self._steps.take()
        if place == len(self._tokens):
            return case if start == len(self._path) else None
        is_repeated = place <= self._last_case
        dead_end = (place, start, case if is_repeated else None)
        if dead_end in self._dead:
            return None
        token = self._tokens[place]
        for end in self._ends(place, start, case):
            is_first = token is Wildcard.CASE and case is None
            told = self._path[start:end] if is_first else case
            match = self.search(place + 1, end, told)
            if match is not None:
                return match
        self._dead.add(dead_end)
        return None

    def _ends(self, place: int, start: int, case: str | None) -> Iterator[int]:
        """Where the text of a token that begins at `start` may end, the last first."""
        token = self._tokens[place]
        if token is Wildcard.FOLDERS:
            yield from self._ends_of_folders(start)
        elif token is Wildcard.NAME:
            yield from self._ends_in_name(place, start, start)
        elif token is Wildcard.CASE and case is None:
            yield from self._ends_in_name(place, start, start + 1)
        else:
            text = case if isinstance(token, Wildcard) else token
            assert text is not None, "an id that is repeated is known"
            if self._path.startswith(text, start):
                yield start + len(text)

    def _ends_of_folders(self, start: int) -> Iterator[int]:
        end = self._path.rfind("/", start)
        while end >= 0:
            yield end + 1
            end = self._path.rfind("/", start, end)
        yield start

    def _ends_in_name(self, place: int, start: int, first: int) -> Iterator[int]:
        """Of a wildcard within a name: only where what the pattern says next follows."""
        following = self._tokens[place + 1 : place + 2]
        text = following[0] if following and isinstance(following[0], str) else ""
        slash = self._path.find("/", start)
        last = slash if slash >= 0 else len(self._path)
        end = self._path.rfind(text, first, last + len(text))
        while end >= first:
            self._steps.take()
            yield end
            if end == first:
                return
            end = self._path.rfind(text, first, end + len(text) - 1)
