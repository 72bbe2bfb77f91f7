"""What is measured and estimated; the figures themselves are a matter of the machine."""

import json

import pytest
import torch
from helpers import TinyBackbone, make_folder, write_recipe
from typer.testing import CliRunner

import fsseg
from fsseg.cli.main import app
from fsseg.recipe.trainings import trainings_of
from fsseg.runs import estimate as timing
from fsseg.runs.estimate import Speeds, bare_step, estimate, steps_left
from fsseg.runs.made_up import made_up_scan
from fsseg.runs.run import plan_folds
from fsseg.system.progress import Silent, told_time
from fsseg.training.speed import Speed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"))


def planned(tmp_path, root, changes=None):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=4), changes)
    return plan_folds(recipe, tmp_path / "runs", torch.device("cpu"), Silent())


UNIT = Speeds(
    "machine",
    (64, 64),
    Speed("float32", False, True, True),
    step=2.0,
    bare_step=1.5,
    slice=0.25,
    episode=3.0,
    decision=0.5,
)


def test_an_estimate_by_hand(tmp_path, root, monkeypatch):
    """Two seeds of a fold of two queries (disjoint5 of 10 cases: one support, one query) with five slices, two classes."""
    monkeypatch.setattr(timing, "measure_speeds", lambda fold: UNIT)
    folds = planned(tmp_path, root, {"seed": [0, 1]})
    assert [len(fold.fold.queries) for fold in folds] == [1, 1]
    found = estimate(folds)
    assert found.steps == 2 * 4 and found.training == 2 * 4 * 2.0
    assert found.calibration == 2 * 6 * 3.0
    assert found.evaluation == 2 * (5 * 0.25 + 5 * 2 * 0.5)
    assert (
        found.speeds.fraction == 0.75
        and found.total == found.training + found.calibration + found.evaluation
    )
    together = estimate(planned(tmp_path, root, {"protocol.name": "ep2_multi"}))
    assert together.evaluation == 10 * 0.25 + 10 * 1 * 0.5, (
        "each of two in turn, for all classes at once"
    )


def test_what_is_finished_takes_no_time(tmp_path, root):
    folds = planned(tmp_path, root)
    assert steps_left(folds) == 4
    fsseg.run(folds[0].recipe, runs_dir=tmp_path / "runs", device="cpu")
    assert steps_left(planned(tmp_path, root)) == 0


def test_measuring_leaves_nothing_behind(tmp_path, root):
    """Every figure is positive, and no stage is written."""
    found = estimate(planned(tmp_path, root))
    speeds = found.speeds
    assert min(speeds.step, speeds.bare_step, speeds.slice, speeds.episode, speeds.decision) > 0
    assert speeds.size == (64, 64) and not (tmp_path / "runs").exists()
    assert f"{found.steps} steps" in str(found) and "supervoxels that are not kept yet" in str(
        found
    )


def test_the_bare_step_is_two_slices_and_an_update(tmp_path, root):
    [fold] = planned(tmp_path, root)
    training = trainings_of(fold.recipe)[0].table
    network = TinyBackbone()
    weight, seen = network.convolution.weight, []
    before = weight.detach().clone()
    network.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    bare_step(network, made_up_scan((32, 48)).images[:2], training, UNIT.speed)()
    assert seen == [(2, 3, 32, 48)] and not torch.equal(before, weight) and weight.grad is None


@pytest.mark.slow
def test_the_shell_prints_the_figures(tmp_path, root):
    recipe = write_recipe(tmp_path, root, steps=4)
    done = CliRunner().invoke(
        app, ["bench", str(recipe), "--runs-dir", str(tmp_path / "runs"), "--device", "cpu"]
    )
    assert done.exit_code == 0
    for words in ("training step", "bare network", "slice, network", "this recipe", "64 x 64"):
        assert words in done.output
    done = CliRunner().invoke(app, ["bench", str(recipe), "--json", "--device", "cpu"])
    figures = json.loads(done.stdout[done.stdout.index("{") :])
    assert figures["total"] == pytest.approx(
        figures["training"] + figures["calibration"] + figures["evaluation"]
    )
    assert figures["speeds"]["speed"]["precision"] == "float32"


@pytest.mark.slow
def test_a_run_tells_how_long_it_will_take(tmp_path, root, monkeypatch, shell):
    """Only where that is worth the seconds it takes to find out."""
    monkeypatch.setattr("fsseg.runs.run.WORTH_AN_ESTIMATE", 3)
    recipe = write_recipe(tmp_path, root)
    for steps, expected in ((2, 0), (3, 1)):
        words = ["--runs-dir", tmp_path, "--set", f"training.steps={steps}"]
        assert shell("run", recipe, *words).stderr.count("estimate for CPU") == expected


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.2, "3 s"), (89, "89 s"), (100, "2 min"), (7200, "2.0 h")]
)
def test_times_as_people_read_them(seconds, words):
    assert told_time(seconds) == words
