"""Start-up of a run and an episode with 10 and with 1,000 cases: ten small scans, linked a hundred times.

Run by name: `uv run pytest tests/benchmarks/bench_cases.py`. Times are not asserted, the number of scans read is.
"""

import os
import time
from collections import Counter

import numpy as np
import pytest
from benchmarks.table import in_turns, print_at_end, told
from helpers import make_folder, write_recipe

import fsseg
from fsseg.data.folders import NiftiFolder
from fsseg.progress import Silent
from fsseg.run_data import RunData


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(request, "number of cases")


def linked(root, times):
    for number in range(1, 11):
        for more in range(1, times):
            for kind in ("image", "label"):
                os.symlink(root / f"{kind}_{number}.nii.gz", root / f"{kind}_{100 * more + number}.nii.gz")


@pytest.mark.parametrize("times", [1, 100])
def test_cases(benchmark, table, tmp_path, monkeypatch, times):
    monkeypatch.setenv("FSSEG_CACHE", str(tmp_path / "cache"))
    read, usual = Counter(), NiftiFolder.load
    monkeypatch.setattr(NiftiFolder, "load", lambda self, case: (read.update([case]), usual(self, case))[1])
    root = make_folder(tmp_path / "data", cases=10, size=128, slices=24)
    linked(root, times)
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root))

    def start():
        data = RunData(recipe, Silent())
        data.training_content(data.folds[0])
        return data.sampler(data.folds[0], "zscore")

    began = time.perf_counter()
    start()
    cold, cold_reads = time.perf_counter() - began, sum(read.values())
    read.clear()
    began = time.perf_counter()
    sampler = start()
    warm = time.perf_counter() - began
    assert not read and cold_reads <= 40  # threads may read links of one file at the same time
    rngs = iter(np.random.default_rng(number) for number in range(10_000))
    [episode] = in_turns(lambda: sampler.make(sampler.draw(next(rngs))), rounds=200)
    table.rows.append(
        f"{10 * times:5} cases: first start {told(cold)} ({cold_reads} scans read), later {told(warm)} (none read), "
        f"an episode {told(episode)}"
    )
    benchmark.pedantic(start, rounds=1)
