"""Finding files by a pattern with `{case}` in it, so that images and labels are paired by id and never by position."""

import re
from pathlib import Path

from fsseg.errors import DataError


def find_files(root: Path, pattern: str) -> dict[str, Path]:
    """The files below `root` that a pattern finds, by case, by number where ids are numbers.

    `{case}` stands for the id (any text within one folder or file name, the same wherever the pattern repeats it), `*`
    for anything within a name and `**/` for any folders. Raises DataError for two files of one id.
    """
    wanted, found = re.compile(_expression(pattern)), dict[str, Path]()
    for path in sorted(root.glob(_as_glob(pattern))):
        match = wanted.fullmatch(path.relative_to(root).as_posix())
        if match is None or not path.is_file() or path.name.startswith("._"):  # the latter come from macOS
            continue
        case = match["case"]
        if case in found:
            raise DataError(
                f"{root}: {pattern} finds two files for case {case}: {found[case].relative_to(root)} and "
                f"{path.relative_to(root)}; make the pattern tell them apart"
            )
        found[case] = path
    return dict(sorted(found.items(), key=lambda item: by_number(item[0])))


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
