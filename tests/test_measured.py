"""Measures that a run was not asked for: the same numbers as if it had been, from its label maps, or a sentence."""

import math
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from helpers import make_folder, scans_of, write_recipe

import fsseg
from fsseg import FssegError
from fsseg.analysis.later_metrics import MEASURES, with_measures
from fsseg.analysis.side_by_side import dataset_names
from fsseg.runs.results import Results, load_results

CHANGES = {
    "ep2": {},
    "ep1": {"protocol.name": "ep1"},
    "ep2_multi": {"protocol.name": "ep2_multi"},
    "in turn": {"protocol.support": "each"},
    "two seeds on a small grid": {"seed": [1, 2], "grid.spacing": 2.5, "grid.size": 48},
}


@pytest.fixture(scope="module")
def finished(finished_run):
    """Runs by their change, which measured everything themselves."""
    measuring = {"protocol.folds": "disjoint2", "metrics": list(MEASURES)}
    return lambda name: finished_run(measuring | CHANGES[name], cases=6)


def unmeasured(results, path=None):
    """The run as if its recipe had asked for nothing."""
    scores = [replace(score, measures={}) for score in results.scores]
    return Results(path or results.path, scores, results.classes, results.about | {"metrics": {}})


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("ep2", "ep2_multi") else pytest.param(name, marks=pytest.mark.slow)
        for name in CHANGES
    ],
)
def test_later_is_as_at_once(finished, name, own_cache):
    """Bit for bit, whichever slices the protocol segments and wherever its label maps lie; undefined stays undefined."""
    results = finished(name)
    later = with_measures(unmeasured(results))
    assert later.scores == results.scores and later.about["metrics"] == results.about["metrics"]
    assert {key for score in later.scores for key in score.measures} == set(MEASURES)
    assert any(score.measures["hd95"] for score in later.scores)


def test_what_was_measured_once_needs_neither_labels_nor_scans(finished, tmp_path, own_cache):
    results = finished("ep2")
    with_measures(unmeasured(results), ["hd95"])
    copy = shutil.copytree(results.path, tmp_path / "run")
    shutil.rmtree(copy / "fold0" / "labels")
    again = with_measures(unmeasured(results, copy), ["hd95"])
    assert [s.measures["hd95"] for s in again.scores] == [
        s.measures["hd95"] for s in results.scores
    ]
    with pytest.raises(
        FssegError, match="there is no label map, expected the one that the run kept"
    ):
        with_measures(unmeasured(results, copy), ["assd"])


def test_a_label_map_that_was_changed_is_not_measured(finished, tmp_path, own_cache):
    results = finished("ep2")
    copy = shutil.copytree(results.path, tmp_path / "run")
    file = sorted((copy / "fold0" / "labels" / "CE-T").glob("*.nii.gz"))[0]
    image = nibabel.load(file)
    voxels = np.asanyarray(image.dataobj).copy()
    voxels[0, 0, 0] ^= 1
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), file)
    with pytest.raises(
        FssegError, match=f"{file.name}: has .* voxels of .* expected .* as the run counted"
    ):
        with_measures(unmeasured(results, copy), ["hd95"])


def test_the_tidy_table_has_every_measure(finished, own_cache):
    """Dice and IoU follow from the same counts; distances are there though the recipe did not ask for them."""
    results = finished("ep2")
    found = fsseg.compare([unmeasured(results)], baseline="CE-T")
    frame = found.frame
    wanted = {
        "dataset",
        "fold",
        "seed",
        "case",
        "class_name",
        "variant",
        "dice",
        "predicted",
        "actual",
        *MEASURES,
    }
    assert wanted <= set(frame.columns) and len(frame) == len(results.scores)
    assert np.allclose(frame["iou"], frame["dice"] / (2 - frame["dice"]), equal_nan=True)
    expected = [
        math.nan if s.measures["assd"] is None else s.measures["assd"] for s in results.scores
    ]
    assert frame["assd"].to_numpy() == pytest.approx(expected, nan_ok=True)
    millilitres = 1.5 * 1.5 * 6.0 / 1000
    assert np.allclose(frame["volume_error"], (frame["predicted"] - frame["actual"]) * millilitres)


def test_any_metric_can_be_compared_with_the_options_of_the_run_that_measured_it(
    finished, own_cache
):
    results = finished("ep2")
    found = fsseg.compare([unmeasured(results)], baseline="CE-T", metric="hd95")
    assert found.table()["mean"].to_numpy() == pytest.approx(
        results.table("hd95")["mean"].to_numpy(), nan_ok=True
    )
    recipe = fsseg.load_recipe(
        results.path / "recipe.toml", {"metrics": [{"name": "nsd", "tolerance": 0.5}]}
    )
    strict = fsseg.run(recipe, runs_dir=results.path.parent)
    both = fsseg.compare([strict, unmeasured(results)], metric="nsd")
    named = [both.table().loc[f"LinEst ({run.path.name})", "mean"] for run in (strict, results)]
    assert named[0] == named[1] < results.table("nsd").loc["LinEst", "mean"]
    with pytest.raises(
        FssegError, match="measured nsd with different options, expected the same.*0.5.*2.0"
    ):
        fsseg.compare([strict, results], metric="nsd")


def test_without_the_scans_a_warning_says_what_stays_empty(finished, tmp_path, own_cache):
    results = finished("ep2")
    copy = shutil.copytree(results.path, tmp_path / "moved")
    recipe = (
        (copy / "recipe.toml").read_text().replace(str(scans_of(results)), str(tmp_path / "gone"))
    )
    (copy / "recipe.toml").write_text(recipe)
    found = fsseg.compare([unmeasured(results, copy)])
    with pytest.warns(
        UserWarning, match="moved: iou, hd95, assd, nsd, volume_error stay empty.*gone"
    ):
        frame = found.frame
    assert frame["hd95"].isna().all() and np.allclose(
        frame["iou"], frame["dice"] / (2 - frame["dice"])
    )


def test_cases_of_the_same_name_are_not_the_same_scans(finished, tmp_path_factory, tmp_path):
    """Two folders call their cases 1 to 6; across protocols they stand side by side and nothing is paired."""
    results = finished("ep2")
    folder = tmp_path_factory.mktemp("other")
    root = make_folder(folder / "scans", cases=6, slices=6)
    recipe = fsseg.load_recipe(write_recipe(folder, root), {"protocol.folds": "disjoint2"})
    other = fsseg.run(recipe, runs_dir=folder / "runs", name="other")
    with pytest.raises(FssegError, match="different scans or a different grid in fold 0"):
        fsseg.compare([results, other])
    found = fsseg.compare(
        [results, other], baseline=f"CE-T ({results.path.name})", across_protocols=True
    )
    assert dataset_names(found.runs) == ["nifti", f"nifti ({other.path.name})"]
    line = found.table().loc[f"LinEst ({other.path.name})"]
    assert (line["pairs"], line["verdict"]) == (0, "no scan in common")
    assert "nan" not in found.to_markdown()
    assert dataset_names([results, load_results(results.path)]) == ["nifti", "nifti"]
