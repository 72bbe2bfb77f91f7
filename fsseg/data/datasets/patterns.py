"""Finding files by a pattern with `{case}` in it, so that images and labels are paired by id and never by position."""

import re
from pathlib import Path

from fsseg.errors import DataError


def find_files(root: Path, pattern: str) -> dict[str, Path]:
    """The file of each case, by number where ids are numbers; raises DataError for two files of one id."""
    files, problems = match_files(root, pattern)
    if problems:
        raise DataError("\n".join(problems))
    return files


def match_files(root: Path, pattern: str) -> tuple[dict[str, Path], list[str]]:
    """The first file of each case, and a sentence for every further one.

    Args:
        root: Where to look.
        pattern: A path below it. `{case}` stands for the id (any text within one folder or file name, the same wherever
            the pattern repeats it), `*` for anything within a name and `**/` for any folders.
    """
    wanted, found, problems = re.compile(_expression(pattern)), dict[str, Path](), []
    for path in sorted(root.glob(_as_glob(pattern))):
        match = wanted.fullmatch(path.relative_to(root).as_posix())
        if (
            match is None or not path.is_file() or path.name.startswith("._")
        ):  # the latter come from macOS
            continue
        first = found.setdefault(match["case"], path)
        if first != path:
            problems.append(
                f"{root}: {pattern} finds two files for case {match['case']}: {first.relative_to(root)} and "
                f"{path.relative_to(root)}; remove one, or make the pattern tell them apart"
            )
    return dict(sorted(found.items(), key=lambda item: by_number(item[0]))), problems


def by_number(case: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts ids by the numbers in them: scan_9 before scan_10."""
    parts = re.split(r"(\d+)", case)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


def _as_glob(pattern: str) -> str:
    text = re.sub(r"([\[?])", r"[\1]", pattern).replace("{case}", "*")
    return "/".join(part if part == "**" else re.sub(r"\*+", "*", part) for part in text.split("/"))


def _expression(pattern: str) -> str:
    """The pattern as a regular expression with a group `case`."""
    expression, seen = "", False
    for part in re.split(r"(\{case\}|\*\*/|\*)", pattern):
        if part == "{case}":
            expression += "(?P=case)" if seen else "(?P<case>[^/]+)"
            seen = True
        else:
            expression += {"**/": "(?:.*/)?", "*": "[^/]*"}.get(part, re.escape(part))
    return expression
