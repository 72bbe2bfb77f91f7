"""Intensity rules: their numbers against plain references, and that runs, exports and plugins carry them."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import make_folder, scans_of, write_recipe

import fsseg
from fsseg import DataError, FssegError
from fsseg.data.intensity import load_scaling, measure
from fsseg.data.intensity_rules import Nyul, Percentile, Window, ZScore
from fsseg.runs.data import RunData
from fsseg.system.progress import Silent
from fsseg.testing import run_checks

ROOT = Path(__file__).parents[1]


def scan(seed, scale=1.0, offset=0.0):
    """A body in air with three tissues and noise, as a scanner of this gain and offset sees it."""
    random = np.random.default_rng(seed)
    image = random.normal(0, 1, (4, 24, 24)) ** 2
    image[:, 4:20, 4:20] += 50
    image[:, 6:12, 6:18] += 40
    image[:, 14:18, 6:18] += 90
    return (scale * image + offset).astype(np.float32)


def plain_landmarks(image, percents):
    """Percentiles by sorting, linearly between neighbours, of the voxels above the mean."""
    values = sorted(float(v) for v in image.ravel() if v > image.mean(dtype=np.float64))
    marks = []
    for percent in percents:
        place = percent / 100 * (len(values) - 1)
        low = int(place)
        high = min(low + 1, len(values) - 1)
        marks.append(values[low] + (place - low) * (values[high] - values[low]))
    return marks


def plain_map(value, own, standard):
    """One value through the piecewise linear map, the outer pieces going on."""
    piece = 0
    while piece < len(own) - 2 and value > own[piece + 1]:
        piece += 1
    share = (value - own[piece]) / (own[piece + 1] - own[piece])
    return standard[piece] + share * (standard[piece + 1] - standard[piece])


def test_nyul_is_the_published_map_voxel_by_voxel():
    percents = [1, 25.5, 50, 74.5, 99]
    images = [scan(0), scan(1, 3.0, 20.0)]
    marks = [plain_landmarks(image, percents) for image in images]
    to_common = [[2 * (m - own[0]) / (own[-1] - own[0]) - 1 for m in own] for own in marks]
    standard = [sum(pair) / 2 for pair in zip(*to_common)]
    rule = Nyul(between=3)
    measured = rule.measure(images)
    assert measured["landmarks"] == pytest.approx(standard)
    new = scan(2, 0.5, 100.0)
    own = plain_landmarks(new, percents)
    expected = [plain_map(float(v), own, standard) for v in new.ravel()]
    assert rule.scale(new, measured).ravel().tolist() == pytest.approx(expected, abs=1e-9)
    assert min(expected) < -1 and max(expected) > 1  # there are voxels outside of the landmarks


def test_nyul_forgets_gain_and_offset():
    """The same body from two scanners is the same image; a z-score measured on training scans keeps them apart."""
    rule = Nyul()
    measured = rule.measure([scan(0), scan(1)])
    first = rule.scale(scan(2), measured)
    second = rule.scale(scan(2, 7.0, 300.0), measured)
    assert np.abs(first - second).max() < 1e-3
    together = ZScore().measure([scan(0), scan(1)])
    apart = ZScore().scale(scan(2), together) - ZScore().scale(scan(2, 7.0, 300.0), together)
    assert np.abs(apart).max() > 1


def test_nyul_of_flat_and_of_discrete_scans():
    rule = Nyul()
    flat = np.full((2, 4, 4), 3, dtype=np.float32)
    measured = rule.measure([scan(0), flat])
    assert np.isfinite(rule.scale(flat, measured)).all()
    discrete = (scan(0) > 100).astype(np.float32) + (scan(0) > 30)  # most landmarks coincide
    scaled = rule.scale(discrete, measured)
    assert (
        np.isfinite(scaled).all()
        and (np.diff([scaled[discrete == v].mean() for v in (0, 1, 2)]) >= 0).all()
    )
    with pytest.raises(DataError, match="none of the scans has two intensities"):
        rule.measure([flat])


def test_a_window_by_hand():
    image = np.array([[[-1000, -100, 100, 300, 2000]]], dtype=np.float32)
    scaling = measure(Window(lower=-100.0, upper=300.0), [image])
    assert scaling.measured == {}
    assert scaling.apply(image).ravel().tolist() == [-1, -1, 0, 1, 1]


@pytest.mark.parametrize("rule", [Window, Percentile, Nyul])
def test_bounds_that_are_upside_down(rule):
    with pytest.raises(DataError, match="lower is 9 and upper 5, expected lower below upper"):
        rule(lower=9.0, upper=5.0)


def test_percentiles_may_be_others():
    values = np.arange(1001, dtype=np.float32).reshape(7, 11, 13)
    image = measure(Percentile(lower=10.0, upper=90.0), [values]).apply(values).ravel()
    assert image[[0, 100, 500, 900, 1000]].tolist() == [-1, -1, 0, 1, 1]


class Liar:
    """A rule that breaks its promises, one at a time."""

    statistics = "dataset"

    def __init__(self, *, measured=None, scaled=None):
        self.measured, self.scaled = measured, scaled

    def measure(self, images):
        return {} if self.measured is None else self.measured

    def scale(self, image, measured):
        return self.scaled


@pytest.mark.parametrize(
    "measured, told",
    [
        ([1.0], "intensity Liar: measured a list, expected a dictionary"),
        ({"unit": float("nan")}, "measured a number that is not finite"),
        ({"unit": np.float32(1)}, "measured what JSON does not hold"),
    ],
)
def test_what_a_rule_measured_wrongly_is_a_sentence(measured, told):
    with pytest.raises(DataError, match=told):
        measure(Liar(measured=measured), [scan(0)])


def test_a_rule_that_changes_the_shape_is_a_sentence():
    scaling = measure(Liar(scaled=np.zeros((1, 2, 3))), [scan(0)])
    with pytest.raises(
        DataError,
        match=r"case a: intensity Liar gave \(1, 2, 3\) for an image of shape \(4, 24, 24\)",
    ):
        scaling.apply(scan(0), "a")


@pytest.mark.parametrize(
    "measured, told",
    [
        ({"landmarks": [0.0, 1.0]}, "expected 5 ascending numbers"),
        ({"landmarks": [1.0, 0.5, 0.2, 0.1, 0.0]}, "expected 5 ascending numbers"),
        ({"landmarks": ["a"] * 5}, "landmarks: 'a', expected a number"),
        ({"landmarks": 3}, "landmarks: 3, expected a list"),
        ({"marks": []}, r"the keys \['marks'\], expected \['landmarks'\]"),
        ([1.0], "a list, expected a dictionary"),
    ],
)
def test_values_of_strangers_are_held_against_the_rule(measured, told):
    with pytest.raises(FssegError, match=f"run.json: scaling: holds .*{told}"):
        load_scaling(Nyul(between=3), measured, "run.json")


@pytest.fixture
def nyul_run(finished_run):
    return finished_run({"intensity.name": "nyul", "intensity.between": 3})


def test_a_run_with_a_rule_keeps_it_and_predicts_and_exports_with_it(nyul_run, tmp_path):
    """The predictor of the run and that of its export scale a new scan as the training scans' landmarks say."""
    about = json.loads((nyul_run.path / "run.json").read_text())
    landmarks = about["scaling"]["0"]["landmarks"]
    assert len(landmarks) == 5 and landmarks[0] == -1 and landmarks[-1] == 1
    volume = fsseg.read_volume(scans_of(nyul_run) / "image_2.nii.gz")
    expected = Nyul(between=3).scale(volume.image, {"landmarks": landmarks})
    exported = fsseg.export_predictor(nyul_run.path, tmp_path / "a.safetensors", variant="LinEst")
    for source in (nyul_run.path, exported):
        predictor = fsseg.load_predictor(source, variant="LinEst", device="cpu")
        assert np.allclose(predictor.scale(volume), expected, atol=1e-6)


def test_a_run_that_lost_its_landmarks_is_a_sentence(nyul_run, tmp_path):
    shutil.copytree(nyul_run.path, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    path = tmp_path / "run" / "run.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"scaling": {}}))
    with pytest.raises(FssegError, match="scaling: is missing, expected what Nyul"):
        fsseg.load_predictor(tmp_path / "run", variant="LinEst", device="cpu")


def test_another_rule_is_another_training(finished_run, nyul_run):
    """What the backbone asks for and the same rule by its name give the same scores; another rule gives others."""
    asked = finished_run().frame.dice.tolist()
    named = finished_run({"intensity.name": "zscore"}).frame.dice.tolist()
    assert asked == named != nyul_run.frame.dice.tolist()


def test_the_example_of_the_docs_runs(shell, finished_run, tmp_path):
    file = ROOT / "docs" / "examples" / "robust_intensity.py"
    assert len(file.read_text().splitlines()) < 40
    recipe = finished_run().path / "recipe.toml"
    words = ["--set", "training.steps=2", "--device", "cpu", "--runs-dir", tmp_path]
    done = shell("run", recipe, "--plugin", file, "--set", "intensity.name=robust", *words)
    assert done.returncode == 0, done.stderr
    robust = runpy.run_path(str(file))["Robust"]
    assert {result.status for result in run_checks(robust, "intensity")} <= {"passed", "skipped"}
    wrong = shell("run", recipe, "--set", "intensity.name=robust", *words)
    assert wrong.returncode == 2 and "there is no intensity 'robust'" in wrong.stderr


def test_the_options_of_a_rule_count_where_scans_are_kept(tmp_path):
    """A window measures nothing, so its options alone tell kept scans of one window from those of another."""
    root = make_folder(tmp_path / "scans")
    seen = []
    for upper in (600.0, 900.0, 600.0):
        changes = {"intensity.name": "window", "intensity.lower": 0.0, "intensity.upper": upper}
        data = RunData(fsseg.load_recipe(write_recipe(tmp_path, root), changes), Silent())
        seen.append(data.of(data.folds[0]).sampler.scans[0].images)
    assert seen[0].equal(seen[2]) and not seen[0].equal(seen[1])
