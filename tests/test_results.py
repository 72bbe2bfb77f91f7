"""The table and the paired comparison, by hand and by enumeration."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata

from fsseg import FssegError
from fsseg.evaluation.scores import CaseScore
from fsseg.runs.results import Results


def score(
    variant="a",
    case="1",
    class_name="x",
    intersection=1,
    predicted=2,
    actual=2,
    oracle=False,
    fold=0,
    seed=0,
):
    return CaseScore(
        variant, oracle, fold, seed, case, class_name, "9", (3,), intersection, predicted, actual
    )


def test_means_by_hand(tmp_path):
    """Class x: 50 and 100; class y: 0 and nothing to find. An undefined Dice is left out; classes are averaged last."""
    scores = [
        score(case="1"), score(case="2", intersection=2),
        score(case="1", class_name="y", intersection=0), score(case="2", class_name="y", intersection=0, predicted=0, actual=0),
    ]  # fmt: skip
    results = Results(tmp_path, scores, ["x", "y"], {})
    row = results.table().loc["a"]
    assert row.tolist() == pytest.approx([75.0, 0.0, 37.5, np.std([25, 100], ddof=1)])
    assert np.isnan(scores[3].dice) and score(intersection=0, predicted=5, actual=0).dice == 0


def test_spreads_over_folds_and_seeds_by_hand(tmp_path):
    """Dice by seed and fold: 50 and 100, then 100 and 100; the scan of fold 1 is the same one in both."""
    scores = [
        score(intersection=i, fold=fold, seed=seed)
        for i, fold, seed in [(1, 0, 0), (2, 1, 0), (2, 0, 5), (2, 1, 5)]
    ]
    row = Results(tmp_path, scores, ["x"], {}).table().loc["a"]
    assert row["mean"] == 87.5
    assert row["sd_cases"] == row["sd_folds"] == pytest.approx(np.std([75, 100], ddof=1))
    assert row["sd_seeds"] == pytest.approx(np.std([75, 100], ddof=1))


def test_a_comparison_pairs_scans(tmp_path):
    """Against Wilcoxon's test by enumerating all signs; supports are averaged first, an undefined pair is left out."""
    a = [30, 22, 41, 35, 28, 50]
    b = [25, 24, 30, 21, 27, 33]
    scores = []
    for variant, values in (("a", a), ("b", b)):
        scores += [
            score(variant, str(case), intersection=v, predicted=100, actual=100)
            for case, v in enumerate(values)
        ]
        # Two supports of one more scan: 40 and 60 against 50 and 50, so no difference but one that is averaged away.
        for v in (40, 60) if variant == "a" else (44, 50):
            scores.append(score(variant, "6", intersection=v, predicted=100, actual=100))
    scores += [
        score("a", "7", predicted=0, actual=0, intersection=0),
        score("b", "7", predicted=3, actual=0, intersection=0),
    ]
    line = Results(tmp_path, scores, ["x"], {}).compare("a", "b").loc["x"]
    differences = np.array([*np.subtract(a, b), 3])
    assert line["pairs"] == 7 and line["higher"] == 6
    assert line["difference"] == pytest.approx(differences.mean())
    ranks = rankdata(abs(differences))
    seen = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    signs = np.array(list(product([0, 1], repeat=7)))
    smaller = np.minimum(signs @ ranks, (1 - signs) @ ranks)
    assert line["p"] == pytest.approx((smaller <= seen).mean())


def test_equal_rows_do_not_differ(tmp_path):
    scores = [score(variant, str(case)) for variant in "ab" for case in range(3)]
    comparison = Results(tmp_path, scores, ["x"], {}).compare("a", "b")
    assert comparison.index.tolist() == ["x", "mean"]
    assert (comparison["p"] == 1).all() and (comparison["higher"] == 0).all()
    with pytest.raises(FssegError, match="there is no row 'c'"):
        Results(tmp_path, scores, ["x"], {}).compare("a", "c")
