"""What runs keep of scans: nothing is read twice, nothing stale is used, and damage is repaired."""

import os
from collections import Counter
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from helpers import NoScans, block_scan, make_folder, write_nifti, write_recipe
from raw_trees import Notes
from safetensors.numpy import load_file, save

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
from fsseg.training.mapped import kept_training_scan


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
            data.of(fold).assignments(0),
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
    assert (again.of(fold).scans[fold.queries[0]].truth == 2).sum() == (labels == 2).sum()


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


def test_a_changed_file_is_read_again(tmp_path, cache, read):
    root = make_folder(tmp_path / "data")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root))
    data, _ = sampler_of(recipe)
    case = data.folds[0].training[0]
    before = data.scans.facts[case].image
    [path] = data.dataset.images[case]
    voxels = np.asarray(data.scans.original[case].image).astype(np.int16)
    voxels[0, 0, 0] += 7
    write_nifti(path, voxels)
    read.clear()
    changed, _ = sampler_of(recipe)
    assert set(read) == {case} and changed.scans.facts[case].image != before


@pytest.mark.parametrize("damage", ["cut", "gone", "empty", "other table"])
def test_a_damaged_training_scan_is_made_again(cache, damage):
    scan, notes = block_scan(), []
    kept_training_scan("a", "key", lambda: scan)
    [path] = cache.glob("training/*")
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        other = whole.replace(scan.table.counts.tobytes(), (scan.table.counts + 1).tobytes())
        path.write_bytes({"cut": whole[:-9], "empty": b"", "other table": other}[damage])
    again = kept_training_scan("a", "key", lambda: scan, notes.append)
    assert load_file(path).keys() == {"images", "supervoxels", "ids", "counts"}
    assert torch.equal(again.images, scan.images)
    assert torch.equal(again.supervoxels, scan.supervoxels)
    assert (again.table.counts == scan.table.counts).all() and again.fill == scan.fill
    assert [f"{path}: damaged (" in note for note in notes] == [True] * (damage != "gone")


def test_what_is_damaged_in_the_cache_is_noted_in_a_run(tmp_path, cache):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, make_folder(tmp_path / "data")))
    _, cold = sampler_of(recipe)
    expected = cold.scans[0].images.clone()
    damaged = [*cache.glob("training/*"), *cache.glob("facts/*")]
    for path in damaged:
        path.unlink()  # the arrays above are mapped from it
        path.write_text("{")
    notes = Notes()
    data = RunData(recipe, notes)
    again = data.of(data.folds[0]).sampler
    assert torch.equal(again.scans[0].images, expected)
    assert sorted(note.split(":")[0] for note in notes.texts) == sorted(map(str, damaged))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_array_is_computed_again(cache, damage):
    """Also one that would still be read, with a few other numbers in it."""
    array, asked, notes = np.arange(40, dtype=np.int32).reshape(5, 8), [], []
    compute = lambda: (asked.append(1), array)[1]  # noqa: E731
    for _ in range(2):
        assert (cached("test", "a", compute) == array).all()
    [path] = cache.glob("test/*")
    whole = path.read_bytes()
    assert len(asked) == 1 and (load_file(path)["array"] == array).all()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    contents = {"cut": whole[:-9], "flip": flipped, "empty": b"", "other": save({"array": array})}
    path.write_bytes(contents[damage])
    assert (cached("test", "a", compute, notes.append) == array).all() and len(asked) == 2
    assert path.read_bytes() == whole and list(cache.glob("test/*")) == [path]
    assert len(notes) == 1 and f"{path}: damaged (" in notes[0]


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


def test_kept_scans_hold_no_files_open_and_are_not_written_through(cache):
    scan = block_scan()
    kept_training_scan("a", "key", lambda: scan)
    [path] = cache.glob("training/*")
    before = path.read_bytes()
    open_before = len(os.listdir("/proc/self/fd"))
    kept = [kept_training_scan("a", "key", lambda: None) for _ in range(1000)]
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert torch.equal(kept[-1].supervoxels, scan.supervoxels)
    kept[0].images.add_(1)
    assert path.read_bytes() == before and torch.equal(kept[1].images, scan.images)
