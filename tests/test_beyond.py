"""docs/beyond.py: it leaves out what was looked at, and its shares of the gap are right; the recipe is what it names."""

import importlib.util
from pathlib import Path

import pytest

import fsseg
from fsseg.evaluation.scores import CaseScore
from fsseg.runs.results import Results

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("beyond", ROOT / "docs" / "beyond.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipe_has_the_rows_and_the_training_of_the_quickstart(page):
    recipe, first = (
        fsseg.load_recipe(ROOT / "recipes" / f"{name}.toml")
        for name in ("beyond", "tpm_mp5_linest")
    )
    names = [row.name for row in recipe.variants]
    assert {page.FROM, page.TO, page.BEST} <= set(names)
    assert recipe.training == first.training and recipe.backbone == first.backbone
    best = recipe.variants[names.index(page.BEST)]
    assert [refiner.name for refiner in best.refiners] == [
        "position",
        "query_informed",
        "component_3d",
    ]
    assert best.threshold.name == "lin_est"


def results(tmp_path):
    """Dice 50, 80 and 90 percent, two points more with each scan; scan 0 is a query of folds 0 and 4."""
    scores = []
    for fold, cases in ((0, "0123"), (1, "4567"), (4, "089")):
        for case in cases:
            for name, share in (
                ("TPM 5, LinEst", 50),
                ("position, discriminant, component", 80),
                ("TPM 5, OCP", 90),
            ):
                found = share + int(case) % 3
                scores.append(
                    CaseScore(name, "OCP" in name, fold, 0, case, "x", "s", (1,), found, 100, 100)
                )
    return Results(tmp_path, scores, ["x"], {"data": {}, "protocol_hash": "p", "fold_scheme": "f"})


def test_queries_of_the_fold_set_aside_are_left_out_everywhere(page, tmp_path):
    left = page.untouched(results(tmp_path), 0)
    assert {(score.fold, score.case) for score in left.scores} == {(1, c) for c in "4567"} | {
        (4, "8"),
        (4, "9"),
    }


def test_the_share_of_the_gap(page, tmp_path):
    lines = {
        line.split("|")[1].strip(): line for line in page.ladder(results(tmp_path)).splitlines()
    }
    assert lines["TPM 5, LinEst"].rstrip("| ").endswith("0%")
    assert lines["position, discriminant, component"].rstrip("| ").endswith("75%")
    assert lines["TPM 5, OCP \\*"].rstrip("| ").endswith("100%")
