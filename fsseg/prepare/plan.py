"""The values between layouts and engine: which cases there are, how to make one, and what the finished dataset is."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsseg.data.class_names import problems_of_names
from fsseg.data.datasets.finding import unpaired
from fsseg.data.datasets.patterns import composed
from fsseg.errors import DataError
from fsseg.prepare.scan import Scan
from fsseg.system.names import file_name

LONGEST_ID = 200
"""Bytes of an id in the name of a file, which has a beginning and an ending and may have 255."""

Classes = dict[str, int | list[int]]
"""Label values by class."""


@dataclass(frozen=True)
class CasePlan:
    """One case of a dataset before it is made.

    Attributes:
        case: The id in the names of the output files.
        image: Files of the image.
        label: Files of the label map.
        options: Everything besides the files that decides the outputs; plain JSON values.
    """

    case: str
    image: tuple[Path, ...]
    label: tuple[Path, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """One case of a dataset as made, not yet written.

    Attributes:
        image: The image.
        label: Its label map, on the same grid.
        before: The source's shape, spacing and axis codes.
        steps: What was done, in words with their numbers.
        notes: What the user should know of it, a sentence each.
    """

    image: Scan
    label: Scan
    before: dict[str, Any]
    steps: list[str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A whole dataset before it is made.

    Attributes:
        layout: The layout's name.
        source: The folder with the raw scans; a manifest names source files relative to it.
        image: Path of an output image below the output folder, with `{case}`.
        label: Path of an output label map, likewise.
        cases: The cases.
        make: Makes one case; a function of a module, so that worker processes find it.
        describe: The contents of `dataset.toml` from the number of cases and the label values found in them, and
            notes for the user.
        notes: What the user should know before it starts.
    """

    layout: str
    source: Path
    image: str
    label: str
    cases: tuple[CasePlan, ...]
    make: Callable[[CasePlan], Prepared]
    describe: Callable[[int, list[int]], tuple[dict[str, Any], list[str]]]
    notes: tuple[str, ...] = ()


def check_source(source: Path, expected: str) -> None:
    """Raises DataError where there is no such folder."""
    if not source.is_dir():
        what = "is a file" if source.exists() else "there is no such folder"
        raise DataError(f"{source}: {what}; expected {expected}, give that folder with --source")


def first_folder(source: Path, places: Iterable[str], holds: str, expected: str) -> Path:
    """Returns the first of some folders below the source in which a pattern finds anything.

    Args:
        source: The folder with the raw scans.
        places: The folders, in the order of trying.
        holds: The pattern.
        expected: What the source should be, for messages.

    Raises:
        DataError: None of them has it.
    """
    check_source(source, expected)
    looked = [source / place for place in places]
    for folder in looked:
        if folder.is_dir() and next(folder.glob(holds), None) is not None:
            return folder
    places = ", ".join(str(folder) for folder in looked)
    raise DataError(
        f"{source}: found no {holds} in {places}; expected {expected}, give that folder with --source"
    )


def identifier(name: str) -> str:
    """Returns a name as lower-case words joined by underscores, letters of any script; empty where it has none.

    Example:
        >>> identifier("Left Kidney"), identifier("肝臓"), identifier("+")
        ('left_kidney', '肝臓', '')
    """
    lower = composed(composed(name).lower())
    letters = [letter if _is_letter(letter) else " " for letter in lower]
    words = "_".join("".join(letters).split())
    return f"class_{words}" if words[:1].isdigit() else words


def class_names(names: Sequence[str]) -> list[str]:
    """Returns what classes are called: their identifiers, but names as they are where identifiers would be alike.

    Example:
        >>> class_names(["Left Kidney", "tumor+", "tumor-"])
        ['left_kidney', 'tumor+', 'tumor-']
    """
    identifiers = [identifier(name) for name in names]
    counts = Counter(identifiers)
    called: list[str] = []
    for name, word in zip(names, identifiers):
        is_its_own = word != "" and counts[word] == 1
        called.append(word if is_its_own else composed(name).strip())
    return called


def name_classes(where: object, regions: Sequence[tuple[str, list[int]]]) -> Classes:
    """Returns label values by what their classes are called; raises DataError for two of one name.

    Args:
        where: What names them, for messages.
        regions: Names as they are written, and their values.
    """
    written: dict[str, str] = {}
    classes: Classes = {}
    names = [name for name, _ in regions]
    for called, (name, values) in zip(class_names(names), regions):
        if called in classes:
            raise DataError(
                f"{where}: the classes {written[called]!a} and {name!a} would both be called {called}, expected a name "
                "for each; rename one of them"
            )
        written[called] = name
        classes[called] = values[0] if len(values) == 1 else values
    problems = [f"{where}: {problem}" for problem in problems_of_names(classes)]
    if problems:
        raise DataError("\n".join(problems))
    return classes


def file_ids(cases: Iterable[str], where: object) -> dict[str, str]:
    """Returns ids as parts of file names, by id; raises DataError where two become the same.

    Letters of any script, digits, dots, dashes and underscores stay; an underscore takes the place of all else. Of a name
    that is too long for a file, its beginning stays, and a digest tells it from others.
    """
    ids: dict[str, str] = {}
    for case in cases:
        kept = [
            letter if _is_letter(letter) or letter in "._-" else " " for letter in composed(case)
        ]
        spaces = re.sub(" +", "_", "".join(kept))
        name = spaces.strip(".") or "_"
        ids[case] = name if len(name.encode()) <= LONGEST_ID else file_name(name)
    taken: dict[str, str] = {}
    for case, name in ids.items():
        other = taken.setdefault(composed(name.lower()), case)
        if other != case:
            raise DataError(
                f"{where}: cases {other!r} and {case!r} would both be written as {name}; rename one of their files"
            )
    return ids


def _is_letter(letter: str) -> bool:
    """Whether it is a letter of any script, a mark on one (vowels of Indic scripts are marks), or a digit."""
    return unicodedata.category(letter)[0] in "LMN"


def pair_up(
    where: Path, images: dict[str, Path], labels: dict[str, Path], image: str, label: str
) -> dict[str, tuple[Path, Path]]:
    """Returns images with their labels, by id; raises DataError listing the ids of those without a partner.

    Args:
        where: The folder that was searched.
        images: Image files by id.
        labels: Label files by id.
        image: Pattern of the images, for messages.
        label: Pattern of the labels.
    """
    problems = unpaired(where, images, labels, image, label)
    if problems:
        raise DataError("\n".join(problems))
    return {case: (path, labels[case]) for case, path in images.items()}
