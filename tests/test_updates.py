"""Optimisers and schedules of a recipe: torch's own numbers, trainings that go on, and what cannot be named."""

import re
import tomllib
from pathlib import Path

import pytest
import torch
from helpers import TinyBackbone, block_scan, published_rules
from torch import nn

import fsseg
from fsseg import MaskedAverage, Tpm, load_recipe
from fsseg.errors import RecipeError
from fsseg.plugins.registry import Registry
from fsseg.recipe.reading import parse_recipe
from fsseg.recipe.settings import recipe_schema, settings
from fsseg.recipe.sweep import expand
from fsseg.recipe.tables import TrainingTable
from fsseg.recipe.trainings import trainings_of
from fsseg.recipe.updates import NO_OPTIMISERS, NO_SCHEDULES, rate_key_of
from fsseg.system.devices import Recorded
from fsseg.system.progress import Silent
from fsseg.training.course import Course
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.loop import Training, train_together
from fsseg.training.snapshots import Snapshots
from fsseg.training.updates import Optimiser

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
RECIPE = "recipes/tpm_mp5_linest.toml"


def tables(training):
    """A recipe with this table of its training."""
    row = {"name": "row", "threshold": "ce_t"}
    return {
        "dataset": "abdomen_phantom",
        "backbone": "timm",
        "training": training,
        "variants": [row],
    }


def table(**training):
    return parse_recipe(tables(training)).training


def refused(training, /, **row):
    written = tables(training)
    written["variants"][0] |= row
    with pytest.raises(RecipeError) as error:
        parse_recipe(written)
    return str(error.value)


def rates(options, steps):
    weight = nn.Parameter(torch.zeros(1))
    course = Course(options, Optimiser([weight], options, CPU, fused=False)._optimiser)
    return [course.at(step)[0]["lr"] for step in range(steps)]


def test_the_example_of_the_docs_is_a_schedule():
    page = (ROOT / "docs" / "training.md").read_text()
    names = {}
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.S)[0], names)  # noqa: S102
    scheduler = names["Trapezoid"](share=0.5)
    course = Course(
        TrainingTable(), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), [scheduler]
    )
    assert course.at(0)[0]["lr"] == pytest.approx(1 / 25_000)
    for block in re.findall(r"```toml\n(.*?)```", page, flags=re.S):
        written = tomllib.loads(block)
        table(**written.get("training", {}))
        if "sweep" in written:
            swept = expand(parse_recipe(tables({}) | written))
            told = [row.name for row in swept.variants]
            assert told == [f"optimiser=AdamW (lr {rate})" for rate in (0.001, 0.0001)]
    for name in [*NO_OPTIMISERS, *NO_SCHEDULES]:
        assert f"`{name}`" in page


def test_every_optimiser_and_schedule_of_torch_is_there_or_refused_with_a_reason():
    def of_torch(module, base):
        classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base)]
        return {c.__name__ for c in classes if c is not base and c.__name__[0] != "_"}

    known: Registry = fsseg.registry()
    schedules = of_torch(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert of_torch(torch.optim, torch.optim.Optimizer) == {
        *known.names("optimiser"),
        *NO_OPTIMISERS,
    }
    assert schedules | {"step_decay"} == {*known.names("schedule"), *NO_SCHEDULES}


def test_without_names_it_is_sgd_with_the_published_decay():
    """The numbers of the table as a formula, to the last digit."""
    options = TrainingTable(learning_rate=0.3, decay=0.95, decay_every=7)
    assert rates(options, 40) == [0.3 * 0.95 ** (step // 7) for step in range(40)]
    optimiser = Optimiser([nn.Parameter(torch.zeros(1))], options, CPU, fused=True)._optimiser
    assert type(optimiser) is torch.optim.SGD
    [group] = optimiser.param_groups
    assert (group["momentum"], group["weight_decay"], group["fused"]) == (0.9, 5e-4, True)


def test_updates_are_torchs_own():
    """Adam under OneCycleLR, which moves the betas too, against the two of torch in a plain loop."""
    options = table(
        steps=20, gradient_clip=1e9, optimiser={"name": "Adam", "lr": 0.01, "eps": 1e-6},
        schedule={"name": "OneCycleLR", "max_lr": 0.1},
    )  # fmt: skip
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimiser = Optimiser([ours], options, CPU, fused=False)
    plain = torch.optim.Adam([theirs], lr=0.01, eps=1e-6)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(plain, max_lr=0.1, total_steps=20)
    for step in range(20):
        assert optimiser.prepare(step) == plain.param_groups[0]["lr"]
        optimiser.update((ours - 1).pow(4).sum())
        (theirs - 1).pow(4).sum().backward()
        plain.step()
        plain.zero_grad()
        scheduler.step()
        assert torch.equal(ours, theirs)
    assert optimiser.unrecordable == "the schedule moves betas"


def test_schedules_follow_one_another():
    """A warm-up over the first four steps, then half a cosine over the six that are left, by hand."""
    options = table(
        steps=10, optimiser={"name": "SGD", "lr": 1.0}, milestones=[4],
        schedule=[{"name": "LinearLR", "start_factor": 0.2}, "CosineAnnealingLR"],
    )  # fmt: skip
    warm_up = [0.2, 0.4, 0.6, 0.8]
    cosine = [1.0, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]
    assert rates(options, 10) == pytest.approx(warm_up + cosine)
    course = Course(options, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0))
    assert course.at(7)[0]["lr"] == pytest.approx(0.5)
    assert course.at(2)[0]["lr"] == pytest.approx(0.6), "a step before"


def test_a_named_optimiser_keeps_its_rate_where_no_schedule_is_named():
    assert rates(table(optimiser="AdamW", steps=5000), 3) == [1e-3] * 3
    assert rates(table(optimiser="AdamW"), 2500)[-1] == 1e-3
    halved = table(learning_rate=0.2, schedule={"name": "StepLR", "step_size": 2, "gamma": 0.5})
    assert rates(halved, 4) == [0.2, 0.2, 0.1, 0.1]


def begin(folder=None, **training):
    saver = None if folder is None else Snapshots(folder, 100, Silent())
    return Training(
        TinyBackbone(), MaskedAverage(), Tpm(), EpisodeSampler([block_scan()], published_rules()),
        table(steps=9, **training), seed=5, mode="default", device=CPU, saver=saver,
    )  # fmt: skip


COMBINATIONS = [
    {"optimiser": {"name": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True},
     "schedule": {"name": "CosineAnnealingWarmRestarts", "T_0": 3}},
    {"optimiser": "AdamW", "schedule": {"name": "OneCycleLR", "max_lr": 0.01}},
    {"optimiser": "NAdam", "schedule": ["LinearLR", "PolynomialLR"], "milestones": [3]},
    {"optimiser": "Adafactor", "schedule": {"name": "CyclicLR", "base_lr": 1e-4, "max_lr": 1e-2,
                                            "step_size_up": 2, "cycle_momentum": False}},
    {"optimiser": "Rprop", "schedule": {"name": "ExponentialLR", "gamma": 0.7}},
]  # fmt: skip


@pytest.mark.parametrize("training", COMBINATIONS, ids=lambda training: str(training["optimiser"]))
def test_a_training_goes_on_with_the_same_bits(training, tmp_path):
    """Also where the schedule moves the momentum, in a second stretch, and with states of other shapes."""
    [whole] = train_together([begin(**training)])
    first = begin(tmp_path, **training)
    for _ in range(5):
        first.advance()
    first.saver.save(first)
    second = begin(tmp_path, **training)
    assert second.step == 5
    train_together([second])
    for ours, theirs in zip(second.backbone.parameters(), whole.backbone.parameters()):
        assert torch.equal(ours, theirs)
    assert second._optimiser.rate == whole._optimiser.rate


def test_what_cannot_be_recorded_is_told(tmp_path):
    """With a stand-in that would record; it is not even tried, or given up when the momentum moves."""
    for training, reason in (
        ({"optimiser": "Adagrad"}, "optimiser 'Adagrad' of fsseg .* cannot be recorded"),
        ({"schedule": {"name": "OneCycleLR", "max_lr": 0.01}}, "the schedule moves momentum"),
        ({"optimiser": "Adam"}, None),
    ):
        one, made = begin(**training), []
        one._recorded = Recorded(
            lambda: None, CPU, record=lambda function, made=made: made.append(1) or function
        )
        for _ in range(6):
            one._recorded(one._optimiser.unrecordable or None)
            one._optimiser.prepare(one.step)
            one.step += 1
        assert len(made) == (reason is None)
        assert one.problem is None if reason is None else re.match(reason, one.problem)


WARM = {"name": "LinearLR"}
REFUSED = [
    ({"optimiser": "adamw"}, "[training.optimiser]: name: there is no optimiser 'adamw'; did you mean 'AdamW'?"),
    ({"optimiser": {"name": "AdamW", "beta": [0.9, 0.99]}}, "beta: unknown key; did you mean 'betas'?"),
    ({"optimiser": {"name": "AdamW", "lr": "fast"}}, "lr: expected a valid number, got 'fast'"),
    ({"optimiser": {"name": "AdamW", "lr": -1.0}}, "lr: torch.optim.AdamW refuses it (Invalid learning rate: -1.0)"),
    ({"optimiser": {"name": "AdamW", "betas": [0.9, 2.0]}}, "betas: torch.optim.AdamW refuses it"),
    ({"optimiser": {"name": "SGD", "lr": 0.1, "nesterov": True}}, "nesterov: torch.optim.SGD refuses it (Nesterov"),
    ({"optimiser": {"name": "AdamW", "fused": True}}, "fused: is not for a recipe to say: [speed] fused says it"),
    ({"optimiser": {"name": "AdamW", "maximize": True}}, "maximize: is not for a recipe to say: training goes down"),
    ({"optimiser": "LBFGS"}, "LBFGS cannot be used: it asks for the loss of one episode several times a step"),
    ({"schedule": "LambdaLR"}, "LambdaLR cannot be used: it takes a function, which a recipe cannot hold"),
    ({"schedule": "ReduceLROnPlateau"}, "ReduceLROnPlateau cannot be used: it waits for a loss"),
    ({"schedule": "SequentialLR"}, "give a list of schedules, and training.milestones"),
    ({"schedule": "none"}, "there is no schedule 'none'"),
    ({"schedule": {"name": "StepLR", "step_size": 0}}, "step_size: expected greater than or equal to 1, got 0"),
    ({"schedule": {"name": "StepLR"}}, "step_size: is missing"),
    ({"schedule": {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 10}, "steps": 20},
     "OneCycleLR cannot be used with SGD (total_steps is 10, fewer than the 20 steps that it is for)"),
    ({"optimiser": "Adagrad", "schedule": {"name": "OneCycleLR", "max_lr": 0.1}},
     "OneCycleLR cannot be used with Adagrad (optimizer must support momentum"),
    ({"optimiser": "AdamW", "learning_rate": 0.1}, "[training]: learning_rate: is a number of the published optimiser"),
    ({"optimiser": "AdamW", "decay": 0.5}, "decay: is a number of the published optimiser"),
    ({"schedule": WARM, "decay_every": 5}, "and beside it training.schedule names another"),
    ({"schedule": [WARM, WARM]}, "milestones: has 0 steps, expected 1: one for each of the 2 schedules"),
    ({"milestones": [5]}, "milestones: has 1 steps, expected 0"),
    ({"schedule": [WARM, WARM], "milestones": [30], "steps": 30}, "expected rising steps below the training's 30"),
]  # fmt: skip


@pytest.mark.parametrize("training, sentence", REFUSED, ids=lambda value: str(value)[:50])
def test_what_is_refused(training, sentence):
    assert sentence in refused(training)


def test_a_training_that_diverges_says_which_rate_to_lower():
    one = begin(optimiser={"name": "SGD", "lr": 1e30})
    with pytest.raises(
        fsseg.FssegError, match=r"it diverged; lower training.optimiser.lr \(to 1e\+29"
    ):
        train_together([one])
    assert rate_key_of(table(schedule={"name": "OneCycleLR", "max_lr": 1.0})).endswith("0.max_lr")


def test_a_rate_that_is_none_is_refused():
    class Wrong:
        def __call__(self, optimiser, steps):
            return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: float("nan"))

    weight = nn.Parameter(torch.zeros(1))
    course = Course(TrainingTable(), torch.optim.SGD([weight], lr=0.1), [Wrong()])
    with pytest.raises(
        fsseg.FssegError, match="schedule Wrong: gives a learning rate of nan for step 3"
    ):
        course.at(3)


def test_a_row_has_its_own_optimiser_in_place_of_the_tables_numbers():
    base = {"learning_rate": 0.005, "steps": 100, "schedule": [WARM, WARM], "milestones": [9]}
    written = tables(base)
    written["variants"].append(
        {
            "name": "AdamW",
            "threshold": "ce_t",
            "training": {"optimiser": {"name": "AdamW", "lr": 1e-4}},
        }
    )
    recipe = parse_recipe(written)
    first, second = trainings_of(recipe)
    assert first.table.learning_rate == 0.005 and first.table.optimiser is None
    assert second.table.optimiser.options == {"lr": 1e-4} and second.table.steps == 100
    assert second.table.schedule == [] and second.table.milestones == []
    assert trainings_of(parse_recipe(recipe.dumps())) == trainings_of(recipe)
    told = refused({"optimiser": "AdamW"}, training={"learning_rate": 0.1})
    assert "[[variants]] number 1, training: learning_rate: is a number of the published" in told


def test_on_the_command_line_an_optimiser_takes_the_place_of_the_recipes_numbers():
    changed = load_recipe(RECIPE, {"training.optimiser": "AdamW", "training.optimiser.lr": 1e-4})
    assert changed.training.optimiser.options == {"lr": 1e-4}
    moved = load_recipe(RECIPE, {"training.schedule": "CosineAnnealingLR"})
    assert moved.training.learning_rate == 0.005, "the schedule moves SGD's rate"
    with pytest.raises(RecipeError, match="learning_rate: is a number of the published"):
        load_recipe(RECIPE, {"training.learning_rate": 0.1, "training.optimiser": "AdamW"})
    load_recipe(RECIPE, {"variants.0.training.optimiser": {"name": "AdamW"}})


def test_a_recipe_that_is_written_out_can_be_read_again():
    recipe = parse_recipe(tables({"optimiser": "AdamW", "schedule": "CosineAnnealingLR"}))
    assert "learning_rate" not in recipe.toml() and "decay" not in recipe.toml()
    assert parse_recipe(recipe.dumps()) == recipe
    plain = load_recipe(RECIPE)
    assert "learning_rate = 0.005" in plain.toml() and "optimiser" not in plain.toml()


def test_an_explained_recipe_shows_their_options():
    written = tables(
        {"optimiser": "AdamW", "schedule": [WARM, "CosineAnnealingLR"], "milestones": [5]}
    )
    told = {(s.table, s.key): s.value for s in settings(parse_recipe(written), written, {})}
    assert told["training.optimiser", "name"] == "AdamW"
    assert told["training.optimiser", "weight_decay"] == 0.01
    assert told["training.schedule.0", "end_factor"] == 1.0
    plain = load_recipe(RECIPE)
    told = {(s.table, s.key): s.value for s in settings(plain, plain.dumps(), {})}
    assert told["training", "optimiser"] is None
    schema = recipe_schema()["definitions"]
    assert "weight_decay" in str(schema["optimiser"]) and "T_max" in str(schema["schedule"])
