"""What decided the slices of a run, kept beside its label maps: deciding again gives the same labels."""

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import make_folder, write_recipe

import fsseg
from fsseg.data.grids import find_grid
from fsseg.evaluation.files import read_decisions
from fsseg.system.names import file_name

CHANGES = {
    "one class at a time": {},
    "thirds of each class": {"protocol.name": "ep1"},
    "all classes from each case in turn": {"protocol.name": "ep2_multi"},
}


@pytest.fixture(params=CHANGES)
def results(request, finished_run):
    return finished_run(CHANGES[request.param])


def slices_first(path):
    file = nibabel.load(path)
    grid = find_grid(file.affine, tuple(map(float, file.header.get_zooms())))
    return grid.from_file(np.asanyarray(file.dataobj))


def test_margins_and_priors_give_the_label_maps(results):
    """Resized, raised by the prior, and the largest wins: in plain numpy, on the grid of the scans' own files."""
    values = {"bright": 1, "dark": 2}
    found = read_decisions(results.path / "fold0" / "training0")
    for one in found:
        margins = torch.from_numpy(one.margins())
        maps = (
            F.interpolate(margins, size=(64, 64), mode="bilinear", align_corners=False)
            .double()
            .numpy()
        )
        raised = maps + one.priors[:, :, None, None]
        ways = (
            np.array([values[name] for name in one.classes])
            if len(one.classes) > 1
            else np.array([1])
        )
        labels = np.zeros((5, 64, 64), dtype=np.uint8)
        labels[one.slices] = np.where(raised.max(axis=1) > 0, ways[raised.argmax(axis=1)], 0)
        name = one.margins_file.name.replace(".safetensors", ".nii.gz")
        row = file_name(one.variant)
        kept = slices_first(results.path / "fold0" / "labels" / row / name)
        # An oracle decides between two neighbouring pixels, which rounding may swap.
        assert (labels != kept).sum() <= 0.001 * labels.size
    assert {one.variant for one in found} == set(results.variants)
    scored = {(s.variant, s.case, s.support_case, s.class_name) for s in results.scores}
    assert {
        (o.variant, o.case, o.support_case, name) for o in found for name in o.classes
    } == scored


def test_rows_of_one_scoring_share_margins(results):
    """CE-T and OCP differ in the threshold alone; LinEst has prototypes of its own."""
    found = read_decisions(results.path / "fold0" / "training0")
    files = {
        row: {one.margins_file for one in found if one.variant == row} for row in results.variants
    }
    assert files["CE-T"] == files["OCP"] and not files["CE-T"] & files["LinEst"]


def test_nothing_is_kept_where_that_is_asked(tmp_path):
    changes = {"protocol.save_margins": False}
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "scans")), changes)
    run = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    folder = run.path / "fold0" / "training0"
    assert not (folder / "margins").exists() and read_decisions(folder) == []
