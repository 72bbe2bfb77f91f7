"""Numbers that are not finite, or that nothing can compute with: refused where they are given, and seen where they arise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TinyBackbone, block_scan, make_folder, published_rules, scans_of, write_recipe
from pydantic import ValidationError

import fsseg
from fsseg import (
    AdNet,
    EmGmm,
    EpisodeSampler,
    FssegError,
    LinEst,
    MaskedAverage,
    Segmenter,
    Tpm,
)
from fsseg.data.intensity import Scaling
from fsseg.data.intensity_rules import ZScore
from fsseg.errors import DataError, RecipeError
from fsseg.plugins.manager import registry
from fsseg.plugins.numbers import are_finite
from fsseg.plugins.options import schema
from fsseg.recipe.components import Content, Table
from fsseg.recipe.tables import Recipe, TrainingTable
from fsseg.recipe.trainings import trainings_of
from fsseg.runs.run import plan_folds
from fsseg.runs.train import training_stage
from fsseg.system.devices import threads_for
from fsseg.system.progress import Silent
from fsseg.training.loop import Training, train_together

CPU = torch.device("cpu")
INF = math.inf
RECIPE = Path(__file__).parents[1] / "recipes" / "tpm_mp5_linest.toml"


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("training.weight_decay", INF, r"\[training\]: weight_decay: expected a finite number"),
        ("training.learning_rate", 1e300, r"learning_rate: expected 0 or a number from 1.2e-38"),
        ("training.gradient_clip", 1e-300, r"gradient_clip: expected 0 or a number from 1.2e-38"),
        ("training.t_loss", 10**400, "t_loss: expected a finite number"),
        ("episodes.gamma", [0.5, INF], r"\[episodes\]: gamma: expected a finite number"),
        ("episodes.gamma", [-1.0, 1.0], r"gamma: expected \[low, high\] with 0 < low <= high"),
        ("episodes.zoom", [1.2, 0.9], r"zoom: expected \[low, high\] with 0 < low <= high"),
        ("episodes.zoom", [math.nan, 1.0], "zoom: expected"),
        ("episodes.shear", 90.0, "shear: expected less than 90"),
        ("training.steps", 2**64, "steps: expected a whole number of at most 63 bits"),
        pytest.param(
            "training.steps", 10**5000, "a whole number of thousands of digits", id="digits"
        ),
        ("training.classes", 10**9, "classes: expected less than or equal to 254"),
        ("seed", 2**127, r"seed: expected a whole number from 0 to 2\*\*63 - 1"),
        ("seed", [1, 2**63], r"seed: expected a whole number from 0 to 2\*\*63 - 1"),
        ("backbone.seed", 2**64, "seed: expected a whole number of at most 63 bits"),
        ("supervoxels.scale", INF, r"\[supervoxels\]: scale: expected a finite number"),
        ("variants.0.head.sigmas", [1.0, INF], "head: sigmas: expected a finite number"),
        ("variants.0.training", {"decay": math.nan}, "training: decay: expected"),
        ("sweep", {"head.alpha": [20.0, -INF]}, "sweep: expected a finite number"),
    ],
)
def test_what_nothing_can_compute_with_is_refused_in_a_recipe(key, value, expected):
    with pytest.raises(RecipeError, match=expected):
        fsseg.load_recipe(RECIPE, {key: value})


def numeric(fields):
    """The names of fields that hold a number, or several."""
    return [name for name, field in fields.items() if "float" in str(field.annotation)]


def tables():
    """Every table with fixed keys of a recipe."""
    found: list[type[Table]] = []
    waiting = [Recipe]
    while waiting:
        table = waiting.pop()
        found.append(table)
        contents = [Content.of(field) for field in table.model_fields.values()]
        waiting += [each.table for each in contents if each.table and each.table not in found]
    return found


@pytest.mark.parametrize("value", [INF, -INF, math.nan, 1e39])
def test_every_float_of_every_table_and_component_is_bounded(value):
    """Whatever a plugin adds: the rule is the schema's, not a field's."""
    looked_at = 0
    for table in tables():
        for name in numeric(table.model_fields):
            pair = "tuple" in str(table.model_fields[name].annotation)
            with pytest.raises(ValidationError):
                table.model_validate({name: [value, value] if pair else value})
            looked_at += 1
    for component in registry():
        for name in numeric(schema(component.load()).model_fields):
            problems = dict(registry().problems(component.kind, component.name, {name: value}))
            assert "expected" in problems[name], (component, name)
            looked_at += 1
    assert looked_at > 30


@pytest.mark.parametrize(
    "build",
    [
        lambda: Tpm(alpha=1e39),
        lambda: Tpm(initial_threshold=-INF),
        lambda: Tpm(sigmas=(1.0, INF)),
        lambda: AdNet(alpha=math.nan),
        lambda: EmGmm(count=2**63),
        lambda: EmGmm(count=10**5000),
        lambda: fsseg.Fixed(score=INF),
    ],
)
def test_options_from_python_are_bounded_as_well(build):
    with pytest.raises(FssegError, match="expected"):
        build()


def test_what_is_assigned_to_a_recipe_is_bounded():
    recipe = fsseg.load_recipe(RECIPE)
    for table, name, value in [
        (recipe.training, "learning_rate", INF),
        (recipe.episodes, "shift", 1e300),
        (recipe, "seed", 2**70),
        (recipe.grid, "spacing", INF),
    ]:
        with pytest.raises(ValidationError):
            setattr(table, name, value)


def test_the_largest_seed_runs_its_generators():
    """Seeds reach numpy, torch and a table of whole numbers: the largest goes through all three."""
    [seed] = fsseg.load_recipe(RECIPE, {"seed": 2**63 - 1}).seeds
    sampler = EpisodeSampler([block_scan()], published_rules())
    done = trained(sampler, seed=seed, steps=1, learning_rate=1e-3)
    assert done.step == 1


@pytest.mark.parametrize(
    "asked, processors, most", [(100_000, 2, 128), (129, 1, 128), (800, 192, 768)]
)
def test_threads_are_bounded_by_the_machine(monkeypatch, asked, processors, most):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    with pytest.raises(
        FssegError, match=f"threads: is {asked}, expected at most {most} .* {processors} proc"
    ):
        threads_for(asked)
    assert threads_for(most) == most


@pytest.fixture(scope="module")
def sampler():
    return EpisodeSampler([block_scan()], published_rules())


def trained(sampler, seed=0, head=None, **options):
    training = Training(
        TinyBackbone(), MaskedAverage(), head or Tpm(), sampler, TrainingTable(**options),
        seed=seed, mode="default", device=CPU, name="training of TPM",
    )  # fmt: skip
    [done] = train_together([training])
    return done


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 1e30, "steps": 3},
        {"learning_rate": 1e30, "steps": 60},
        {"weight_decay": 1e38, "steps": 30},
        {"gradient_clip": 1e38, "alignment": 1e38, "t_loss": 1e38, "steps": 2},
        {"momentum": 0.999, "learning_rate": 3e37, "steps": 2},
    ],
)
def test_a_training_that_diverges_says_at_which_step_and_rate(sampler, options):
    """The first whose loss is no number: the second, after one update, however late that is read."""
    rate = options.get("learning_rate", 1e-3)
    told = rf"training of TPM: \w.* by step 2, at a learning rate of {rate:g}".replace("+", r"\+")
    with pytest.raises(FssegError, match=f"{told}.*lower training.learning_rate"):
        trained(sampler, **options)


def test_a_training_that_diverged_is_not_saved(sampler):
    """Who takes the newest file would go on from there for ever."""
    training = Training(
        TinyBackbone(), MaskedAverage(), Tpm(), sampler, TrainingTable(learning_rate=1e30),
        seed=0, mode="default", device=CPU,
    )  # fmt: skip
    training.snapshot()
    for _ in range(3):
        training.advance()
    with pytest.raises(FssegError, match="by step 2.*diverged"):
        training.snapshot()


def refuse_constant(name):
    raise AssertionError(f"{name} is no JSON")


def test_a_run_that_diverges_keeps_nothing_of_it(tmp_path):
    path = write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=30)
    recipe = fsseg.load_recipe(path, {"training.learning_rate": 1e10})
    plan = plan_folds(recipe, tmp_path / "runs", CPU, Silent())[0]
    stage = training_stage(plan, trainings_of(recipe)[0])
    with pytest.raises(
        FssegError, match="training of CE-T and 2 more, fold 0, seed 3: loss .* step 2,"
    ):
        plan.stages.finish(stage)
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


class Broken(TinyBackbone):
    """Its features are not finite where a slice is bright."""

    def forward(self, images):
        return super().forward(images) / (images.amax() < -100).float()


def test_a_calibration_of_no_numbers_is_refused(sampler):
    backbone = Broken()
    segmenter = Segmenter(backbone, MaskedAverage(), Tpm(), LinEst())
    with pytest.raises(FssegError, match="calibration: an episode's ideal prior .* not finite"):
        fsseg.calibrate(backbone, [segmenter], sampler, episodes=2)


class Sour(LinEst):
    """Learns nothing that can be used."""

    def state(self):
        return {"coefficients": [1.0, [INF]]}


def test_what_a_threshold_learned_has_to_be_numbers(sampler):
    backbone = TinyBackbone()
    segmenter = Segmenter(backbone, MaskedAverage(), Tpm(), Sour())
    with pytest.raises(FssegError, match="what the threshold of segmenter 0 learned is not finite"):
        fsseg.calibrate(backbone, [segmenter], sampler, episodes=2)


def test_the_log_is_json(sampler):
    done = trained(sampler, steps=50, learning_rate=1e-3)
    lines = [json.dumps(record) for record in done.log.records()]
    assert len(lines) == 2
    for line in lines:
        json.loads(line, parse_constant=refuse_constant)


def test_finite_means_all_the_way_down():
    assert are_finite({"a": [1, 2.0, ("x", None)], "b": True})
    for value in (math.nan, [INF], {"a": {"b": [1.0, -INF]}}, (0.0, (math.nan,))):
        assert not are_finite(value)


def linear(subtract, divide, bounded=False):
    measured = {"subtract": subtract, "divide": divide, "bounded": bounded}
    return Scaling(ZScore(), measured)


@pytest.mark.parametrize(
    "scaling, value",
    [
        (linear(0.0, 1.0), math.nan),
        (linear(0.0, 1.0), INF),
        (linear(0.0, 1e-30), 1e10),
        (linear(math.nan, 1.0), 1.0),
        (linear(0.0, 1e-300), 1.0),
        (linear(0.0, 1.0, bounded=True), math.nan),
    ],
)
def test_what_a_network_would_see_is_looked_at_and_not_what_was_read(scaling, value):
    image = np.zeros((2, 3, 3), dtype=np.float32)
    image[1, 1, 1] = value
    with pytest.raises(DataError, match="case liver_7: its scaled intensities are not finite"):
        scaling.apply(image, "liver_7")


def test_scaled_intensities_are_what_they_were():
    image = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert linear(1.0, 2.0).apply(image).ravel().tolist() == [(v - 1) / 2 for v in range(8)]
    assert linear(1.0, 2.0, bounded=True).apply(image).max() == 1.0


def test_a_prediction_of_no_numbers_is_no_empty_mask(finished_run, monkeypatch):
    results = finished_run()
    predictor = fsseg.load_predictor(results.path, variant="CE-T", device="cpu")
    root = scans_of(results)
    fitted = predictor.fit(fsseg.read_volume(root / "image_10.nii.gz", root / "label_10.nii.gz"))
    backbone = predictor.segmenter.backbone
    forward = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda images: forward(images) * math.nan)
    with pytest.raises(
        FssegError, match="scan image_2: the features of backbone .* are not finite"
    ):
        fitted.predict(fsseg.read_volume(root / "image_2.nii.gz"))
