"""What a plugin does wrong in a run is said with its name: regions that are none, and errors inside its calls."""

import sys

import numpy as np
import pytest
import torch
from helpers import NoScans, block_scan, make_folder, write_recipe

import fsseg
from fsseg import DataError, choose_plugins
from fsseg.data.grids import FileGrid
from fsseg.data.supervoxels.kept import cut
from fsseg.data.supervoxels.regions import count_regions
from fsseg.data.volume import Volume
from fsseg.plugins.blame import NOTED, naming_plugins
from fsseg.runs.run import plan_folds
from fsseg.system.code_digests import drop_modules
from fsseg.system.progress import Silent
from fsseg.training.scans import training_scans

SPACING = (6.0, 1.5, 1.5)
SCAN = Volume(
    "a", np.zeros((3, 4, 4), dtype=np.float32), None, SPACING, FileGrid.of_spacing(SPACING)
)


def regions(values, dtype=np.int64):
    return np.broadcast_to(np.array(values, dtype=dtype), (3, 4, 4)).copy()


@pytest.mark.parametrize(
    "given, told",
    [
        (regions(1.5, float), "it gives float64, expected an array of whole numbers"),
        (regions(True, bool), "it gives bool, expected an array of whole numbers"),
        (None, "it gives NoneType, expected an array"),
        (torch.ones(3, 4, 4), "expected an array of whole numbers"),
        (regions(1)[:2], "regions of 2 x 4 x 4 voxels, expected 3 x 4 x 4 as the image"),
        (regions(-7), "the region id -7, expected ids from 1 up"),
    ],
)
def test_what_are_no_regions_names_the_component(given, told):
    def method(volume, dataset):
        return given

    with pytest.raises(DataError, match=f"supervoxels function: for case a .*{told}"):
        cut(SCAN, method, NoScans())


@pytest.mark.parametrize("far", [2**31 - 1, 2**40, 2**62])
def test_ids_that_are_far_apart_are_counted_all_the_same(far):
    """A table by id would take gigabytes. By hand: two regions of 16 pixels a slice, the rest of 8 is none."""
    given = regions(0)
    given[:, :2] = far
    given[1, 2:] = 5
    small = cut(SCAN, lambda volume, dataset: given, NoScans())
    table = count_regions(small)
    assert small.dtype == np.int32 and len(table.ids) == 2
    assert table.counts.tolist() == [[0, 8, 0], [8, 8, 8]]
    assert (small[given == 0] == 0).all() and len(np.unique(small[given == far])) == 1


def test_both_ways_of_counting_agree():
    given = np.random.default_rng(0).integers(0, 6, size=(5, 9, 8)).astype(np.int32)
    near, far = count_regions(given), count_regions(given * 10**8)
    assert far.ids.tolist() == [10**8 * number for number in near.ids]
    assert np.array_equal(far.counts, near.counts) and near.counts.sum() == (given > 0).sum()


def test_scans_for_calibration_from_python_are_checked_as_well():
    dataset = fsseg.datasets.AbdomenPhantom(count=2, size=64)
    with pytest.raises(DataError, match="case phantom_01 it gives float64"):
        training_scans(dataset, "zscore", supervoxels=lambda volume, _: np.ones(volume.image.shape))


PLUGIN = """
from fsseg import hookimpl


class Broken:
    'Cuts nothing.'

    def __init__(self) -> None:
        pass

    def __call__(self, volume, dataset):
        {line}


@hookimpl
def register_supervoxels(register):
    register("broken", Broken)
"""


@pytest.fixture
def with_plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def choose(line):
        file = tmp_path / "broken_regions.py"
        file.write_text(PLUGIN.format(line=line))
        choose_plugins(files=[file])
        path = write_recipe(tmp_path, make_folder(tmp_path / "scans"))
        return fsseg.load_recipe(path, {"supervoxels": "broken"}), file

    yield choose
    choose_plugins(files=[])
    drop_modules(tmp_path)


@pytest.mark.parametrize(
    "line, kind", [("return volume.no_such", AttributeError), ("1 / 0", ZeroDivisionError)]
)
def test_an_error_inside_a_plugin_keeps_its_traceback_and_names_the_plugin(
    with_plugin, tmp_path, line, kind
):
    recipe, file = with_plugin(line)
    with pytest.raises(kind) as caught:
        fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
    [note] = caught.value.__notes__
    assert note.startswith(f"{NOTED} plugin {file} ({file}:12), not in fsseg itself; correct the")


def test_regions_of_a_plugin_that_are_none_name_its_file(with_plugin, tmp_path):
    recipe, _ = with_plugin("return -1 + 0 * volume.image.astype(int)")
    [plan, *_] = plan_folds(recipe, tmp_path / "runs", torch.device("cpu"), Silent())
    with pytest.raises(
        DataError, match=r"supervoxels 'broken' of broken_regions.py .*region id -1"
    ):
        _ = plan.data.sampler


def test_errors_of_users_and_of_our_own_get_no_note():
    for error in (fsseg.FssegError("a sentence"), KeyError("ours")):
        with pytest.raises(type(error)) as caught, naming_plugins():
            raise error
        assert not hasattr(caught.value, "__notes__")


def test_regions_of_ours_are_what_they_were():
    scan = block_scan()
    table = count_regions(scan.supervoxels.numpy())
    assert table.ids.tolist() == [1, 2]
