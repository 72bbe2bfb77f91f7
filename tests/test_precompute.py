"""Supervoxels ahead of a run: in worker processes, kept where a run finds them."""

import json

import numpy as np
import pytest
from helpers import make_folder, write_nifti, write_recipe
from typer.testing import CliRunner

import fsseg
from fsseg import FssegError
from fsseg.cli.main import app
from fsseg.data.cache import cache_folder
from fsseg.recipe.tables import ComponentTable, GridTable
from fsseg.runs.precompute import compute_supervoxels


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path / "cache"))


def kept():
    return sorted(path.name for path in (cache_folder() / "supervoxels").glob("*.safetensors"))


def felzenszwalb(**options):
    return ComponentTable(name="felzenszwalb", **options)


@pytest.mark.processes
def test_workers_compute_what_one_process_does_and_a_run_finds_it(tmp_path):
    root = make_folder(tmp_path / "scans")
    by_workers = compute_supervoxels(root, felzenszwalb(min_size=300), jobs=2)
    files = kept()
    assert [line.case for line in by_workers] == [str(case) for case in range(1, 11)] and len(
        files
    ) == 10
    assert all(
        line.seconds > 0 and line.regions > 1 and line.median_size >= 100 for line in by_workers
    )
    again = compute_supervoxels(root, felzenszwalb(scale=1.0), jobs=1)
    assert kept() == files and all(line.seconds is None for line in again), (
        "the same options, written differently"
    )
    assert [line.regions for line in again] == [line.regions for line in by_workers]
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=1))
    fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert kept() == files
    compute_supervoxels(root, felzenszwalb(min_size=50), jobs=1)
    compute_supervoxels(root, felzenszwalb(scale=1000.0), jobs=1)
    compute_supervoxels(root, felzenszwalb(), grid=GridTable(max_size=32), jobs=1)
    assert len(kept()) == 40


def test_one_bad_scan_does_not_stop_the_others(tmp_path):
    root = make_folder(tmp_path / "scans", cases=4)
    write_nifti(root / "image_2.nii.gz", np.full((5, 64, 64), 3, dtype=np.int16))
    (root / "label_4.nii.gz").write_text("x")
    with pytest.raises(FssegError) as caught:
        compute_supervoxels(root, felzenszwalb(), jobs=1)
    assert "image_2.nii.gz: every voxel is 3" in str(
        caught.value
    ) and "label_4.nii.gz: cannot be read" in str(caught.value)
    assert len(kept()) == 2


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"name": "stored"}, "they come with the dataset"),
        ({"name": "felzenswalb"}, "did you mean 'felzenszwalb'?"),
        (
            {"name": "felzenszwalb", "min_sise": 3},
            "min_sise: unknown key; did you mean 'min_size'?",
        ),
    ],
)
def test_wrong_options_are_explained_before_anything_is_computed(tmp_path, table, expected):
    with pytest.raises(FssegError, match=expected.replace("?", r"\?")):
        compute_supervoxels(make_folder(tmp_path / "scans", cases=4), ComponentTable(**table))


def test_the_command_prints_a_line_per_scan(tmp_path):
    root = make_folder(tmp_path / "scans", cases=4)
    recipe = write_recipe(tmp_path, root)
    arguments = [
        "supervoxels",
        str(root),
        "--recipe",
        str(recipe),
        "--min-size",
        "200",
        "--set",
        "sigma=1.5",
        "--jobs",
        "1",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["case", "regions", "median", "size", "seconds"] and len(lines) == 4
    done = CliRunner().invoke(app, arguments)
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == ["kept"] * 4


def test_slic_is_a_line_of_a_recipe(tmp_path):
    pytest.importorskip("fsseg.data.supervoxels.slic")
    root = make_folder(tmp_path / "scans")
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root, steps=1), {"supervoxels": "slic"})
    results = fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert recipe.supervoxels.name == "slic" and len(kept()) == 8
    assert json.loads((results.path / "run.json").read_text())["dataset"] == "nifti"
