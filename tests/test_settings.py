"""Settings 1 and 2: what training may see of the classes that are tested."""

from dataclasses import replace
from itertools import pairwise

import nibabel
import numpy as np
import pytest
from helpers import NoScans, make_folder, published_rules, write_recipe

import fsseg
from fsseg import FssegError, Volume
from fsseg.data.facts import Facts, slices_showing
from fsseg.data.grids import FileGrid
from fsseg.data.intensity import measure
from fsseg.runs.data import RunData
from fsseg.system.progress import Silent
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.scans import training_scan

HIDDEN = np.array([False, False, False, True, True, False, False])


def striped_volume(slices=7, size=64):
    """Noise with labels: class 1 in slices 3 and 4, class 2 in slice 4 alone, class 3 in slice 0."""
    labels = np.zeros((slices, size, size), dtype=np.uint8)
    labels[3:5, 5, 5], labels[4, 9, 9], labels[0, 1, 1] = 1, 2, 3
    image = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    return Volume("x", image, labels, (6.0, 1.5, 1.5), FileGrid(np.eye(4)))


def striped_regions(slices=7, size=64):
    """Sixteen square regions; 5 is in the hidden slices alone, 7 in one slice before them, 9 only after them."""
    row = np.arange(size) // 16
    regions = np.repeat((1 + row[:, None] * 4 + row)[None], slices, axis=0).astype(np.int32)
    visible = {5: [3, 4], 7: [2, 3, 4], 9: [4, 5, 6]}
    for region, where in visible.items():
        outside = np.ones(slices, dtype=bool)
        outside[where] = False
        regions[outside[:, None, None] & (regions == region)] = 0
    return regions


def shown(volume, classes):
    return slices_showing(volume.case, Facts.of(volume, volume, NoScans()), classes)


def test_slices_that_show_any_of_the_classes():
    """Any, not all of them: slice 3 shows class 1 without class 2."""
    volume = striped_volume()
    assert np.flatnonzero(shown(volume, {1: "one"})).tolist() == [3, 4]
    assert np.flatnonzero(shown(volume, {1: "one", 2: "two"})).tolist() == [3, 4]
    assert np.flatnonzero(shown(volume, {2: "two", 3: "three"})).tolist() == [0, 4]
    assert not shown(volume, {7: "seven"}).any()
    with pytest.raises(
        FssegError,
        match="case x: it has no labels, but episodes.setting is 2, .* show one or two; add",
    ):
        shown(replace(volume, labels=None), {1: "one", 2: "two"})


@pytest.mark.parametrize("hidden", [None, HIDDEN])
def test_nothing_is_drawn_from_hidden_slices(hidden):
    """Everything that can be drawn, enumerated: pairs are neighbours among the slices that are left."""
    volume, regions = striped_volume(), striped_regions()
    scan = training_scan(volume, regions, measure("zscore", [volume.image]), hidden)
    left = [number for number in range(7) if hidden is None or not hidden[number]]
    expected = set()
    for region in range(1, 17):
        shown = [number for number in left if (regions[number] == region).sum() > 20]
        expected |= {
            (region, frozenset(pair))
            for pair in pairwise(shown)
            if (regions[pair[0]] == region).sum() >= 200
        }
    sampler = EpisodeSampler([scan], published_rules(setting=2))
    drawn, others = set(), set()
    for number in range(1500):
        draw = sampler.draw(np.random.default_rng(number), classes=3)
        pair = frozenset((draw.support.slice, draw.query.slice))
        first, *further = scan.table.ids[list(draw.regions)].tolist()
        drawn.add((first, pair))
        others |= {(region, draw.support.slice) for region in further}
        for region in further:
            assert (
                regions[draw.support.slice] == region
            ).sum() >= 200 and draw.support.slice in left
    assert drawn == expected
    reach = {
        (region, number)
        for region in range(1, 17)
        for number in left
        if (regions[number] == region).any()
    }
    assert others <= reach and {number for _, number in others} == set(left)
    if hidden is not None:
        assert (1, frozenset((2, 5))) in drawn, "the slices next to the gap follow one another"
        assert not {5, 7} & {region for region, _ in drawn | others if region != 7}


def test_episodes_of_setting_2_show_no_hidden_slice():
    """The images themselves: no support or query is one of the hidden slices, whatever was done to it."""
    volume, regions = striped_volume(), striped_regions()
    volume.image[3] += 1000
    volume.image[4] -= 1000  # so that the mean, which fills what a warp moves in, stays what it is
    rules = published_rules(setting=2, zoom=(1.0, 1.0))
    sampler = EpisodeSampler(
        [training_scan(volume, regions, measure("zscore", [striped_volume().image]), HIDDEN)], rules
    )
    for number in range(60):
        episode = sampler.make(sampler.draw(np.random.default_rng(number), classes=4))
        assert episode.support.images.abs().max() < 100 and episode.query.images.abs().max() < 100
        assert episode.target.any() or episode.support.masks.any()


def test_nothing_left_to_sample_is_an_error():
    volume = striped_volume()
    scan = training_scan(
        volume, striped_regions(), measure("zscore", [volume.image]), np.arange(7) > 0
    )
    with pytest.raises(
        FssegError, match="none of the 1 training scans has a supervoxel .* episodes.setting to 1"
    ):
        EpisodeSampler([scan], published_rules(setting=2))


def changed(**changes):
    return {"episodes.setting": 2, "protocol.classes": ["dark"], **changes}


def trainings(folder):
    return len(list((folder / "runs" / "stages").glob("train-*")))


def test_a_run_in_setting_2_trains_and_calibrates_on_the_other_slices(tmp_path, monkeypatch):
    """`dark` is in slices 1 to 3 of 5, so the first and the last are left."""
    seen = []
    draw = EpisodeSampler.draw
    monkeypatch.setattr(
        EpisodeSampler, "draw", lambda *a, **k: seen.append(draw(*a, **k)) or seen[-1]
    )
    path = write_recipe(tmp_path, make_folder(tmp_path / "scans"), steps=7)
    results = fsseg.run(fsseg.load_recipe(path, changed()), runs_dir=tmp_path / "runs")
    assert len(seen) == 7 + 6 and {frozenset((d.support.slice, d.query.slice)) for d in seen} == {
        frozenset((0, 4))
    }
    assert results.about["options"] == ["setting 2"] and results.about["setting"] == 2
    seen.clear()
    plain = fsseg.run(
        fsseg.load_recipe(path, changed(**{"episodes.setting": 1})), runs_dir=tmp_path / "runs"
    )
    assert {number for d in seen for number in (d.support.slice, d.query.slice)} == {0, 1, 2, 3, 4}
    assert (
        plain.about["options"] == []
        and plain.about["protocol_hash"] == results.about["protocol_hash"]
    )


@pytest.mark.parametrize("setting", [1, 2])
def test_a_training_is_known_by_the_slices_it_may_see(tmp_path, setting):
    """Other labels in a training scan train anew in setting 2 and change nothing in setting 1."""
    root = make_folder(tmp_path / "scans")
    path = write_recipe(tmp_path, root, steps=0)
    recipe = fsseg.load_recipe(path, changed(**{"episodes.setting": setting}))
    [fold] = RunData(recipe, Silent()).folds
    fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert trainings(tmp_path) == 1
    file = root / f"label_{fold.training[0]}.nii.gz"
    image = nibabel.load(file)
    voxels = np.asarray(image.dataobj).copy()
    voxels[3, 3, 4] = 2  # one voxel of dark in the last slice
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), file)
    fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert trainings(tmp_path) == setting
    # Bright is tested instead of dark: in setting 2 that leaves nothing, in setting 1 it is the same training.
    recipe.protocol.classes = ["bright"]
    if setting == 1:
        fsseg.run(recipe, runs_dir=tmp_path / "runs")
        assert trainings(tmp_path) == 1
    else:
        with pytest.raises(
            FssegError, match="none of the 8 training scans of fold 0 has two slices without bright"
        ):
            fsseg.run(recipe, runs_dir=tmp_path / "runs")
        assert trainings(tmp_path) == 2


def test_what_is_hidden_is_decided_on_the_scans_own_grid(tmp_path):
    """A voxel of an organ that resizing loses hides its slice nevertheless."""
    root = make_folder(tmp_path / "scans")
    for case in range(1, 11):
        file = root / f"label_{case}.nii.gz"
        image = nibabel.load(file)
        voxels = np.asarray(image.dataobj).copy()
        voxels[3, 3, 4] = 2
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), file)
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root), changed(**{"grid.max_size": 16}))
    run = RunData(recipe, Silent())
    [fold] = run.folds
    assert set(run.hidden) == set(fold.training)
    for case in fold.training:
        assert not (run.scans.working[case].labels[4] == 2).any(), "lost by resizing"
        assert np.flatnonzero(run.hidden[case]).tolist() == [1, 2, 3, 4]


def test_mistakes_are_found_before_anything_is_trained(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "scans")
    path = write_recipe(tmp_path, root, steps=10**6)

    def attempt(**changes):
        with pytest.raises(FssegError) as caught:
            fsseg.run(fsseg.load_recipe(path, changes), runs_dir=tmp_path / "runs")
        assert not (tmp_path / "runs").exists()
        return str(caught.value)

    assert "has two slices without bright or dark" in attempt(**{"episodes.setting": 2})
    assert "[episodes]: setting: expected 1 or 2, got 3" in attempt(**{"episodes.setting": 3})
    assert "[protocol]: shots: expected greater than or equal to 1, got 0" in attempt(
        **{"protocol.shots": 0}
    )
    assert (
        "[protocol]: support: expected 'last', 'circular', 'each' or 'own', got 'all'"
        in attempt(**{"protocol.support": "all"})
    )
    told = attempt(**{"protocol.shots": 4})
    assert (
        "case 2: 3 of its slices show dark (label 2), expected at least 4 for 1 part of 4 shots"
        in told
    )
    told = attempt(
        **{"protocol.name": "ep2_multi", "protocol.shots": 4, "variants.1.prototypes": "map"}
    )
    assert "3 slices of it show bright and dark like slice" in told
    description = root / "dataset.toml"
    description.write_text('folds = [["1", "2"], ["3", "4"]]\n' + description.read_text())
    told = attempt(**{"protocol.folds": "dataset", "protocol.support": "circular"})
    assert "the dataset lists its folds and names their supports" in told
    load = fsseg.data.datasets.folders.NiftiFolder.load
    monkeypatch.setattr(
        fsseg.data.datasets.folders.NiftiFolder,
        "load",
        lambda self, case: (
            replace(load(self, case), labels=None) if case == "5" else load(self, case)
        ),
    )
    assert "case 5: it has no labels, but episodes.setting is 2" in attempt(**changed())
