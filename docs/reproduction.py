"""Prints what docs/results.md shows of two finished runs: their tables, and each claim of the TPM paper with a paired test.

uv run python docs/reproduction.py RUN_OF_TABLE_1 RUN_OF_TABLE_2
"""

import sys
from dataclasses import dataclass

import pandas as pd

import fsseg
from fsseg import Results

LEVEL = 0.05


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
    compared = {
        claim.says: tables[claim.table].compare(claim.row, claim.against) for claim in CLAIMS
    }
    corrected = holm({says: lines.loc["mean", "p"] for says, lines in compared.items()})
    rows = {}
    for says, lines in compared.items():
        mean = lines.loc["mean"]
        rows[says] = {
            **{
                name.replace("_", " "): f"{value:+.1f}"
                for name, value in lines["difference"].items()
            },
            "higher in": f"{mean['higher']:.0f} of {mean['pairs']:.0f}",
            "p": f"{corrected[says]:.2g}",
            "verdict": verdict(mean["difference"], corrected[says]),
        }
    return _markdown(pd.DataFrame.from_dict(rows, orient="index"), "claim", 1)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """P-values corrected for their number (Holm, 1979)."""
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.get)):
        largest = max(largest, min(1.0, p_values[name] * (len(p_values) - rank)))
        corrected[name] = largest
    return corrected


def verdict(difference: float, p: float) -> str:
    """What a difference of means and its corrected p-value say of a claim."""
    if p >= LEVEL:
        return "not shown"
    return "holds" if difference > 0 else "the opposite"


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
