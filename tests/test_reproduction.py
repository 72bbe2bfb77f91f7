"""docs/reproduction.py: its claims name rows of the recipes, its tables are Markdown."""

import importlib.util
from pathlib import Path

import pytest

import fsseg
from fsseg.evaluation.scores import CaseScore
from fsseg.runs.results import Results

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("reproduction", ROOT / "docs" / "reproduction.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", ["recipes", "recipes/paper/abd_mri", "recipes/paper/abd_ct"])
def test_claims_are_about_rows_of_the_recipes(page, folder):
    rows = {
        n: [v.name for v in fsseg.load_recipe(ROOT / folder / f"table{n}.toml").variants]
        for n in (1, 2)
    }
    assert len(rows[1]) == len(rows[2]) == 9
    assert all(
        claim.row in rows[claim.table] and claim.against in rows[claim.table]
        for claim in page.CLAIMS
    )


def test_the_tables_of_two_runs(page, tmp_path):
    """Every row is four voxels better than the one before it, in each of ten scans (and some noise)."""
    tables = {}
    for number in (1, 2):
        names = dict.fromkeys(
            name
            for claim in page.CLAIMS
            if claim.table == number
            for name in (claim.against, claim.row)
        )
        scores = [
            CaseScore(
                name,
                "OCP" in name,
                0,
                0,
                str(case),
                "x",
                "s",
                (1,),
                50 + 4 * rank + case % 3,
                100,
                100,
            )
            for rank, name in enumerate(names)
            for case in range(10)
        ]
        tables[number] = Results(tmp_path, scores, ["x"], {})
    first = page.table_of(tables[1]).splitlines()
    assert first[0] == "| variant | x | mean | ± cases |"
    assert first[2] == "| ADNet | 50.9 | 50.9 | 0.9 |" and any(
        "TPM 1, OCP \\*" in line for line in first
    )
    claims = page.claims_of(tables).splitlines()
    assert claims[2].startswith("| AvgEst over ADNet (except liver) | +4.0 | +4.0 | 10 of 10 |")
    assert len(claims) == 2 + len(page.CLAIMS) and claims[2].endswith("| holds |")
    # Two of 1,024 signs, times the number of claims, which are all as clear.
    assert claims[2].split(" | ")[-2] == f"{len(page.CLAIMS) * 2 / 1024:.2g}"
