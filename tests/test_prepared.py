"""What runs keep of scans: nothing is read twice, nothing stale is used, and damage is repaired."""

import json
import os
import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_folder, write_nifti, write_recipe

import fsseg
from fsseg.data.folders import NiftiFolder
from fsseg.data.prepared import map_array
from fsseg.progress import Silent
from fsseg.recipe import ComponentTable
from fsseg.run_data import RunData
from fsseg.volumes import Fingerprinted


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def read(monkeypatch):
    """How often each case is read."""
    seen, usual = Counter(), NiftiFolder.load

    def load(self, case):
        seen[case] += 1
        return usual(self, case)

    monkeypatch.setattr(NiftiFolder, "load", load)
    return seen


def sampler_of(recipe):
    data = RunData(recipe, Silent())
    return data, data.sampler(data.folds[0], "zscore")


def test_a_second_run_reads_no_training_scan(tmp_path, cache, read):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "data")))
    data, cold = sampler_of(recipe)
    assert set(read) >= set(data.folds[0].training)
    content, evaluated = data.training_content(data.folds[0]), data.evaluation_content(data.folds[0])
    read.clear()
    again, warm = sampler_of(recipe)
    assert not read
    assert again.training_content(data.folds[0]) == content and again.evaluation_content(data.folds[0]) == evaluated
    for one, other in zip(cold.scans, warm.scans):
        assert one.case == other.case and one.fill == other.fill
        assert torch.equal(one.images, other.images) and torch.equal(one.supervoxels, other.supervoxels)
        assert (one.table.ids == other.table.ids).all() and (one.table.counts == other.table.counts).all()


def test_links_to_one_file_are_read_once(tmp_path, cache, read):
    """Ten cases linked ten times: a start reads ten of a hundred, and the links give what the files give."""
    root = make_folder(tmp_path / "data")
    for image in sorted(root.glob("image_*.nii.gz")):
        number = int(image.name.split("_")[1].split(".")[0])
        for more in range(1, 10):
            for kind in ("image", "label"):
                os.symlink(root / f"{kind}_{number}.nii.gz", root / f"{kind}_{100 * more + number}.nii.gz")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root))
    data, sampler = sampler_of(recipe)
    assert len(data.facts) == 100 and len({fact.image for fact in data.facts.values()}) == 10
    looked_at = Counter(int(case) % 100 for case in read)
    assert sum(looked_at.values()) <= 40, "for facts and supervoxels; threads may read links of one file at a time"
    read.clear()
    sampler_of(recipe)
    assert not read


def test_a_changed_file_is_read_again(tmp_path, cache, read):
    root = make_folder(tmp_path / "data")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root))
    data, _ = sampler_of(recipe)
    case = data.folds[0].training[0]
    before = data.facts[case].image
    path = data.dataset.images[case]
    voxels = np.asarray(data.own[case].image).astype(np.int16)
    voxels[0, 0, 0] += 7
    write_nifti(path, voxels)
    read.clear()
    changed, _ = sampler_of(recipe)
    assert set(read) == {case} and changed.facts[case].image != before


@pytest.mark.parametrize("name", ["images.npy", "supervoxels.npy", "table.npy", "about.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_a_damaged_entry_is_made_again(tmp_path, cache, name, damage):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "data", cases=10, size=64, slices=4)))
    _, cold = sampler_of(recipe)
    expected = cold.scans[0].images.clone(), cold.scans[0].supervoxels.clone()
    for path in cache.glob(f"training/*/{name}"):
        whole = path.read_bytes()
        path.unlink()  # the arrays above are mapped from it
        if damage != "gone":
            path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    for path in cache.glob("facts/*.json"):
        path.write_text(json.dumps({"image": "?"}) if damage == "cut" else "{")
    _, again = sampler_of(recipe)
    assert torch.equal(again.scans[0].images, expected[0]) and torch.equal(again.scans[0].supervoxels, expected[1])


class Bare:
    """A dataset with nothing but what a dataset must have."""

    def __init__(self, dataset):
        self._dataset = dataset

    def __getattr__(self, name):
        if name == "fingerprint":
            raise AttributeError(name)
        return getattr(self._dataset, name)


def test_a_dataset_without_fingerprints_is_read_each_time(tmp_path, cache, read, monkeypatch):
    """Third-party datasets need no `fingerprint`; what is made of their scans is kept by content all the same."""
    usual = ComponentTable.build
    monkeypatch.setattr(
        ComponentTable, "build", lambda self, kind: Bare(usual(self, kind)) if kind == "dataset" else usual(self, kind)
    )
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "data")))
    data, cold = sampler_of(recipe)
    assert not isinstance(data.dataset, Fingerprinted) and not list(cache.glob("facts/*"))
    read.clear()
    _, warm = sampler_of(recipe)
    assert set(read.values()) == {1}
    assert torch.equal(cold.scans[0].images, warm.scans[0].images)


def test_maps_hold_no_files_open_and_are_not_written_through(tmp_path):
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", array)
    before = (tmp_path / "a.npy").read_bytes()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    mapped = [map_array(tmp_path / "a.npy") for _ in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4 + 50)][
        :2000
    ]
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert mapped[0].dtype == torch.int32 and torch.equal(mapped[-1], torch.from_numpy(array))
    mapped[0] += 1
    assert (tmp_path / "a.npy").read_bytes() == before and torch.equal(mapped[1], torch.from_numpy(array))
