"""Finding the files of cases by patterns, so that images and labels are paired by id and never by position."""

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fsseg.data.datasets.patterns import (
    Pattern,
    Steps,
    TooManySteps,
    Wildcard,
    by_number,
    composed,
)
from fsseg.errors import DataError

Files = dict[str, Path]
"""A file of each case, by number where ids are numbers."""

MOST_NAMED = 10
"""Cases without a partner that a message names."""


@dataclass(frozen=True)
class Pairs:
    """What two patterns find in a folder.

    Attributes:
        images: The image of each case.
        labels: The label map of each case.
        problems: A sentence for everything that is wrong besides missing partners (see `unpaired`).
    """

    images: Files
    labels: Files
    problems: list[str]

    def raise_problems(self) -> None:
        """Raises one DataError with all problems, if there are some."""
        if self.problems:
            raise DataError("\n".join(self.problems))


def find_files(root: Path, pattern: str) -> Files:
    """Returns the file of each case; raises DataError listing what is wrong, such as two files of one id."""
    files, problems = match_files(root, pattern)
    if problems:
        raise DataError("\n".join(problems))
    return files


def match_files(root: Path, pattern: str) -> tuple[Files, list[str]]:
    """Returns the first file of each case, and a sentence for everything that is wrong.

    Args:
        root: Where to look.
        pattern: A path below it, see `Pattern`.
    """
    search = _Search(root, Pattern(pattern))
    return search.files, search.problems


def match_pairs(root: Path, image: str, label: str) -> Pairs:
    """Returns the images and label maps of a folder.

    A file that both patterns find is what the pattern says that says more of its name; `{case}.nii.gz` beside
    `{case}_seg.nii.gz` are all files that do not end in _seg.

    Args:
        root: Where to look.
        image: The pattern of images.
        label: The pattern of label maps.
    """
    of_images = Pattern(image)
    of_labels = Pattern(label)
    if of_images.names == of_labels.names:
        problem = (
            f"{root}: {image} stands for images and for labels, expected a pattern for each; "
            "an image cannot be its own label map, correct one of them"
        )
        return Pairs({}, {}, [problem])
    images_claim = of_images.weight > of_labels.weight
    images = _Search(root, of_images, None if images_claim else of_labels)
    labels = _Search(root, of_labels, of_images if images_claim else None)
    problems = dict.fromkeys([*images.problems, *labels.problems])
    return Pairs(images.files, labels.files, list(problems))


def unpaired(root: Path, images: Files, labels: Files, image: str, label: str) -> list[str]:
    """Returns a sentence each for images without labels, labels without images, and ids that only look the same.

    Args:
        root: The folder that was searched.
        images: Image files by id.
        labels: Label files by id.
        image: What images are called, for messages.
        label: What labels are called.
    """
    return [
        *_without_partner(root, "image", images, labels, label),
        *_without_partner(root, "label", labels, images, image),
        *_look_alike(root, images, labels),
    ]


def _without_partner(
    root: Path, kind: str, files: Files, partners: Files, expected: str
) -> Iterator[str]:
    alone = [case for case in files if case not in partners]
    if alone:
        dots = ", ..." if len(alone) > MOST_NAMED else ""
        yield (
            f"{root}: {kind} without its partner for {len(alone)} case(s): {', '.join(alone[:MOST_NAMED])}{dots}; "
            f"expected {expected} for each, add the file or remove the {kind}"
        )


def _look_alike(root: Path, images: Files, labels: Files) -> Iterator[str]:
    alone = {_skeleton(case): case for case in labels if case not in images}
    for case in images:
        other = None if case in labels else alone.get(_skeleton(case))
        if other is not None:
            yield (
                f"{root}: the image's id {case!a} and the label's id {other!a} look alike and are not the same "
                f"({images[case].name} and {labels[other].name}); rename one of them"
            )


def _skeleton(case: str) -> object:
    """What ids have in common that only look different: width and case of letters, kinds of dashes, spaces, zeros in front."""
    letters: list[str] = []
    for letter in unicodedata.normalize("NFKC", case).casefold():
        category = unicodedata.category(letter)
        if category == "Pd":
            letters.append("-")
        elif category not in ("Zs", "Cf"):
            letters.append(letter)
    return by_number("".join(letters))


@dataclass
class _Search:
    """A walk through a folder for the files that a pattern fits.

    Attributes:
        root: The folder.
        pattern: The pattern.
        others: Files that this pattern fits as well are not meant.
        files: The files that were found, by case.
        problems: What is wrong, a sentence each.
    """

    root: Path
    pattern: Pattern
    others: Pattern | None = None
    files: Files = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            fitting = self._fitting()
        except TooManySteps:
            self.problems.append(
                f"{self.root}: the pattern {self.pattern.text} fits names in too many ways to try them all; "
                "use fewer wildcards"
            )
            return
        folders: Files = {}
        for case, path in fitting:
            if os.path.isdir(path):
                folders.setdefault(case, path)
            else:
                self._add(case, path)
        for case, path in folders.items():
            if case not in self.files:  # some programs unpack a.nii into a folder of that name
                self.problems.append(
                    f"{shown(path)}: is a folder, expected a file; name the files in it in the pattern"
                )
        self.files = {case: self.files[case] for case in sorted(self.files, key=by_number)}

    def _fitting(self) -> list[tuple[str, Path]]:
        """The ids and paths of all that the pattern fits and the other one does not."""
        steps = Steps()
        fitting: list[tuple[str, Path]] = []
        for path in sorted(self._candidates()):
            case = self._case_of(path, steps)
            if case is not None:
                fitting.append((case, path))
        return fitting

    def _case_of(self, path: Path, steps: Steps) -> str | None:
        below = path.relative_to(self.root).as_posix()
        case = self.pattern.case_of(below, steps)
        if case is None or path.name.startswith("._"):  # which macOS leaves beside files
            return None
        if self.others is not None and self.others.case_of(below, steps) is not None:
            return None
        return case

    def _add(self, case: str, path: Path) -> None:
        problem = file_problem(path) or name_problem(path.relative_to(self.root))
        if problem is not None:
            self.problems.append(f"{shown(path)}: {problem}")
            return
        first = self.files.setdefault(case, path)
        if first != path:
            names = [first.relative_to(self.root), path.relative_to(self.root)]
            one, other = _told_apart(*map(str, names))
            self.problems.append(
                f"{self.root}: {self.pattern.text} finds two files for case {case}: {one} and {other}; "
                "remove one, or make the pattern tell them apart"
            )

    def _candidates(self) -> Iterator[Path]:
        """All that the pattern may fit, by where literal text begins and ends names."""
        names = self.pattern.names
        waiting = [(self.root, 0)]
        while waiting:
            folder, depth = waiting.pop()
            is_below_any = "**" in names[: depth + 1]
            is_last = depth == len(names) - 1
            for entry in self._entries(folder):
                if is_below_any:
                    if _may_be(entry.name, names[-1]):
                        yield Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((Path(entry.path), depth))
                elif _may_be(entry.name, names[depth]):
                    if is_last:
                        yield Path(entry.path)
                    elif os.path.isdir(entry.path):
                        waiting.append((Path(entry.path), depth + 1))

    def _entries(self, folder: Path) -> Iterable[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            reason = error.strerror or error
            self.problems.append(
                f"{folder}: cannot be looked into ({reason}); expected a folder that may be read, give yourself the right"
            )
            return ()


def file_problem(path: Path) -> str | None:
    """Returns what is at a path where no ordinary file is, and what to do; None for a file, links followed."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.is_symlink():
            return "there is no such file; expected a scan, check its name"
        return f"is a link to {path.readlink()}, where nothing is; mend or remove the link"
    except OSError as error:
        reason = error.strerror or error
        return f"cannot be read ({reason}); expected a file, check links and rights"
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "is a folder, expected a file; name the file in it"
    return "is a pipe or a device, expected a file; remove it"


def name_problem(path: Path) -> str | None:
    """Returns what keeps a path from standing in tables and messages, and what to do; None where nothing does."""
    categories = {unicodedata.category(letter) for letter in str(path)}
    if "Cs" in categories:
        return "its name is not UTF-8; rename the file"
    if not categories.isdisjoint(("Cc", "Zl", "Zp")):
        return "its name has line breaks or control characters; rename the file"
    return None


def shown(path: Path) -> str:
    """Returns a path for a message: as it is, or in ASCII where it would spoil the line."""
    return str(path) if name_problem(path) is None else ascii(str(path))


def _told_apart(first: str, second: str) -> tuple[str, str]:
    """Two names, in ASCII with their codes where they look the same."""
    if composed(first) != composed(second):
        return first, second
    return ascii(first), ascii(second)


def _may_be(name: str, pattern: str) -> bool:
    """Whether a name begins and ends as its pattern does."""
    letters = composed(name)
    texts = pattern.replace(Wildcard.CASE.value, "*").split("*")
    if len(texts) == 1:
        return letters == pattern
    return letters.startswith(texts[0]) and letters.endswith(texts[-1])
