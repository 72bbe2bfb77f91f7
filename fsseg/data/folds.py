"""How cases are divided into folds: which give the support, which are segmented, which train."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fsseg.errors import FssegError

SupportChoice = Literal["last", "circular", "each", "own"]
"""Which case gives the support: a fold's last one; the first of the next fold; each of the fold in turn, for the others;
or each of the fold for itself."""


@dataclass(frozen=True)
class FoldScheme:
    """A way to divide cases, in order of their ids, into folds.

    A subclass may divide otherwise: it overrides `divide`, and its own fields enter the protocol's hash.

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

    def divide(self, cases: Sequence[str], index: int) -> list[str]:
        """The cases of a fold, those that give the support last; all others train.

        Args:
            cases: All cases of the dataset, in order.
            index: The fold's number, from 0.

        Raises:
            FssegError: These cases cannot be divided so.
        """
        if self.lists:
            return list(self.lists[index])
        first, end = self._ranks(len(cases), index)
        ranks = [rank % len(cases) for rank in range(first, end + self.overlap)]
        return [cases[rank] for rank in sorted(ranks)]

    @property
    def names_supports(self) -> bool:
        """True if it says itself which cases give the support, so that a recipe cannot take those of the next fold."""
        return bool(self.lists) or self.divides_otherwise

    @property
    def divides_otherwise(self) -> bool:
        """True for a subclass with a `divide` of its own."""
        return type(self).divide is not FoldScheme.divide

    def definition(self, support: SupportChoice) -> Any:
        """Plain values that stand for the folds that it gives, whatever its name.

        Args:
            support: Which case gives the support.
        """
        if self.divides_otherwise:
            cls = type(self)
            values = {key: value for key, value in asdict(self).items() if key != "name"}
            return values | {"logic": f"{cls.__module__}:{cls.__qualname__}"}
        overlap = 0 if support == "circular" else self.overlap
        return self.lists or [self.folds, overlap]

    def _ranks(self, count: int, index: int) -> tuple[int, int]:
        """The first rank of a fold and the first behind it, without those that it shares with the next one."""
        if self.cases and count not in self.cases:
            expected = " or ".join(str(number) for number in self.cases)
            raise FssegError(
                f"folds {self.name}: the dataset has {count} cases, expected {expected} as published; "
                'set protocol.folds to "disjoint5", which takes any number'
            )
        return round(count * index / self.folds), round(count * (index + 1) / self.folds)


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
        support: The case that gives the support (or the last that does, where each does in turn or for itself).
        queries: The cases that are segmented.
        training: The rest.
        more_supports: Further cases that give the support together with it.
    """

    index: int
    support: str
    queries: tuple[str, ...]
    training: tuple[str, ...]
    more_supports: tuple[str, ...] = ()

    @property
    def supports(self) -> tuple[str, ...]:
        """The cases that give the support together."""
        return (self.support, *self.more_supports)

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The cases whose labels are looked at: the supports, then the queries."""
        return (*self.supports, *self.queries)

    def definition(self) -> dict[str, Any]:
        """Plain values that stand for the fold: those that it had before there were further supports, where it has none."""
        values = asdict(self)
        if not self.more_supports:
            del values["more_supports"]
        return values


def make_fold(
    scheme: FoldScheme,
    cases: list[str],
    index: int,
    support: SupportChoice | None = None,
    supports: int = 1,
    origin: str | None = None,
) -> Fold:
    """Returns the fold of this index.

    Args:
        scheme: How the cases are divided.
        cases: All cases, in order.
        index: The fold's number.
        support: Which case gives the support; as the scheme says when omitted. With "each" and "own" it is the last of
            them that the fold names.
        supports: Cases that give the support together.
        origin: The scheme in messages, with the distribution that it comes from; its name when omitted.

    Raises:
        FssegError: The scheme does not have this fold, cannot divide these cases, or names its supports itself.
    """
    if not 0 <= index < scheme.folds:
        raise FssegError(
            f"fold {index}: {scheme.name} has folds 0 to {scheme.folds - 1}; choose one of them or all"
        )
    circular = (support or scheme.support) == "circular"
    if circular:
        chosen = _with_the_next(scheme, cases, index, supports)
    else:
        chosen = list(scheme.divide(cases, index))
    _require_sound(scheme, cases, index, chosen, origin or f"folds {scheme.name}")
    if len(chosen) <= supports:
        least = supports + 1
        least_in_all = scheme.folds if circular and supports == 1 else least * scheme.folds
        needed = "a support and a query" if supports == 1 else f"{supports} supports and a query"
        raise FssegError(
            f"fold {index} of {scheme.name}: the dataset's {len(cases)} cases leave {len(chosen)} for it, expected at least "
            f"{least} ({needed}), so {least_in_all} cases in all; add cases"
        )
    training = tuple(case for case in cases if case not in chosen)
    if not training:
        raise FssegError(
            f"fold {index} of {scheme.name}: no case is left for training; add cases to the dataset"
        )
    queries = tuple(chosen[:-supports])
    *more, last = chosen[-supports:]
    return Fold(index, last, queries, training, tuple(more))


def _with_the_next(scheme: FoldScheme, cases: list[str], index: int, supports: int) -> list[str]:
    """A fold's cases without those that it shares, and the first of the next fold, which give the support."""
    if scheme.names_supports:
        whose = (
            "the dataset lists its folds and names"
            if scheme.lists
            else f"the folds {scheme.name} name"
        )
        raise FssegError(
            f'protocol.support: is "circular", but {whose} their supports, expected "last" '
            'or "each"; leave it out, or set protocol.folds to a scheme such as "disjoint5"'
        )
    count = len(cases)
    first, end = scheme._ranks(count, index)
    borrowed = [cases[(end + number) % count] for number in range(supports)]
    return [*cases[first:end], *borrowed]


def _require_sound(
    scheme: FoldScheme, cases: list[str], index: int, chosen: list[str], origin: str
) -> None:
    """Raises FssegError for a fold with cases that there are not, or one of them twice."""
    strange = [case for case in chosen if case not in cases]
    if strange:
        whose = "the dataset's list" if scheme.lists else origin
        raise FssegError(
            f"fold {index} of {whose}: there is no case {', '.join(map(str, strange))}; the cases are {', '.join(cases)}"
        )
    twice = [case for case in dict.fromkeys(chosen) if chosen.count(case) > 1]
    if twice:
        raise FssegError(
            f"fold {index} of {origin}: it has case {twice[0]} twice, expected each case of a fold once; correct "
            "it, or lower protocol.supports"
        )
