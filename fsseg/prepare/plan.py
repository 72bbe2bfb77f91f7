"""The values between layouts and engine: which cases there are, how to make one, and what the finished dataset is."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsseg.data.datasets.finding import unpaired
from fsseg.errors import DataError
from fsseg.prepare.scan import Scan


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
    """

    image: Scan
    label: Scan
    before: dict[str, Any]
    steps: list[str]


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
    """Returns a name as lower-case words joined by underscores.

    Example:
        >>> identifier("Left Kidney")
        'left_kidney'
    """
    words = re.sub(r"[^0-9a-z]+", "_", name.strip().lower()).strip("_")
    return words if words and not words[0].isdigit() else f"class_{words}"


def file_ids(cases: Iterable[str], where: object) -> dict[str, str]:
    """Returns ids as parts of file names, by id; raises DataError where two become the same."""
    ids: dict[str, str] = {}
    for case in cases:
        name = re.sub(r"[^0-9A-Za-z._-]+", "_", case)
        ids[case] = name.strip(".") or "_"
    taken: dict[str, str] = {}
    for case, name in ids.items():
        other = taken.setdefault(name.lower(), case)
        if other != case:
            raise DataError(
                f"{where}: cases {other!r} and {case!r} would both be written as {name}; rename one of their files"
            )
    return ids


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
