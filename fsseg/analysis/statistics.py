"""The statistics of every comparison: a paired test, the interval of a mean, and a correction for many tests."""

import math

import numpy as np
from jaxtyping import Float

FEWEST = 6
"""Pairs below which no two-sided signed-rank test can reach 0.05."""

MOST_ENUMERATED = 13
"""Pairs for which 9,999 resamples hold all signs."""

LEVEL = 0.05
"""A corrected p-value below it counts as a difference."""

CONFIDENCE = 0.95
"""The share of intervals that hold the true mean."""

RESAMPLES = 10_000
"""Resamples of the bootstrap."""


def paired_test(differences: Float[np.ndarray, "pair"]) -> dict[str, float]:
    """Tests whether the differences of pairs are centred on zero.

    Args:
        differences: One value minus the other of each pair, without NaN.

    Returns:
        The number of `pairs`, the mean `difference`, its interval from `low` to `high` (`interval_of_mean`), in how many
        pairs it is `higher` than zero, and `p_raw` of `signed_rank`, which is NaN for fewer than six pairs.
    """
    pairs = len(differences)
    low, high = interval_of_mean(differences)
    return {
        "pairs": pairs,
        "difference": float(differences.mean()) if pairs else math.nan,
        "low": low,
        "high": high,
        "higher": int((differences > 0).sum()),
        "p_raw": signed_rank(differences) if pairs >= FEWEST else math.nan,
    }


def signed_rank(differences: Float[np.ndarray, "pair"]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test; 1 where nothing differs.

    All signs are enumerated for up to 13 pairs, and for up to 50 without ties; for more, the sum of ranks is taken as normal.

    Example:
        >>> signed_rank(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))  # all up: two of 64 signs
        0.03125
    """
    from scipy.stats import permutation_test, rankdata, wilcoxon

    if not differences.any():
        return 1.0
    sizes = np.abs(differences[differences != 0])
    has_ties = len(np.unique(sizes)) < len(differences)
    if not has_ties or len(differences) > MOST_ENUMERATED:
        return float(wilcoxon(differences).pvalue)
    # What `wilcoxon` would do, but for ranking anew for each of the signs.
    ranks = rankdata(sizes) * np.sign(differences[differences != 0])
    test = permutation_test((ranks,), np.sum, permutation_type="samples", vectorized=True)
    return float(test.pvalue)


def interval_of_mean(differences: Float[np.ndarray, "pair"]) -> tuple[float, float]:
    """The 95 % interval of the mean difference by the bootstrap (BCa: bias-corrected and accelerated).

    Pairs are drawn 10,000 times, always by the same generator, so that it repeats to the digit. Two pairs have no skewness
    to correct for, and get plain percentiles of the resampled means.

    Returns:
        Its ends: NaN for fewer than two pairs, twice the difference itself where all are equal.
    """
    from scipy.stats import bootstrap

    pairs = len(differences)
    if pairs < 2:
        return math.nan, math.nan
    # Differences that are equal but for rounding have no skewness that could be computed.
    if np.allclose(
        differences,
        differences[0],
        rtol=1e-9,
        atol=0,
    ):
        return float(differences[0]), float(differences[0])
    resampled = bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa" if pairs > 2 else "percentile",
        rng=np.random.default_rng(0),
    )
    low, high = resampled.confidence_interval
    return float(low), float(high)


def holm(p_values: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """P-values corrected for their number by Holm's step-down method (1979); NaN are no tests.

    The k-th smallest of m is multiplied by m - k + 1, and is never below the one before it nor above 1.

    Example:
        >>> holm(np.array([0.03, 0.01, 0.04])).tolist()
        [0.06, 0.03, 0.06]
    """
    corrected = np.full(len(p_values), math.nan)
    tests = np.flatnonzero(~np.isnan(p_values))
    by_size = tests[np.argsort(p_values[tests])]
    highest = 0.0
    for smaller, index in enumerate(by_size):
        factor = len(tests) - smaller
        highest = max(highest, min(1.0, factor * p_values[index]))
        corrected[index] = highest
    return corrected


def verdict(
    pairs: int,
    difference: float,
    p: float,
    better: str = "higher",
) -> str:
    """The words for a test.

    Args:
        pairs: The number of pairs.
        difference: Their mean difference.
        p: The corrected p-value.
        better: "higher" where a positive difference is an improvement, "lower" (or "nearer") where it is none.

    Returns:
        "better" or "worse" where p is below 0.05, "no difference shown" elsewhere; "too few for a test" and "no scan in
        common" where nothing was tested.
    """
    if not pairs:
        return "no scan in common"
    if pairs < FEWEST:
        return "too few for a test"
    if not p < LEVEL:
        return "no difference shown"
    is_better = (difference > 0) == (better == "higher")
    return "better" if is_better else "worse"
