"""What runs keep of scans: nothing is read twice, nothing stale is used, and damage is repaired."""

import gc
import io
import json
import os
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from helpers import NoScans, block_scan, make_folder, write_nifti, write_recipe

import fsseg
from fsseg import FssegError, Volume
from fsseg.data.cache import cached
from fsseg.data.datasets.folders import NiftiFolder
from fsseg.data.facts import Facts, kept_facts
from fsseg.data.grids import FileGrid
from fsseg.evaluation.assignments import assign
from fsseg.interfaces import Fingerprinted
from fsseg.recipe.tables import ComponentTable
from fsseg.runs.data import RunData
from fsseg.runs.precompute import compute_supervoxels
from fsseg.runs.run import plan_folds
from fsseg.system.progress import Silent
from fsseg.training.mapped import kept_training_scan, map_array


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
    return data, data.of(data.folds[0]).sampler


def test_a_second_run_reads_no_training_scan(tmp_path, cache, read):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "data")))
    data, cold = sampler_of(recipe)
    assert set(read) >= set(data.folds[0].training)
    content, evaluated = (
        data.of(data.folds[0]).training_content,
        data.of(data.folds[0]).evaluation_content,
    )
    read.clear()
    again, warm = sampler_of(recipe)
    assert not read
    assert (
        again.of(data.folds[0]).training_content == content
        and again.of(data.folds[0]).evaluation_content == evaluated
    )
    for one, other in zip(cold.scans, warm.scans):
        assert one.case == other.case and one.fill == other.fill
        assert torch.equal(one.images, other.images) and torch.equal(
            one.supervoxels, other.supervoxels
        )
        assert (one.table.ids == other.table.ids).all() and (
            one.table.counts == other.table.counts
        ).all()


def linked(root, times):
    """Further cases that are links to the ten of a folder."""
    for image in sorted(root.glob("image_*.nii.gz")):
        number = int(image.name.split("_")[1].split(".")[0])
        for more in range(1, times):
            for kind in ("image", "label"):
                os.symlink(
                    root / f"{kind}_{number}.nii.gz", root / f"{kind}_{100 * more + number}.nii.gz"
                )
    return root


@pytest.mark.parametrize("protocol", ["ep2", "ep1", "ep2_multi"])
def test_a_start_reads_nothing_twice_whatever_the_number_of_cases(tmp_path, cache, read, protocol):
    """Ten cases linked ten times, all folds: everything that is found before training, from ten scans and from none."""
    root = linked(make_folder(tmp_path / "data"), 10)
    recipe = fsseg.load_recipe(
        write_recipe(tmp_path, root), {"protocol.fold": "all", "protocol.name": protocol}
    )
    folds = plan_folds(recipe, tmp_path / "runs", torch.device("cpu"), Silent())
    facts = folds[0].data.run.scans.facts
    assert len(facts) == 100 and len({fact.image for fact in facts.values()}) == 10
    assert sum(read.values()) <= 20, "threads may read links of one file at a time"
    read.clear()
    plan_folds(recipe, tmp_path / "runs", torch.device("cpu"), Silent())
    assert not read


def test_later_trainings_read_no_linked_scan(tmp_path, cache, read):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, linked(make_folder(tmp_path / "data"), 10)))
    sampler_of(recipe)
    assert sum(read.values()) <= 40, "for facts and supervoxels"
    read.clear()
    sampler_of(recipe)
    assert not read


def test_an_evaluation_reads_each_of_its_scans_once(tmp_path, cache, read):
    path = write_recipe(tmp_path, linked(make_folder(tmp_path / "data"), 10), steps=0)
    fsseg.run(fsseg.load_recipe(path), runs_dir=tmp_path / "runs")
    read.clear()
    fsseg.run(fsseg.load_recipe(path, {"protocol.save_labels": False}), runs_dir=tmp_path / "runs")
    [fold] = RunData(fsseg.load_recipe(path), Silent()).folds
    assert read == Counter([fold.support, *fold.queries]) and len(read) == 20


def test_what_slices_show_is_what_their_labels_show(tmp_path, cache):
    """Assignments from facts are those from voxels, also where resizing loses a label."""
    root = make_folder(tmp_path / "data")
    for case in range(1, 11):
        labels = np.asarray(nibabel.load(root / f"label_{case}.nii.gz").dataobj).T.copy()
        labels[4, 3, 3] = 2  # in none of the pixels that are left of four
        write_nifti(root / f"label_{case}.nii.gz", labels)
    for name in ("ep1", "alp_3chunk", "ep2_multi"):
        recipe = fsseg.load_recipe(
            write_recipe(tmp_path, root), {"grid.max_size": 16, "protocol.name": name}
        )
        data = RunData(recipe, Silent())
        [fold] = data.folds
        scans = data.of(fold).scans
        facts, voxels = (
            data.assignments(fold, scans, 0),
            assign(data.protocol, fold, scans, data.classes, 0),
        )
        for one, other in zip(facts, voxels, strict=True):
            assert replace(one, support=other.support) == other
            assert torch.equal(one.support.images, other.support.images)
            assert torch.equal(one.support.masks, other.support.masks)
    assert (
        2 in data.scans.facts[fold.support].shown[4]
        and 2 not in data.scans.facts[fold.support].working[4]
    )


def test_a_scan_that_changes_while_a_run_uses_it_is_an_error(tmp_path, cache):
    """What was made of it would be kept under the name of what it was."""
    root = make_folder(tmp_path / "data")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root))
    data = RunData(recipe, Silent())
    [fold] = data.folds
    path = root / f"label_{fold.queries[0]}.nii.gz"
    labels = np.asarray(nibabel.load(path).dataobj).T.copy()
    labels[0, 0, 0] = 2
    write_nifti(path, labels)
    with pytest.raises(
        FssegError, match=f"case {fold.queries[0]}: it has other voxels .*; run again"
    ):
        data.of(fold).scans[fold.queries[0]]
    again = RunData(recipe, Silent())
    assert (again.scans(fold, "zscore")[fold.queries[0]].truth == 2).sum() == (labels == 2).sum()


def test_a_scan_whose_change_no_fingerprint_shows_is_found_when_it_is_read(
    tmp_path, cache, monkeypatch
):
    root = make_folder(tmp_path / "data")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root))
    monkeypatch.setattr(NiftiFolder, "fingerprint", lambda self, case: case)
    [fold] = RunData(recipe, Silent()).folds
    labels = np.asarray(nibabel.load(root / f"label_{fold.support}.nii.gz").dataobj).T.copy()
    labels[0, 0, 0] = 2
    write_nifti(root / f"label_{fold.support}.nii.gz", labels)
    with pytest.raises(FssegError, match="run again"):
        RunData(recipe, Silent()).of(fold).scans[fold.support]
    again = RunData(recipe, Silent()).of(fold).scans[fold.support]
    assert (again.truth == 2).sum() == (labels == 2).sum()


def test_computing_supervoxels_ahead_leaves_facts_too(tmp_path, cache, read):
    root = make_folder(tmp_path / "data")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root))
    compute_supervoxels(root, recipe.supervoxels, jobs=1)
    assert len(list(cache.glob("facts/*.json"))) == len(read) == 10
    read.clear()
    data, _ = sampler_of(recipe)
    assert read == Counter(data.folds[0].training), (
        "to scale them as the backbone asks, and not to look at them"
    )


def test_facts_follow_an_option_of_the_dataset_that_files_do_not_show(cache):
    """A third-party fingerprint may know nothing of the size of supervoxels."""
    volume = Volume("x", np.ones((2, 4, 4), np.float32), None, (6.0, 1.5, 1.5), FileGrid(np.eye(4)))
    for size in (30, 40):
        dataset = NoScans(size)
        dataset.fingerprint = lambda case: "same"
        make = lambda dataset=dataset: Facts.of(volume, volume, dataset)  # noqa: E731
        assert kept_facts(dataset, "x", "grid", make).min_size == size


def test_training_scans_of_any_memory_order_come_back_as_they_were(cache):
    scan = block_scan()
    turned = replace(scan, images=torch.from_numpy(np.asfortranarray(scan.images.numpy())))
    kept = kept_training_scan("a", "key", lambda: turned)
    assert torch.equal(kept.images, scan.images) and torch.equal(kept.supervoxels, scan.supervoxels)
    np.save(cache / "f.npy", np.asfortranarray(np.ones((2, 3))))
    with pytest.raises(ValueError, match="its first axis runs fastest"):
        map_array(cache / "f.npy")


def test_a_changed_file_is_read_again(tmp_path, cache, read):
    root = make_folder(tmp_path / "data")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root))
    data, _ = sampler_of(recipe)
    case = data.folds[0].training[0]
    before = data.scans.facts[case].image
    path = data.dataset.images[case]
    voxels = np.asarray(data.scans.original[case].image).astype(np.int16)
    voxels[0, 0, 0] += 7
    write_nifti(path, voxels)
    read.clear()
    changed, _ = sampler_of(recipe)
    assert set(read) == {case} and changed.scans.facts[case].image != before


@pytest.mark.parametrize("name", ["images.npy", "supervoxels.npy", "table.npy", "about.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_a_damaged_entry_is_made_again(tmp_path, cache, name, damage):
    recipe = fsseg.load_recipe(
        write_recipe(tmp_path, make_folder(tmp_path / "data", cases=10, size=64, slices=4))
    )
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
    assert torch.equal(again.scans[0].images, expected[0]) and torch.equal(
        again.scans[0].supervoxels, expected[1]
    )


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_array_is_computed_again(cache, damage):
    """Also one that would still be read, with a few other numbers in it."""
    array, asked = np.arange(40, dtype=np.int32).reshape(5, 8), []
    compute = lambda: (asked.append(1), array)[1]  # noqa: E731
    assert (cached("test", "a", compute) == array).all() and (
        cached("test", "a", compute) == array
    ).all()
    [path] = cache.glob("test/*.npy")
    whole = path.read_bytes()
    assert len(asked) == 1 and (np.load(path) == array).all()
    flipped = bytearray(whole)
    flipped[150] ^= 1
    other = io.BytesIO()
    np.save(other, array + 1)
    path.write_bytes(
        {"cut": whole[:-9], "flip": bytes(flipped), "empty": b"", "other": other.getvalue()}[damage]
    )
    assert (cached("test", "a", compute) == array).all() and len(asked) == 2
    assert path.read_bytes() == whole and [file.name for file in cache.rglob("test/*")] == ["a.npy"]


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
        ComponentTable,
        "build",
        lambda self, kind: Bare(usual(self, kind)) if kind == "dataset" else usual(self, kind),
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
    mapped = [
        map_array(tmp_path / "a.npy")
        for _ in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4 + 50)
    ][:2000]
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert mapped[0].dtype == torch.int32 and torch.equal(mapped[-1], torch.from_numpy(array))
    mapped[0] += 1
    assert (tmp_path / "a.npy").read_bytes() == before and torch.equal(
        mapped[1], torch.from_numpy(array)
    )


def test_threads_read_headers_where_the_interpreter_would_lose_count(tmp_path, cache):
    """Python code that runs in the middle of a parse, as a garbage collector's callbacks do, lets threads take turns."""
    path, array = tmp_path / "array.npy", np.arange(6.0).reshape(2, 3)
    np.save(path, array)
    cached("things", "one", lambda: array)

    def read(_):
        kept = []  # the collector counts what is kept
        for _ in range(300):
            kept += [map_array(path), cached("things", "one", lambda: None)]
        return all((each == torch.from_numpy(array)).all() for each in map(torch.as_tensor, kept))

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    yielding = lambda *_: time.sleep(1e-5)  # noqa: E731
    sys.setswitchinterval(1e-6), gc.set_threshold(20), gc.callbacks.append(yielding)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(4)))
    finally:
        gc.callbacks.remove(yielding), gc.set_threshold(*threshold), sys.setswitchinterval(interval)
