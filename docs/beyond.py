"""Prints what docs/beyond.md shows of a run of recipes/beyond.toml on several folds: the ladder and its paired tests.

uv run python docs/beyond.py RUN [SET_ASIDE]

The scans that are queries of the fold set aside (0 unless given) were looked at when settings were chosen; they are left out
wherever they come, in other folds too.
"""

import sys
from dataclasses import replace

import pandas as pd

import fsseg
from fsseg import Results

FROM, TO, BEST = "TPM 5, LinEst", "TPM 5, OCP", "position, discriminant, component"
"""The rows between which the gap lies, and the one that is tested against the first by class."""


def untouched(results: Results, aside: int) -> Results:
    """The results without the queries of a fold."""
    seen = {score.case for score in results.scores if score.fold == aside}
    return replace(results, scores=[score for score in results.scores if score.case not in seen])


def ladder(results: Results) -> str:
    """The table of means, with the share of the gap that each row closes."""
    table = results.table()
    gap = table.loc[TO, "mean"] - table.loc[FROM, "mean"]
    table["of the gap"] = [
        f"{(mean - table.loc[FROM, 'mean']) / gap:.0%}" for mean in table["mean"]
    ]
    table = table.rename(index=lambda name: f"{name} \\*" if name in results.oracles else name)
    table = table.rename(columns=lambda name: name.replace("sd_", "± ").replace("_", " "))
    return table.to_markdown(floatfmt=".1f")


def tests(results: Results) -> str:
    """The best row against LinEst, by class, with intervals and corrected p-values."""
    two = replace(
        results, scores=[score for score in results.scores if score.variant in (FROM, BEST)]
    )
    found = fsseg.compare([two], baseline=FROM).tests()
    return found.reset_index().to_markdown(index=False, floatfmt=".3g")


def main(run: str, aside: int = 0) -> None:
    whole = fsseg.load_results(run)
    results = untouched(whole, aside)
    print(f"{results.cases} scans in folds {sorted({score.fold for score in results.scores})}\n")
    print(ladder(results), "\n")
    print(tests(results), "\n")
    only = replace(whole, scores=[score for score in whole.scores if score.fold == aside])
    if only.scores:
        print(f"fold {aside}, set aside:\n\n{ladder(only)}")


if __name__ == "__main__":
    pd.set_option("display.width", 200)
    main(sys.argv[1], *map(int, sys.argv[2:]))
