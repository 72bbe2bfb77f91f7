from pathlib import Path

import pytest

from fsseg import FssegError, load_recipe
from fsseg.recipe.reading import parse_recipe
from fsseg.recipe.tables import Recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").rglob("*.toml"))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("""
seed = 1
[dataset]
name = "abdomen_phantom"
seed = 4
[backbone]
name = "timm"
strides = [8, 16]
[training]
steps = 10
[[variants]]
name = "ADNet"
head = "adnet"
threshold = "ce_t"
training = { head = "adnet", t_loss = 1.0 }
[[variants]]
name = "TPM"
prototypes = { name = "em_gmm", count = 3 }
threshold = { name = "fixed", prior = 0.2 }
""")
    return path


def test_a_recipe_reads_as_written(path):
    recipe = load_recipe(path)
    assert (recipe.seed, recipe.training.steps, recipe.protocol.name) == (1, 10, "ep2")
    assert recipe.dataset.options == {"seed": 4}
    assert recipe.variants[1].prototypes.options == {"count": 3}
    assert recipe.training_of(recipe.variants[0]).head.name == "adnet"
    assert recipe.training_of(recipe.variants[0]).steps == 10
    assert recipe.training_of(recipe.variants[1]).t_loss == 0


def test_the_stored_recipe_is_the_same_recipe(path, tmp_path):
    recipe = load_recipe(path)
    stored = tmp_path / "stored.toml"
    stored.write_text(recipe.toml())
    assert load_recipe(stored) == recipe


def test_overrides_by_dotted_key(path):
    changes = {
        "training.steps": 5,
        "variants.1.threshold": "ocp",
        "variants.1.prototypes.count": 7,
        "variants.0.head.alpha": 10.0,
        "protocol.fold": "all",
        "calibration.episodes": 9,
    }
    recipe = load_recipe(path, changes)
    assert recipe.training.steps == 5
    assert recipe.variants[1].threshold.name == "ocp"
    assert recipe.variants[1].prototypes.options == {"count": 7}
    assert recipe.variants[0].head.model_dump() == {"name": "adnet", "alpha": 10.0}
    assert recipe.protocol.fold == "all"


def test_naming_another_component_drops_the_options_of_the_old_one(path):
    assert load_recipe(path, {"dataset.name": "nifti", "dataset.root": "x"}).dataset.options == {
        "root": "x"
    }
    assert load_recipe(path, {"dataset.name": "abdomen_phantom"}).dataset.options == {"seed": 4}
    assert (
        load_recipe(path, {"variants.1.threshold.name": "ce_t"}).variants[1].threshold.options == {}
    )
    assert load_recipe(path, {"variants.1.name": "five"}).variants[1].prototypes.options == {
        "count": 3
    }


def test_everything_wrong_is_reported_at_once(path):
    text = path.read_text()
    for old, new in [
        ("steps = 10", "stps = 10\nlearning_rate = 'fast'"),
        ("strides = [8, 16]", "strides = [8, 'x']\nweigths = 'none'"),
        ('threshold = "ce_t"', 'threshold = "ce_tt"'),
        ("count = 3", "count = 0"),
        ("prior = 0.2", "prior = 2.0"),
        ("seed = 1", "sed = 1"),
        ("t_loss = 1.0", "t_los = 1.0"),
    ]:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    with pytest.raises(FssegError) as caught:
        load_recipe(path)
    message = str(caught.value)
    for expected in [
        f"{path}: top level: sed: unknown key; did you mean 'seed'?",
        "[training]: stps: unknown key; did you mean 'steps'?",
        "[training]: learning_rate: expected a valid number, got 'fast'",
        "[backbone.strides]: 1: expected a valid integer, got 'x'",
        "[backbone]: weigths: unknown key; did you mean 'weights'?",
        "[[variants]] number 1, threshold: name: there is no threshold 'ce_tt'; did you mean 'ce_t'?",
        "[[variants]] number 2, prototypes: count: expected greater than or equal to 1, got 0",
        "[[variants]] number 2, threshold: prior: expected less than 1, got 2.0",
        "[[variants]] number 1, training: t_los: unknown key; did you mean 't_loss'?",
    ]:
        assert expected in message
    assert len(message.splitlines()) == 9


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"variants.1.name": "ADNet"}, "'ADNet' is used twice"),
        ({"variants.5.name": "x"}, "expected a number from 0 to 1, got '5'"),
        ({"seed.deep": 1}, "--set seed.deep"),
        ({"training.steps": "10"}, "[training]: steps: expected a valid integer, got '10'"),
        (
            {"protocol.fold": "some"},
            "[protocol]: fold: expected a valid integer or 'all', got 'some'",
        ),
        (
            {"protocol.folds": "hansen"},
            "[protocol.folds]: name: there is no folds 'hansen'; did you mean 'hansen2022'?",
        ),
        (
            {"protocol.name": "ep3"},
            "[protocol]: name: there is no protocol 'ep3'; did you mean 'ep2'?",
        ),
        (
            {"protocol.name": "own_slice", "protocol.options.drwn": True},
            "[protocol.options]: drwn: unknown key; did you mean 'drawn'?",
        ),
        (
            {"protocol.options.drawn": True},
            "[protocol.options]: drawn: unknown key; there are no options",
        ),
        ({"dataset": {"seed": 1}}, "[dataset]: name: is missing"),
        ({"variants": []}, "top level: variants: "),
        (
            {"training.head": "adnett"},
            "[training.head]: name: there is no head 'adnett'; did you mean 'adnet'?",
        ),
    ],
)
def test_single_mistakes(path, changes, expected):
    with pytest.raises(FssegError) as caught:
        load_recipe(path, changes)
    assert expected in str(caught.value)


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(FssegError, match="there is no such recipe"):
        load_recipe(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[dataset\n")
    with pytest.raises(FssegError, match="not valid TOML: .*line 1"):
        load_recipe(broken)


def test_fields_can_be_changed_and_are_checked(path):
    recipe = load_recipe(path)
    recipe.training.steps = 7
    recipe.variants[0].threshold = "ocp"
    assert recipe.variants[0].threshold.name == "ocp"
    recipe.check()
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        recipe.training.steps = -1
    recipe.variants[0].threshold = "oracle"
    with pytest.raises(FssegError, match="there is no threshold 'oracle'"):
        recipe.check()


def test_a_minimal_recipe_gets_the_papers_settings():
    recipe = parse_recipe(
        {
            "dataset": "abdomen_phantom",
            "backbone": "timm",
            "variants": [{"name": "x", "threshold": "ce_t"}],
        }
    )
    training = recipe.training
    assert (training.steps, training.learning_rate, training.decay, training.decay_every) == (
        50_000,
        1e-3,
        0.95,
        1000,
    )
    assert (training.momentum, training.weight_decay, training.background_weight) == (
        0.9,
        5e-4,
        0.1,
    )
    assert recipe.calibration.episodes == 1000
    assert isinstance(recipe, Recipe)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_is_valid(recipe):
    load_recipe(recipe)
    assert RECIPES
