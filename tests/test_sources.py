"""Sources of episodes: which slices and regions they draw, and that no label of an evaluated class reaches training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import block_scan, make_folder, published_rules, write_recipe

import fsseg
from fsseg import DataError, FssegError
from fsseg.data.grids import FileGrid
from fsseg.data.supervoxels.regions import count_regions
from fsseg.data.volume import Volume
from fsseg.errors import PluginError, RecipeError
from fsseg.recipe.reading import parse_recipe
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.labels import training_classes, with_labels_of
from fsseg.training.pairs import Pair, Place
from fsseg.training.sources import Labelled, Superpixel


def scan_with(regions, case="a"):
    """A scan of noise with these regions."""
    regions = np.asarray(regions, dtype=np.int32)
    images = np.random.default_rng(len(case)).normal(size=regions.shape).astype(np.float32)
    return replace(
        block_scan(case),
        images=torch.from_numpy(images),
        supervoxels=torch.from_numpy(regions),
        table=count_regions(regions),
    )


def volume_of(image, labels=None):
    spacing = (5.0, 1.0, 1.0)
    return Volume("a", image, labels, spacing, FileGrid.of_spacing(spacing))


def flooded(regions):
    """The connected parts of equal pixels of each slice, found pixel by pixel."""
    parts, number = np.zeros(regions.shape, dtype=int), 0
    for start in np.argwhere(regions > 0):
        if parts[tuple(start)]:
            continue
        number += 1
        waiting = [tuple(start)]
        while waiting:
            z, y, x = waiting.pop()
            inside = 0 <= y < regions.shape[1] and 0 <= x < regions.shape[2]
            same = inside and regions[z, y, x] == regions[tuple(start)] and not parts[z, y, x]
            if same:
                parts[z, y, x] = number
                waiting += [(z, y - 1, x), (z, y + 1, x), (z, y, x - 1), (z, y, x + 1)]
    return parts


def test_superpixels_are_the_connected_parts_of_supervoxels_in_a_slice():
    supervoxels = np.random.default_rng(0).integers(0, 4, size=(3, 12, 14)).astype(np.int32)
    got = Superpixel().regions(volume_of(supervoxels * 1.0), lambda: supervoxels)
    expected = flooded(supervoxels)
    assert got.dtype == np.int32 and got.max() == expected.max()
    pairs = {(a, b) for a, b in zip(got.ravel().tolist(), expected.ravel().tolist())}
    assert len(pairs) == expected.max() + 1, "one part is one number, whatever the order"


def test_superpixels_cut_from_the_slice_alone():
    """Two bright squares on a dark body and air around it; no region is in two slices, none in the air."""
    image = np.zeros((2, 64, 64))
    image[:, 8:56, 8:56] = 100
    image[:, 12:36, 12:36] = 200
    image[1, 40:54, 40:54] = 250
    image += np.random.default_rng(0).normal(0, 0.5, image.shape)
    regions = Superpixel(cut="felzenszwalb").regions(
        volume_of(image), lambda: np.zeros(image.shape, np.int32)
    )
    first, second = (set(np.unique(each)) - {0} for each in regions)
    assert len(first) >= 2 and not first & second and not regions[:, :7].any()
    dark = regions.copy()
    dark[:, 8:40, 8:40] = dark[1, 36:58, 36:58] = 0
    for inner in (regions[:, 16:32, 16:32], regions[1, 44:50, 44:50]):
        assert not set(np.unique(inner)) & set(np.unique(dark)), "a region keeps to one square"


def sampler_of(source, scans, **rules):
    return EpisodeSampler(scans, published_rules(source=source, **rules))


def test_a_superpixel_episode_is_one_slice_twice():
    rows = np.arange(32)[:, None] // 16 * 2 + np.arange(32) // 16
    scans = [scan_with(1 + rows + 4 * np.arange(5)[:, None, None])]
    ours = sampler_of("superpixel", scans, augmentations=[])
    slices = set()
    for number in range(40):
        draw = ours.draw(np.random.default_rng(number), 3)
        episode = ours.make(draw)
        assert draw.support == draw.query and len(draw.regions) == 3
        assert torch.equal(episode.support.images[0, 0], episode.query.images[0])
        assert torch.equal(episode.support.target, episode.target)
        slices.add(draw.support.slice)
    assert slices == set(range(5))
    augmented = sampler_of("superpixel", scans)
    episode = augmented.make(augmented.draw(np.random.default_rng(0)))
    assert not torch.equal(episode.support.images[0, 0], episode.query.images[0])
    with pytest.raises(DataError, match="1 training scans has a region with 300 pixels in a slice"):
        sampler_of({"name": "superpixel", "min_pixels": 300}, scans)


def labelled_scans():
    """Label 1 in slices 1 to 3 of both scans, label 2 in slice 4 of the first alone; 256 pixels each."""
    first, second = np.zeros((5, 32, 32)), np.zeros((6, 32, 32))
    first[1:4, :16, :16] = second[1:4, 16:, 16:] = 1
    first[4, :16, 16:] = 2
    return [scan_with(first), scan_with(second, "b"), scan_with(first[:, :24], "c")]


LABELLED = {"name": "labelled", "classes": ["one", "two"]}


def test_labelled_pairs_are_of_two_scans_where_there_are_two():
    ours = sampler_of(LABELLED, labelled_scans(), augmentations=[])
    seen = set()
    for number in range(120):
        draw = ours.draw(np.random.default_rng(number), 2)
        label = int(ours.scans[draw.support.scan].table.ids[draw.regions[0]])
        seen.add((label, draw.support.scan, draw.query.scan))
        episode = ours.make(draw)
        scan = ours.scans[draw.query.scan]
        expected = scan.supervoxels[draw.query.slice] == label
        assert torch.equal(episode.target[0] == 1, expected) and episode.target.any()
        assert episode.query.location.item() == pytest.approx(
            draw.query.slice / (len(scan.images) - 1)
        )
    assert {pair for pair in seen if pair[0] == 1} == {(1, 0, 1), (1, 1, 0), (1, 2, 2)}, (
        "the third has slices of another size"
    )
    assert {pair for pair in seen if pair[0] == 2} == {(2, 0, 0), (2, 2, 2)}, "in one slice alone"
    alone = sampler_of(LABELLED | {"across": False}, labelled_scans())
    for number in range(30):
        draw = alone.draw(np.random.default_rng(number))
        assert draw.support.scan == draw.query.scan
    with pytest.raises(DataError, match="has 2000 pixels of one or two in a slice"):
        sampler_of(LABELLED | {"min_pixels": 2000}, labelled_scans())


def test_labels_are_those_of_the_named_classes_alone():
    labels = np.random.default_rng(0).integers(0, 4, size=(2, 8, 8)).astype(np.uint8)
    classes = training_classes(["b"], {1: "a", 2: "b", 3: "c"}, ["a", "c"])
    volume = with_labels_of(volume_of(labels * 1.0, labels), classes)
    regions = Labelled(classes=["b"]).regions(volume, lambda: np.int32(labels))
    assert classes == {2: "b"} and np.array_equal(regions, np.where(labels == 2, 2, 0))
    assert with_labels_of(volume_of(labels * 1.0, labels), {}).labels is None
    with pytest.raises(DataError, match="case a: it has no labels, but episodes.source trains"):
        with_labels_of(volume_of(labels * 1.0), classes)


@pytest.mark.parametrize(
    "wanted, sentence",
    [
        (["a"], "trains on labels of a, which is evaluated"),
        (["b", "c"], "trains on labels of c, which is evaluated"),
        (["bb"], "the dataset has no class 'bb'"),
    ],
)
def test_which_classes_no_source_may_ask_for(wanted, sentence):
    with pytest.raises(FssegError, match=sentence):
        training_classes(wanted, {1: "a", 2: "b", 3: "c"}, ["a", "c"])


def test_a_run_on_labelled_classes(tmp_path):
    """Trained on the labels of one class, calibrated on supervoxels, evaluated on the other class."""
    recipe = write_recipe(tmp_path, make_folder(tmp_path / "scans", size=48))
    changes = {
        "episodes.source": {"name": "labelled", "classes": ["bright"]},
        "protocol.classes": ["dark"],
    }
    own = {"calibration.source": "supervoxel_pairs"}
    loaded = fsseg.load_recipe(recipe, changes | own)
    from fsseg.runs.data import RunData
    from fsseg.system.progress import Silent

    data = RunData(loaded, Silent())
    fold = data.of(data.folds[0])
    ids = {int(each) for scan in fold.sampler.scans for each in scan.table.ids}
    assert ids == {1}, "bright alone, and not dark, which is 2"
    assert fold.calibration_sampler.source.__class__.__name__ == "SupervoxelPairs"
    assert fsseg.run(loaded, runs_dir=tmp_path / "runs").frame is not None
    with pytest.raises(FssegError, match="trains on labels of bright, which is evaluated"):
        fsseg.run(
            fsseg.load_recipe(recipe, changes | {"protocol.classes": ["bright"]}),
            runs_dir=tmp_path / "refused",
        )
    assert not list((tmp_path / "refused").rglob("*.safetensors"))
    with pytest.raises(FssegError, match="trains on labels of dark, which is evaluated"):
        later = {"calibration.source": {"name": "labelled", "classes": ["dark"]}}
        RunData(fsseg.load_recipe(recipe, changes | later), Silent())


def test_a_key_that_the_source_does_not_take_is_refused():
    tables = {
        "dataset": "abdomen_phantom",
        "backbone": "timm",
        "episodes": {"source": "superpixel", "min_slice_pixels": 3},
        "variants": [{"name": "row", "threshold": "ce_t"}],
    }
    with pytest.raises(
        RecipeError, match="min_slice_pixels: expected a source .* got 'superpixel'"
    ):
        parse_recipe(tables)
    tables["episodes"] = {"source": "superpixel", "min_pixels": 3}
    assert parse_recipe(tables).episodes.source_in_full().options == {"min_pixels": 3}


@pytest.mark.parametrize(
    "pair, sentence",
    [
        (None, "is of NoneType, expected a fsseg.training.pairs.Pair"),
        (Pair(Place(7, 0), Place(0, 0), 0, 1), "has scan 7 as its support, expected one of the 2"),
        (Pair(Place(0, 2), Place(0, 60), 0, 1), "has slice 60 as its query, expected one of the 6"),
        (Pair(Place(0, 2), Place(1, 2), 0, 1), r"has slices of \(32, 32\) and \(48, 48\) pixels"),
        (Pair(Place(0, 0), Place(0, 2), 1, 1), "has region 1, expected one of the support's table"),
    ],
)
def test_a_bad_pair_names_its_source(pair, sentence, monkeypatch):
    ours = EpisodeSampler([block_scan(), block_scan("b", size=48)], published_rules())
    monkeypatch.setattr(ours.source, "pair", lambda scans, rng: pair)
    with pytest.raises(
        PluginError, match=f"^episodes 'supervoxel_pairs' of fsseg .*: its pair {sentence}"
    ):
        ours.draw(np.random.default_rng(0))


def test_bad_regions_name_their_source():
    class Bad:
        def regions(self, volume, supervoxels):
            return supervoxels()[1:]

    from fsseg.training.scans import regions_for

    volume = volume_of(np.zeros((3, 8, 8)))
    with pytest.raises(DataError, match="episodes Bad: for case a it gives regions of 2 x 8 x 8"):
        regions_for(Bad(), volume, lambda: np.ones((3, 8, 8), dtype=np.int32), {})
