"""Prints what docs/results.md shows of two finished runs: their tables, and each claim of the TPM paper with a paired test.

uv run python docs/reproduction.py RUN_OF_TABLE_1 RUN_OF_TABLE_2
"""

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd

import fsseg
from fsseg import Results
from fsseg.analysis.statistics import holm, verdict

VERDICTS = {"better": "holds", "worse": "the opposite"}
"""What the verdict about a row says of a claim."""


@dataclass(frozen=True)
class Claim:
    """That a row of a table beats another one."""

    says: str
    table: int
    row: str
    against: str


CLAIMS = [
    Claim("AvgEst over ADNet (except liver)", 1, "TPM 1, AvgEst", "ADNet"),
    Claim("LinEst over AvgEst, one prototype", 1, "TPM 1, LinEst", "TPM 1, AvgEst"),
    Claim("LinEst over AvgEst, five prototypes", 1, "TPM 5, LinEst", "TPM 5, AvgEst"),
    Claim("five prototypes over one, AvgEst", 1, "TPM 5, AvgEst", "TPM 1, AvgEst"),
    Claim("five prototypes over one, LinEst", 1, "TPM 5, LinEst", "TPM 1, LinEst"),
    Claim("OCP above all: over LinEst, one prototype", 1, "TPM 1, OCP", "TPM 1, LinEst"),
    Claim("OCP above all: over LinEst, five prototypes", 1, "TPM 5, OCP", "TPM 5, LinEst"),
    Claim("TPM over ADNet++, AvgEst", 2, "TPM, AvgEst", "ADNet++"),
    Claim("TPM over ADNet++, LinEst", 2, "TPM, LinEst", "ADNet++"),
    Claim("OCP above all: over LinEst, several classes", 2, "TPM, OCP", "TPM, LinEst"),
    *(
        Claim(
            f"multi- over single-foreground training, {name}",
            2,
            f"TPM multi-foreground, {name}",
            f"TPM, {name}",
        )
        for name in ("CE-T", "AvgEst", "LinEst", "OCP")
    ),
]


def table_of(results: Results) -> str:
    """The table of means as Markdown, oracles marked."""
    table = results.table().rename(
        index=lambda name: f"{name} \\*" if name in results.oracles else name
    )
    return _markdown(
        table.rename(columns=lambda name: name.replace("sd_", "± ").replace("_", " ")), "variant", 1
    )


def claims_of(tables: dict[int, Results]) -> str:
    """Every claim with its differences by class, pairs, p-value after Holm's correction over all claims, and verdict."""
    tests = {}
    for claim in CLAIMS:
        compared = fsseg.compare([tables[claim.table]], baseline=claim.against)
        tests[claim.says] = compared.tests().loc[claim.row]
    p_values = holm(np.array([test.loc["mean", "p_raw"] for test in tests.values()]))
    rows = {}
    for (says, test), p in zip(tests.items(), p_values):
        mean = test.loc["mean"]
        pairs = int(mean["pairs"])
        differences = test["difference"].map("{:+.1f}".format)
        rows[says] = {
            **differences.rename(lambda name: name.replace("_", " ")),
            "higher in": f"{mean['higher']} of {pairs}",
            "p": f"{p:.2g}",
            "verdict": VERDICTS.get(verdict(pairs, mean["difference"], p), "not shown"),
        }
    return _markdown(pd.DataFrame.from_dict(rows, orient="index"), "claim", 1)


def _markdown(table: pd.DataFrame, corner: str, digits: int) -> str:
    def cell(value: object) -> str:
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    lines = [[corner, *table.columns], ["---", *["---:"] * len(table.columns)]]
    lines += [[name, *map(cell, row)] for name, row in zip(table.index, table.to_numpy())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    both = {number: fsseg.load_results(path) for number, path in zip((1, 2), sys.argv[1:])}
    for results in both.values():
        print(f"{results.about}\n\n{table_of(results)}\n")
    print(claims_of(both))
