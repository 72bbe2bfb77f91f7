"""What no evaluation may do, whoever chose the slices: score a slice that is labelled, or ask for what there is not."""

from collections.abc import Collection, Mapping
from typing import Any

from fsseg.data.folds import Fold
from fsseg.errors import DataError, FssegError
from fsseg.evaluation.choices import Choice, Shown, Slices


def require_sound(
    choices: Collection[Choice],
    fold: Fold,
    shown: Mapping[str, Shown],
    classes: dict[int, str],
    origin: str,
) -> None:
    """Checks the choices of a protocol.

    Args:
        choices: The choices.
        fold: The fold.
        shown: What the slices of the fold's cases show, by case.
        classes: Name of each class value.
        origin: The protocol in messages, with the distribution that it comes from.

    Raises:
        FssegError: The first choice that cannot be evaluated, or that scores a labelled slice of its own segmentation.
    """
    if not choices:
        raise FssegError(
            f"{origin}: fold {fold.index}: it chooses nothing to segment, expected one query at least; evaluate another "
            "fold or other classes"
        )
    labelled: dict[tuple, set[tuple[str, int]]] = {}
    for choice in choices:
        problem = _problem_of(choice, fold, shown, classes)
        if problem is not None:
            raise FssegError(f"{origin}: fold {fold.index}: {problem}")
        of_segmentation = labelled.setdefault(choice.segmentation, set())
        for case, numbers in choice.supports:
            of_segmentation.update((case, number) for number in numbers)
    segmented: dict[tuple, set[int]] = {}
    for choice in choices:
        query = choice.query_case
        scored = _numbers(choice, shown)
        for number in scored:
            if (query, number) in labelled[choice.segmentation]:
                raise FssegError(
                    f"{origin}: fold {fold.index}: it scores slice {number} of case {query}, which is a labelled slice of "
                    "its own support, expected query slices without it; leave it out of query_slices"
                )
        before = segmented.setdefault(choice.segmentation, set())
        twice = before.intersection(scored)
        if twice:
            raise FssegError(
                f"{origin}: fold {fold.index}: it segments slice {min(twice)} of case {query} twice from case "
                f"{choice.support_name}, expected each slice once; choose it in one part alone"
            )
        before.update(scored)


def _numbers(choice: Choice, shown: Mapping[str, Shown]) -> Slices | range:
    if choice.query_slices is None:
        return range(len(shown[choice.query_case]))
    return choice.query_slices


def _problem_of(
    choice: Any, fold: Fold, shown: Mapping[str, Shown], classes: dict[int, str]
) -> str | None:
    """What keeps a choice from being evaluated by itself; None where nothing does."""
    if not isinstance(choice, Choice):
        return f"it chooses {choice!r}, expected values of fsseg.Choice"
    if choice.turn != 0:
        return f"it gives a choice the turn {choice.turn}, expected 0; leave turn out"
    known = tuple(classes.items())
    strange = [way for way in choice.classes if way not in known]
    if strange or not choice.classes:
        got = strange[0] if strange else "no class"
        return f"it chooses {got!r} as a class, expected some of {known}"
    query = (choice.query_case, _numbers(choice, shown) if choice.query_case in shown else ())
    for role, (case, numbers) in [
        *(("support", support) for support in choice.supports),
        ("query", query),
    ]:
        if case not in fold.evaluated:
            return (
                f"it takes case {case!r} as a {role}, expected one of the fold's {', '.join(fold.evaluated)}; choose "
                "among fold.queries and fold.supports"
            )
        problem = _problem_of_slices(numbers, len(shown[case]))
        if problem is not None:
            return f"the {role} case {case}: {problem}"
    return _problem_of_supports(choice, shown)


def _problem_of_slices(numbers: Any, count: int) -> str | None:
    """What is wrong with numbers of slices of a scan that has so many."""
    if not numbers:
        return "no slice of it is chosen, expected one at least; leave the choice out"
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
            return f"slice {number!r} is chosen, expected whole numbers from 0 to {count - 1}"
    if len(set(numbers)) < len(numbers):
        return f"a slice of {tuple(numbers)} is chosen twice, expected each once"
    return None


def _problem_of_supports(choice: Choice, shown: Mapping[str, Shown]) -> str | None:
    """What keeps slices from being labelled for the classes."""
    cases = [case for case, _ in choice.supports]
    if len(set(cases)) < len(cases):
        return f"a support case of {', '.join(cases)} is named twice, expected each once with all its slices"
    for case, numbers in choice.supports:
        for number in numbers:
            for value, name in choice.classes:
                if value not in shown[case][number]:
                    return (
                        f"it takes slice {number} of case {case} as a support of {name} (label {value}), expected a slice "
                        "that shows the class; choose by `shown`"
                    )
    return None


def require_one_size(choice: Choice, sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks that the shots of a support have slices of one size.

    Args:
        choice: Whose support it is.
        sizes: Height and width of each support case on the working grid.

    Raises:
        DataError: They have several.
    """
    different = {sizes[case]: case for case, _ in choice.supports}
    if len(different) > 1:
        (size, case), (other_size, other), *_ = different.items()
        raise DataError(
            f"support of cases {choice.support_name}: slices of case {case} have {_in_words(size)} pixels on the working grid "
            f"and those of case {other} {_in_words(other_size)}, expected one size for shots of one support; set grid.size, "
            "which crops and pads, or lower protocol.supports"
        )


def _in_words(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
