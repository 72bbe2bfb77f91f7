"""What classes may be called: their names become columns of tables and parts of files' names."""

from collections.abc import Iterable, Iterator

from fsseg.system.names import first_alike, problem_of, told

LONGEST = 100
"""Characters of a class's name."""

COLUMNS = (
    *("mean", "variant", "oracle", "class", "kind"),
    *("pairs", "difference", "low", "high", "higher", "p", "p_raw", "verdict"),
)
"""What tables call their own columns."""

COLUMN = "has the name of a column of the tables of results, expected another"
"""What is wrong with a class that is called so, as the end of a sentence."""

SPREAD = "sd_"
"""Begins the names of columns of standard deviations."""


def problems_of_names(names: Iterable[str]) -> Iterator[str]:
    """Yields a sentence for each class that cannot be called so, and for two that look the same."""
    listed = list(names)
    for name in listed:
        problem = _problem_of(name)
        if problem is not None:
            yield f"the class {told(name)} {problem}; rename it"
    pair = first_alike(listed)
    if pair is not None:
        first, second = pair
        yield (
            f"the classes {told(first)} and {told(second)} differ in nothing but capitals, spaces or the way that "
            "accents are stored, expected names that differ in more; rename one"
        )


def _problem_of(name: str) -> str | None:
    problem = problem_of(name)
    if problem is not None:
        return problem
    if len(name) > LONGEST:
        return f"has {len(name)} characters, expected at most {LONGEST}"
    for separator in "/\\":
        if separator in name:
            return f"holds a {separator}, expected a name that can stand in the name of a file"
    if not name.strip("."):
        return "has nothing but dots, expected a name that can stand in the name of a file"
    if is_column(name):
        return COLUMN
    return None


def is_column(name: str) -> bool:
    """Returns whether tables call a column of their own so."""
    return name in COLUMNS or name.startswith(SPREAD)
