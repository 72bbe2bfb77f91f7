"""How cases are divided into folds: which give the support, which are segmented, which train."""

from dataclasses import dataclass
from typing import Literal, TypeVar

from fsseg.errors import FssegError
from fsseg.plugins.options import nearest

Value = TypeVar("Value")

SupportChoice = Literal["last", "circular", "each"]
"""Which case gives the support: a fold's last one; the first of the next fold; or each of the fold in turn."""


@dataclass(frozen=True)
class FoldScheme:
    """A way to divide cases, in order of their ids, into folds.

    Attributes:
        name: The scheme's name.
        folds: Number of folds.
        overlap: Cases that a fold shares with the next one.
        cases: Numbers of cases the scheme was published for; empty if it takes any.
        lists: The cases of each fold, the support last, for a scheme that names them.
        support: Which case gives the support, where neither the protocol nor the recipe says.

    Example:
        Three folds, in each of which the last case gives the support:

        >>> fold = make_fold(FoldScheme("mine", folds=3), ["a", "b", "c", "d", "e", "f"], 0)
        >>> fold.support, fold.queries, fold.training
        ('b', ('a',), ('c', 'd', 'e', 'f'))
    """

    name: str
    folds: int
    overlap: int = 0
    cases: tuple[int, ...] = ()
    lists: tuple[tuple[str, ...], ...] = ()
    support: SupportChoice = "last"


FOLD_SCHEMES = {
    "hansen2022": FoldScheme("hansen2022", folds=5, overlap=1, cases=(20, 35)),
    "hansen2022_circular": FoldScheme(
        "hansen2022_circular", folds=5, overlap=1, cases=(20, 30, 35), support="circular"
    ),
    "rpt_sabs": FoldScheme("rpt_sabs", folds=5, overlap=1, cases=(30,)),
    "tpm_sabs": FoldScheme("tpm_sabs", folds=5, cases=(30,)),
    "disjoint2": FoldScheme("disjoint2", folds=2),
    "disjoint3": FoldScheme("disjoint3", folds=3),
    "disjoint5": FoldScheme("disjoint5", folds=5),
}
"""`hansen2022`: the published CHAOS and CMR folds, which overlap by one case (so rank 0 is a query twice and the last
rank never); `hansen2022_circular`: their repair, which is ALPNet's: the support is the next fold's first case, so every case is
a query once; `rpt_sabs`: the same for the 30 CT scans of SABS (RPT, GMRD, CAT-Net and Q-Net); `tpm_sabs`: their disjoint
sixes (TPM); `disjoint5` and its like: folds as equal as possible, for any dataset."""


def disjoint_folds(cases: int) -> FoldScheme:
    """Returns five disjoint folds, or as many as give each at least a support and a query (but no fewer than two)."""
    folds = max(2, min(5, cases // 2))
    return FoldScheme(f"disjoint{folds}", folds=folds)


def listed_folds(lists: list[list[str]]) -> FoldScheme:
    """Returns the folds of these cases; the last case of each list is its support."""
    return FoldScheme("listed", folds=len(lists), lists=tuple(tuple(cases) for cases in lists))


@dataclass(frozen=True)
class Fold:
    """The cases of one fold.

    Attributes:
        index: The fold's number.
        support: The case that gives the support (or the last that does, where each does in turn).
        queries: The cases that are segmented.
        training: The rest.
    """

    index: int
    support: str
    queries: tuple[str, ...]
    training: tuple[str, ...]

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The cases whose labels are looked at: the support, then the queries."""
        return (self.support, *self.queries)


def find_scheme(name: str) -> FoldScheme:
    """Returns the fold scheme of this name; raises FssegError if there is none."""
    return find_named(FOLD_SCHEMES, name, "fold scheme")


def make_fold(
    scheme: FoldScheme, cases: list[str], index: int, support: SupportChoice | None = None
) -> Fold:
    """Returns the fold of this index.

    Args:
        scheme: How the cases are divided.
        cases: All cases, in order.
        index: The fold's number.
        support: Which case gives the support; as the scheme says when omitted. With "each" it is the last of them that
            the fold names.

    Raises:
        FssegError: The scheme does not have this fold, cannot divide these cases, or names its supports itself.
    """
    if not 0 <= index < scheme.folds:
        raise FssegError(
            f"fold {index}: {scheme.name} has folds 0 to {scheme.folds - 1}; choose one of them or all"
        )
    circular = (support or scheme.support) == "circular"
    divide = _listed if scheme.lists else _by_rank
    chosen = divide(scheme, cases, index, circular)
    if len(chosen) < 2:
        least = scheme.folds if circular else 2 * scheme.folds
        raise FssegError(
            f"fold {index} of {scheme.name}: the dataset's {len(cases)} cases leave {len(chosen)} for it, expected at least "
            f"2 (a support and a query), so {least} cases in all; add cases"
        )
    training = tuple(case for case in cases if case not in chosen)
    if not training:
        raise FssegError(
            f"fold {index} of {scheme.name}: no case is left for training; add cases to the dataset"
        )
    *queries, last = chosen
    return Fold(index, last, tuple(queries), training)


def _by_rank(scheme: FoldScheme, cases: list[str], index: int, circular: bool) -> list[str]:
    count = len(cases)
    if scheme.cases and count not in scheme.cases:
        expected = " or ".join(str(n) for n in scheme.cases)
        raise FssegError(
            f"folds {scheme.name}: the dataset has {count} cases, expected {expected} as published; "
            'set protocol.folds to "disjoint5", which takes any number'
        )
    first = round(count * index / scheme.folds)
    end = round(count * (index + 1) / scheme.folds)
    if circular:
        # What an overlapping fold shares with the next one is the support; a disjoint one borrows the same case.
        return [*cases[first:end], cases[end % count]]
    ranks = [rank % count for rank in range(first, end + scheme.overlap)]
    return [cases[rank] for rank in sorted(ranks)]


def _listed(scheme: FoldScheme, cases: list[str], index: int, circular: bool) -> list[str]:
    if circular:
        raise FssegError(
            'protocol.support: is "circular", but the dataset lists its folds and names their supports, expected "last" '
            'or "each"; leave it out, or set protocol.folds to a scheme such as "disjoint5"'
        )
    listed = scheme.lists[index]
    strange = [case for case in listed if case not in cases]
    if strange:
        raise FssegError(
            f"fold {index} of the dataset's list: there is no case {', '.join(strange)}; the cases are {', '.join(cases)}"
        )
    return list(listed)


def find_named(known: dict[str, Value], name: str, what: str) -> Value:
    """Returns the value of this name; raises FssegError, with the nearest name, if there is none."""
    if name not in known:
        raise FssegError(f"there is no {what} {name!r}; {nearest(name, list(known))}")
    return known[name]
