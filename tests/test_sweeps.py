"""Sweeps: every combination once, and what they share computed once."""

import pytest
from helpers import make_folder, write_recipe

import fsseg
from fsseg import FssegError, load_recipe
from fsseg.recipe.sweep import expand


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    return write_recipe(folder, make_folder(folder / "scans"), steps=2)


def one_row(file, **more):
    """The recipe with its first row alone."""
    recipe = load_recipe(file)
    recipe.variants = recipe.variants[:1]
    for key, value in more.items():
        setattr(recipe, key, value)
    return recipe


@pytest.mark.parametrize(
    "grid, rows",
    [
        ({"prototypes.count": list(range(1, 1002))}, "1001 rows .1 x 1001."),
        (
            {f"head.{key}": list(range(1, 121)) for key in "abc"},
            "1728000 rows .1 x 120 x 120 x 120.",
        ),
        ({"head.alpha": [1.0] * 10**6}, "1000000 rows"),
    ],
)
def test_a_sweep_of_more_rows_than_a_table_is_read_with_is_refused(file, grid, rows):
    with pytest.raises(FssegError, match=rf"\[sweep\]: makes {rows}.*expected at most 1000"):
        expand(one_row(file, sweep=grid))


def test_every_combination_is_a_row(file):
    grid = {
        "prototypes.name": ["em_gmm"],
        "prototypes.count": [1, 3],
        "threshold.name": ["ce_t", "avg_est"],
    }
    recipe = expand(one_row(file, sweep=grid))
    told = [
        (row.name, row.prototypes.options.get("count"), row.threshold.name)
        for row in recipe.variants
    ]
    assert told == [
        (f"prototypes=em_gmm, count={count}, threshold={name}", count, name)
        for count in (1, 3)
        for name in ("ce_t", "avg_est")
    ]
    assert not recipe.sweep


def test_several_rows_are_each_swept(file):
    recipe = load_recipe(file, {"sweep": {"training.steps": [1, 2]}})
    rows = [row.name for row in recipe.variants]
    expanded = expand(recipe)
    assert [row.name for row in expanded.variants] == [
        f"{row}: steps={steps}" for row in rows for steps in (1, 2)
    ]
    assert [expanded.training_of(row).steps for row in expanded.variants] == [1, 2] * len(rows)


@pytest.mark.parametrize(
    "grid, sentence",
    [
        (
            {"backbone.channels": [1]},
            "backbone.channels: expected a setting of a row, in prototypes, head, segmenter, threshold, refiners, training",
        ),
        ({"threshold": ["ce_t"]}, "threshold: expected a setting of a row"),
        ({"prototypes.count": []}, "prototypes.count: expected a list of values, got \\[\\]"),
        ({"prototypes.cuont": [1]}, "cuont: unknown key"),
        ({"training.steps": ["many"]}, "steps: expected a valid integer, got 'many'"),
    ],
)
def test_what_cannot_be_swept(file, grid, sentence):
    with pytest.raises(FssegError, match=sentence):
        expand(one_row(file, sweep=grid))


def test_a_sweep_shares_its_trainings_and_shows_a_grid(file, tmp_path, monkeypatch):
    """Two trainings for four rows; the same table from the recipe's own `[sweep]`."""
    from fsseg.runs.train import train_together

    trained = []
    monkeypatch.setattr(
        "fsseg.runs.train.train_together",
        lambda them, *rest: trained.append(1) or train_together(them, *rest),
    )
    grid = {"training.steps": [1, 2], "threshold.name": ["ce_t", "ocp"]}
    found = fsseg.sweep(one_row(file), grid, runs_dir=tmp_path / "runs")
    assert len(trained) == 2
    shown = found.grid()
    assert (
        shown.shape == (2, 2)
        and list(shown.index) == ["1", "2"]
        and list(shown.columns) == ["ce_t", "ocp"]
    )
    table = found.table()
    assert table["training.steps"].tolist() == [1, 1, 2, 2]
    assert shown.loc["2", "ocp"] == table.loc["steps=2, threshold=ocp", "mean"]
    again = fsseg.run(one_row(file, sweep=grid), runs_dir=tmp_path / "runs")
    assert len(trained) == 2 and again.table()["mean"].tolist() == table["mean"].tolist()
    lines = found.plot().axes[0].lines
    assert [line.get_label() for line in lines] == ["ce_t", "ocp"]
    assert list(lines[1].get_ydata()) == shown["ocp"].tolist()


def test_settings_of_the_recipe_make_runs_of_their_own(file, tmp_path):
    found = fsseg.sweep(
        one_row(file),
        {"calibration.episodes": [2, 3], "threshold.name": ["avg_est"]},
        runs_dir=tmp_path,
    )
    assert len(found.comparison.runs) == 2 and found.grid().shape == (2, 1)
    assert list(found.settings) == [
        "episodes=2, threshold=avg_est",
        "episodes=3, threshold=avg_est",
    ]


def test_a_recipes_own_sweep_is_that_of_the_same_grid(file, tmp_path):
    """From its file too; the row that the others are compared with is a combination by its name."""
    grid = {"threshold.name": ["ce_t", "avg_est"]}
    recipe = one_row(file, sweep=grid)
    own = fsseg.sweep(recipe, baseline="threshold=avg_est", runs_dir=tmp_path / "runs")
    assert own.comparison.baseline == "threshold=avg_est"
    written = tmp_path / "swept.toml"
    written.write_text(recipe.toml())
    for same in (
        fsseg.sweep(written, runs_dir=tmp_path / "runs"),
        fsseg.sweep(one_row(file), grid, runs_dir=tmp_path / "runs"),
    ):
        assert (
            same.table()["mean"].to_dict() == own.table()["mean"].to_dict()
            and len(same.settings) == 2
        )
    assert own.comparison.runs[0].variants == ["threshold=ce_t", "threshold=avg_est"]  # each once


def test_nothing_to_sweep(file):
    for grid, row in (({}, None), ({"threshold.name": ["ce_t"]}, "nobody")):
        with pytest.raises(
            FssegError, match="sweep: expected values by key and a row of the recipe"
        ):
            fsseg.sweep(load_recipe(file), grid, row=row)
