"""Start-up of a run, an episode and the memory they take, with 10 and with 1,000 cases: ten small scans, linked a
hundred times.

Run by name: `uv run pytest tests/benchmarks/bench_cases.py`. Times are not asserted; the number of scans read is, and that
slices are the same as those of scans that are all held in memory, which is how published codes begin (the baseline).
Each start is a process of its own, so that its peak of memory is its own.
"""

import json
import os
import subprocess
import sys

import pytest
from benchmarks.table import print_at_end, told
from helpers import make_folder, write_recipe

CHILD = """
import json, resource, sys, time
from collections import Counter
import numpy as np
import torch
import fsseg
from fsseg.data.datasets.folders import NiftiFolder
from fsseg.data.intensity import measure
from fsseg.system.progress import Silent
from fsseg.runs.run import plan_folds

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

recipe, runs, plain = fsseg.load_recipe(sys.argv[1]), sys.argv[2], sys.argv[3] == "plain"
read, usual = Counter(), NiftiFolder.load
NiftiFolder.load = lambda self, case: (read.update([case]), usual(self, case))[1]
before, started = peak(), time.perf_counter()
[fold] = plan_folds(recipe, runs, torch.device("cpu"), Silent())
if plain:  # every scan of the fold in memory, and scaled there
    held = {}
    for case in fold.fold.training:
        image = fold.data.run.dataset.load(case).image
        held[case] = measure("zscore", [image]).apply(image)
else:
    sampler = fold.data.sampler
    begun = len(sampler.scans)
told = {"start": time.perf_counter() - started, "reads": sum(read.values()), "peak": peak() - before}
if plain:
    told["sums"] = [float(held[case].sum(dtype=np.float64)) for case in list(held)[:20]]
else:
    times = []
    for number in range(300):
        rng, started = np.random.default_rng(number), time.perf_counter()
        sampler.make(sampler.draw(rng))
        times.append(time.perf_counter() - started)
    told |= {"episode": float(np.median(times[50:])), "later": peak() - before}
    told["sums"] = [float(scan.images.numpy().sum(dtype=np.float64)) for scan in sampler.scans[:20]]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request,
        "cases   first start        later start        all in memory      episode     added memory",
    )


def link_all(root, times):
    for number in range(1, 11):
        for more in range(1, times):
            for kind in ("image", "label"):
                os.symlink(
                    root / f"{kind}_{number}.nii.gz", root / f"{kind}_{100 * more + number}.nii.gz"
                )


@pytest.mark.parametrize("times", [1, 100])
def test_cases(benchmark, table, tmp_path, times):
    root = make_folder(tmp_path / "data", cases=10, size=128, slices=24)
    link_all(root, times)
    recipe = write_recipe(tmp_path, root)

    def start(how):
        command = [sys.executable, "-c", CHILD, str(recipe), str(tmp_path / "runs"), how]
        # A shell in between: a process starts with the peak of the one that it was split off from.
        command = ["sh", "-c", '"$0" "$@"; exit $?', *command]
        environment = os.environ | {"FSSEG_CACHE": str(tmp_path / "cache")}
        printed = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        ).stdout
        return json.loads(printed)

    cold, warm, plain = start("cold"), start("warm"), start("plain")
    assert (
        warm["reads"] == 0 and cold["reads"] <= 40
    )  # threads may read links of one file at the same time
    assert warm["sums"] == cold["sums"] == plain["sums"]
    table.rows.append(
        f"{10 * times:5}  {told(cold['start']):>9} ({cold['reads']:4} read) {told(warm['start']):>9} (none read) "
        f"{told(plain['start']):>9} ({plain['start'] / warm['start']:.0f} x)  {told(warm['episode'])}  "
        f"{warm['peak']:.0f} MiB, {warm['later']:.0f} after 300 episodes; all in memory {plain['peak']:.0f} MiB"
    )
    benchmark.pedantic(start, ("warm",), rounds=1)
