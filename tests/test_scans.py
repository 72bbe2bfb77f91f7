import numpy as np
import pytest
import torch
from helpers import NoScans
from safetensors.numpy import load_file

from fsseg import FssegError, Volume
from fsseg.data.cache import cache_folder, content_key
from fsseg.data.grids import FileGrid
from fsseg.data.intensity import measure
from fsseg.data.supervoxels.kept import cached_supervoxels
from fsseg.data.supervoxels.regions import default_min_size, scaled_pixels
from fsseg.data.volume import on_working_grid
from fsseg.evaluation.scans import evaluation_scan
from fsseg.training.scans import training_scan


def volume(seed=0, labels=True):
    rng = np.random.default_rng(seed)
    image = rng.gamma(2, 100, size=(4, 12, 10)).astype(np.float32)
    return Volume(
        "x",
        image,
        rng.integers(0, 3, image.shape).astype(np.uint8) if labels else None,
        (6.0, 1.5, 1.5),
        FileGrid(np.eye(4)),
    )


def test_zscore_is_over_the_whole_volume():
    image = measure("zscore", [volume().image]).apply(volume().image)
    assert image.mean() == pytest.approx(0, abs=1e-5)
    assert image.std() == pytest.approx(1, abs=1e-5)
    assert image[0].std() != image[1].std()


def test_percentile_rule_by_hand():
    values = np.arange(1001, dtype=np.float32).reshape(
        7, 11, 13
    )  # percentiles 1 and 99.5 are 10 and 995
    image = measure("percentile", [values]).apply(values).flatten()
    assert image[[0, 10, 995, 1000]].tolist() == [-1, -1, 1, 1]
    assert image[502] == pytest.approx(2 * (502 - 10) / 985 - 1, abs=1e-6)


def test_statistics_of_several_scans_are_those_of_all_their_voxels():
    a, b = volume(0).image, 3 * volume(1).image[:2] + 100
    together = np.concatenate([a.ravel(), b.ravel()])
    scaling = measure("zscore", [a, b])
    assert (scaling.measured["subtract"], scaling.measured["divide"]) == pytest.approx(
        (together.mean(), together.std()), rel=1e-6
    )
    scaling = measure("percentile", [a, b])
    low, high = np.percentile(together, [1, 99.5])
    subtract = scaling.measured["subtract"]
    assert (subtract, subtract + scaling.measured["divide"]) == pytest.approx((low, high), rel=1e-6)


def test_an_unknown_rule_is_an_error():
    with pytest.raises(
        FssegError,
        match="intensity rule 'minmax': the backbone asks for it, but there is no intensity 'minmax'",
    ):
        measure("minmax", [volume().image])


def test_scans_keep_what_their_stage_needs():
    plain = measure("zscore", [volume().image])
    scan = evaluation_scan(volume(), volume(), plain)
    assert scan.location.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert torch.equal(scan.labels, torch.from_numpy(volume().labels))
    regions = np.ones((4, 12, 10), dtype=np.int32)
    training = training_scan(volume(), regions, measure("percentile", [volume().image]))
    assert training.fill == pytest.approx(training.images.mean().item()) and not hasattr(
        training, "labels"
    )
    with pytest.raises(FssegError, match="it has no labels"):
        evaluation_scan(volume(labels=False), volume(labels=False), plain)


def test_a_scan_on_another_grid_is_scored_on_its_own():
    own = volume()
    small = on_working_grid(own, {"spacing": 3.0})
    assert small.image.shape == (4, 6, 5) and small.spacing == pytest.approx((6.0, 3.0, 3.0))
    scan = evaluation_scan(own, small, measure("zscore", [small.image]))
    assert scan.images.shape == scan.labels.shape == (4, 6, 5)
    assert torch.equal(scan.truth, torch.from_numpy(own.labels)) and scan.working == small.working
    assert on_working_grid(own, {"max_size": 256}) is own


def test_the_size_of_supervoxels_follows_the_grid():
    own, dataset = volume(), NoScans(7)
    assert default_min_size(own, dataset) == 7
    assert default_min_size(on_working_grid(own, {"spacing": 0.75}), dataset) == 28
    dataset.supervoxel_min_size = None
    usual = Volume(
        "x", np.zeros((36, 256, 256), np.float32), None, (7.7, 1.25, 1.25), FileGrid(np.eye(4))
    )
    assert default_min_size(usual, dataset) == 5000
    assert default_min_size(own, dataset) == 1
    assert (
        scaled_pixels(200, 256, 256) == 200
        and scaled_pixels(200, 128, 64) == 25
        and scaled_pixels(20, 8, 8) == 1
    )


class Counting:
    """A supervoxel method that counts its calls."""

    calls = 0

    def __call__(self, volume, dataset):
        self.calls += 1
        return np.full(volume.image.shape, self.calls, dtype=np.int32)


def test_supervoxels_are_computed_once_for_the_same_content(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path))
    method, dataset = Counting(), NoScans(7)
    assert [cached_supervoxels(volume(), method, dataset, "a").max() for _ in range(3)] == [1, 1, 1]
    assert cached_supervoxels(volume(1), method, dataset, "a").max() == 2, "another scan"
    assert cached_supervoxels(volume(), method, dataset, "b").max() == 3, (
        "another method or other options"
    )
    dataset.supervoxel_min_size = 8
    assert cached_supervoxels(volume(), method, dataset, "a").max() == 4, "another size"
    [path] = [p for p in (tmp_path / "supervoxels").iterdir() if load_file(p)["array"].max() == 3]
    path.write_bytes(b"")
    assert cached_supervoxels(volume(), method, NoScans(7), "b").max() == 5, (
        "a damaged file is computed again"
    )
    assert not list(tmp_path.rglob("*.tmp"))


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("FSSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b" / "fsseg"


@pytest.mark.parametrize("name", ["FSSEG_CACHE", "XDG_CACHE_HOME"])
def test_an_empty_variable_is_as_one_that_is_not_set(name, monkeypatch):
    monkeypatch.delenv("FSSEG_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    usual = cache_folder()
    monkeypatch.setenv(name, "")
    assert cache_folder() == usual and usual.is_absolute() and usual.name == "fsseg"


def test_keys_differ_with_content_type_and_shape():
    ones = np.ones(4)
    keys = {
        content_key(x)
        for x in (ones, ones * 2, ones.astype(np.float32), ones.reshape(2, 2), "ones", 1)
    }
    assert len(keys) == 6 and content_key(ones, 1) == content_key(np.ones(4), 1)
