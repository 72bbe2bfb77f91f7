"""Finding files by a pattern with `{case}` in it, so that images and labels are paired by id and never by position."""

import re
from pathlib import Path

from fsseg.errors import DataError


def find_files(root: Path, pattern: str) -> dict[str, Path]:
    """Returns the file of each case, by number where ids are numbers; raises DataError for two files of one id."""
    files, problems = match_files(root, pattern)
    if problems:
        raise DataError("\n".join(problems))
    return files


def match_files(root: Path, pattern: str) -> tuple[dict[str, Path], list[str]]:
    """Returns the first file of each case, and a sentence for every further one.

    Args:
        root: Where to look.
        pattern: A path below it. `{case}` stands for the id (any text within one folder or file name, the same wherever
            the pattern repeats it), `*` for anything within a name and `**/` for any folders.
    """
    expression = re.compile(_expression(pattern))
    files: dict[str, Path] = {}
    problems: list[str] = []
    for path in sorted(root.glob(_as_glob(pattern))):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        is_from_macos = path.name.startswith("._")
        if match is None or is_from_macos or not path.is_file():
            continue
        case = match["case"]
        first = files.setdefault(case, path)
        if first != path:
            problems.append(
                f"{root}: {pattern} finds two files for case {case}: {first.relative_to(root)} and "
                f"{path.relative_to(root)}; remove one, or make the pattern tell them apart"
            )
    in_order = {case: files[case] for case in sorted(files, key=by_number)}
    return in_order, problems


def by_number(case: str) -> tuple[tuple[int, int | str], ...]:
    """Returns a key that sorts ids by the numbers in them.

    Example:
        >>> sorted(["scan_10", "scan_9"], key=by_number)
        ['scan_9', 'scan_10']
    """
    parts: list[tuple[int, int | str]] = []
    for part in re.split(r"(\d+)", case):
        if part.isdigit():
            parts.append((0, int(part)))
        elif part:
            parts.append((1, part))
    return tuple(parts)


def _as_glob(pattern: str) -> str:
    """The pattern for `Path.glob`, which finds too much: one id may differ from the next, and brackets are themselves."""
    escaped = re.sub(r"([\[?])", r"[\1]", pattern)
    names = escaped.replace("{case}", "*").split("/")
    for place, name in enumerate(names):
        if name != "**":
            names[place] = re.sub(r"\*+", "*", name)
    return "/".join(names)


def _expression(pattern: str) -> str:
    """The pattern as a regular expression with a group `case`."""
    wildcards = {"**/": "(?:.*/)?", "*": "[^/]*"}
    expression = ""
    for part in re.split(r"(\{case\}|\*\*/|\*)", pattern):
        if part != "{case}":
            expression += wildcards.get(part) or re.escape(part)
        elif "(?P<case>" in expression:
            expression += "(?P=case)"
        else:
            expression += "(?P<case>[^/]+)"
    return expression
