"""Whole trainings: what the toolbox is for. Minutes, so they are marked."""

from pathlib import Path

import numpy as np
import pytest

import fsseg
from fsseg.data.datasets.folders import ChaosT2
from fsseg.data.supervoxels.stored import Stored

ROOT = Path(__file__).parents[1]


def means(changes, folder):
    """Mean Dice of each row of the quickstart recipe."""
    recipe = fsseg.load_recipe(ROOT / "recipes" / "tpm_mp5_linest.toml", changes)
    return fsseg.run(recipe, runs_dir=folder).table()["mean"]


def check_that_training_helps(changes, folder, steps, tell):
    """LinEst, and by at least 3 points the oracle, which no calibration can improve, beat the untrained network."""
    before = means({**changes, "training.steps": 0}, folder)
    after = means({**changes, "training.steps": steps}, folder)
    tell(f"untrained {before.round(1).to_dict()}, trained {after.round(1).to_dict()}")
    assert after["LinEst"] > before["LinEst"]
    assert after["OCP"] > before["OCP"] + 3


@pytest.mark.slow
def test_trained_beats_untrained_on_the_phantom(tmp_path, tell):
    check_that_training_helps({}, tmp_path, steps=1000, tell=tell)


@pytest.mark.real_data
def test_trained_beats_untrained_on_real_scans(tmp_path, shared, tell):
    root = str(shared / "data" / "chaos_t2")
    check_that_training_helps(
        {"dataset.name": "chaos_t2", "dataset.root": root}, tmp_path, steps=1000, tell=tell
    )


@pytest.mark.real_data
def test_the_real_benchmark_reads_as_documented(shared):
    dataset = ChaosT2(root=str(shared / "data" / "chaos_t2"))
    assert " ".join(dataset.cases) == "1 2 3 5 8 10 13 15 19 20 21 22 31 32 33 34 36 37 38 39"
    for case in dataset.cases[:3]:
        volume = dataset.load(case)
        assert volume.image.shape[1:] == (256, 256) and 31 <= len(volume.image) <= 46
        assert volume.spacing == pytest.approx((7.7, 1.25, 1.25), abs=1e-4)
        assert np.unique(volume.labels).tolist() == [0, 1, 2, 3, 4]
        # The supervoxels are in the image's own axes: they are cut to the body, which is brighter than air.
        regions = Stored()(volume, dataset)
        assert volume.image[regions > 0].mean() > 3 * volume.image[regions == 0].mean()
