from dataclasses import replace

import pytest
from helpers import PROTOCOLS
from hypothesis import given
from hypothesis import strategies as st

from fsseg import FssegError
from fsseg.data.folds import FOLD_SCHEMES, disjoint_folds, listed_folds, make_fold
from fsseg.recipe.protocols import choose_classes, protocol_hash

CHAOS = [
    str(i) for i in (1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39)
]


def test_hansen2022_are_the_published_chaos_folds():
    """Ranks 0-4, 4-8, 8-12, 12-16 and {16..19, 0}; the support is the last in sorted order."""
    folds = [make_fold(FOLD_SCHEMES["hansen2022"], CHAOS, index) for index in range(5)]
    ranks = [[CHAOS.index(case) for case in fold.queries] for fold in folds]
    assert ranks == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [0, 16, 17, 18]]
    assert [CHAOS.index(fold.support) for fold in folds] == [4, 8, 12, 16, 19]
    for fold in folds:
        assert (
            set(fold.training) == set(CHAOS) - {fold.support, *fold.queries}
            and len(fold.training) == 15
        )


def test_hansen2022_are_the_published_cmr_folds():
    cases = [str(i) for i in range(35)]
    fold = make_fold(FOLD_SCHEMES["hansen2022"], cases, 4)
    assert (fold.queries, fold.support) == (("0", "28", "29", "30", "31", "32", "33"), "34")


@given(st.integers(10, 60))
def test_disjoint5_divides_any_dataset(count):
    cases = [f"c{i}" for i in range(count)]
    folds = [make_fold(FOLD_SCHEMES["disjoint5"], cases, index) for index in range(5)]
    tested = [case for fold in folds for case in (*fold.queries, fold.support)]
    assert sorted(tested) == sorted(cases)
    sizes = [len(fold.queries) + 1 for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        assert not {fold.support, *fold.queries} & set(fold.training)


def test_the_published_folds_of_abdominal_ct():
    """TPM divides 30 scans into disjoint sixes; RPT and others into sevens that overlap, so scan 29 is never a query."""
    cases = [str(i) for i in range(30)]
    tpm = [make_fold(FOLD_SCHEMES["tpm_sabs"], cases, index) for index in range(5)]
    assert [fold.support for fold in tpm] == ["5", "11", "17", "23", "29"]
    assert tpm[1].queries == ("6", "7", "8", "9", "10") and len(tpm[1].training) == 24
    rpt = [make_fold(FOLD_SCHEMES["rpt_sabs"], cases, index) for index in range(5)]
    assert [fold.support for fold in rpt] == ["6", "12", "18", "24", "29"]
    assert rpt[4].queries == ("0", "24", "25", "26", "27", "28")
    with pytest.raises(FssegError, match="13 cases, expected 30 as published"):
        make_fold(FOLD_SCHEMES["tpm_sabs"], cases[:13], 0)


@pytest.mark.parametrize(("cases", "folds"), [(4, 2), (5, 2), (7, 3), (9, 4), (10, 5), (200, 5)])
def test_small_datasets_have_fewer_folds(cases, folds):
    scheme = disjoint_folds(cases)
    assert (scheme.name, scheme.folds) == (f"disjoint{folds}", folds)
    for index in range(folds):
        fold = make_fold(scheme, [str(i) for i in range(cases)], index)
        assert fold.queries and fold.training


def test_folds_can_be_listed_with_the_support_last():
    scheme = listed_folds([["c", "a"], ["b", "e", "d"]])
    assert scheme.folds == 2
    fold = make_fold(scheme, ["a", "b", "c", "d", "e", "f"], 1)
    assert (fold.support, fold.queries, fold.training) == ("d", ("b", "e"), ("a", "c", "f"))
    with pytest.raises(
        FssegError, match="fold 0 of the dataset's list: there is no case c; the cases are a, b"
    ):
        make_fold(scheme, ["a", "b"], 0)


@pytest.mark.parametrize(("count", "last"), [(20, 19), (30, 29), (35, 34)])
def test_the_circular_folds_query_every_case_once(count, last):
    """ALPNet's folds: the support is the next fold's first case; in the last fold that is rank 0."""
    cases = [str(i) for i in range(count)]
    folds = [make_fold(FOLD_SCHEMES["hansen2022_circular"], cases, index) for index in range(5)]
    assert sorted(case for fold in folds for case in fold.queries) == sorted(cases)
    assert folds[4].support == "0" and str(last) in folds[4].queries
    for fold in folds:
        assert not {fold.support, *fold.queries} & set(fold.training)


def everything_evaluated(scheme, cases, support):
    """What a scheme and a choice of support amount to: who is segmented from whom, and who trains, by fold."""
    folds = [make_fold(scheme, cases, index, support) for index in range(scheme.folds)]
    in_turn = support == "each"
    return tuple(
        (
            frozenset(
                (a, b)
                for a in ((*fold.queries, fold.support) if in_turn else [fold.support])
                for b in ((*fold.queries, fold.support) if in_turn else fold.queries)
                if a != b
            ),
            fold.training,
        )
        for fold in folds
    )


@pytest.mark.parametrize("count", [20, 30, 35, 41])
def test_circular_supports_by_hand(count):
    """Every case of every fold is a query, once; the support is the next fold's first case and does not train."""
    cases = [str(i) for i in range(count)]
    for scheme in FOLD_SCHEMES.values():
        if scheme.cases and count not in scheme.cases:
            continue
        folds = [make_fold(scheme, cases, index, "circular") for index in range(scheme.folds)]
        assert [case for fold in folds for case in fold.queries] == cases
        for fold, following in zip(folds, [*folds[1:], folds[0]]):
            assert fold.support == following.queries[0]
            assert set(fold.training) == set(cases) - {fold.support, *fold.queries}


@pytest.mark.parametrize("count", [20, 30, 35])
def test_the_hash_differs_exactly_where_the_evaluation_does(count):
    """Every scheme with every choice of support, two by two."""
    cases = [str(i) for i in range(count)]
    seen = {}
    for scheme in FOLD_SCHEMES.values():
        if scheme.cases and count not in scheme.cases:
            continue
        for choice in (None, "last", "circular", "each"):
            protocol = replace(PROTOCOLS["ep2"], support=choice)
            evaluated = everything_evaluated(scheme, cases, choice)
            seen.setdefault(evaluated, set()).add(protocol_hash(protocol, scheme, {1: "liver"}))
    assert all(len(hashes) == 1 for hashes in seen.values())
    assert len(set.union(*seen.values())) == len(seen) > 6


def test_circular_supports_repair_the_published_folds():
    """The published folds with the support of the next fold are ALPNet's, with the same hash."""
    published, repaired = FOLD_SCHEMES["hansen2022"], FOLD_SCHEMES["hansen2022_circular"]
    for index in range(5):
        assert make_fold(published, CHAOS, index, "circular") == make_fold(repaired, CHAOS, index)
    circular = replace(PROTOCOLS["ep2"], support="circular")
    assert protocol_hash(circular, published, {1: "liver"}) == protocol_hash(
        PROTOCOLS["ep2"], repaired, {1: "liver"}
    )
    assert protocol_hash(circular, published, {1: "liver"}) != protocol_hash(
        PROTOCOLS["ep2"], published, {1: "liver"}
    )


def test_listed_folds_name_their_supports():
    scheme = listed_folds([["c", "a"], ["b", "d"]])
    with pytest.raises(
        FssegError,
        match='protocol.support: is "circular", but the dataset lists its folds and names',
    ):
        make_fold(scheme, ["a", "b", "c", "d", "e"], 0, "circular")
    for support in ("last", "each"):
        assert make_fold(scheme, ["a", "b", "c", "d", "e"], 0, support).support == "a"


def test_what_cannot_be_divided():
    with pytest.raises(
        FssegError,
        match='21 cases, expected 20 or 35 as published; set protocol.folds to "disjoint5"',
    ):
        make_fold(FOLD_SCHEMES["hansen2022"], [*CHAOS, "40"], 0)
    with pytest.raises(FssegError, match="hansen2022 has folds 0 to 4"):
        make_fold(FOLD_SCHEMES["hansen2022"], CHAOS, 5)
    with pytest.raises(FssegError, match="leave 1 for it, expected at least 2"):
        make_fold(FOLD_SCHEMES["disjoint5"], CHAOS[:7], 0)
    with pytest.raises(
        FssegError, match="leave 1 for it, expected at least 2 .* so 5 cases in all"
    ):
        make_fold(FOLD_SCHEMES["disjoint5"], CHAOS[:4], 2, "circular")
    one_fold = replace(FOLD_SCHEMES["disjoint5"], folds=1)
    with pytest.raises(FssegError, match="no case is left for training"):
        make_fold(one_fold, CHAOS, 0)


def test_the_hash_changes_with_anything_that_defines_the_evaluation():
    protocol, scheme, classes = PROTOCOLS["ep2"], FOLD_SCHEMES["hansen2022"], {1: "liver"}
    base = protocol_hash(protocol, scheme, classes)
    assert base == protocol_hash(protocol, scheme, {1: "liver"}) and len(base) == 8
    others = {
        protocol_hash(replace(protocol, support_parts=3), scheme, classes),
        protocol_hash(protocol, FOLD_SCHEMES["disjoint5"], classes),
        protocol_hash(protocol, scheme, {1: "liver", 4: "spleen"}),
    }
    assert base not in others and len(others) == 3


def test_some_of_the_classes():
    classes = {1: "liver", 2: "right kidney", 4: "spleen"}
    assert choose_classes(classes, None) == classes
    assert choose_classes(classes, ["spleen", "liver"]) == {1: "liver", 4: "spleen"}
    assert list(choose_classes(classes, ["spleen", "liver"])) == [1, 4], "in the dataset's order"
    with pytest.raises(
        FssegError, match="the dataset has no class 'speen'; did you mean 'spleen'?"
    ):
        choose_classes(classes, ["liver", "speen"])
