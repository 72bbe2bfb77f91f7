"""A training on 10 and on 1,000 different cases: how long it takes to start, and that its memory does not grow with them.

Run by name: `uv run pytest tests/benchmarks/bench_many_cases.py`; it writes some gigabytes for a while. The figures of
docs/scaling.md come from here. Times are printed, on the clock and of the processor, since a machine may have other work;
that a later start takes less than 10 s of the processor is asserted, and memory: what a process holds for itself (files
that are mapped into memory are not counted, the system takes them back when it likes), after the start and after 150 steps.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from benchmarks.table import print_at_end
from helpers import write_nifti, write_recipe

SIZE, SLICES = 128, 16

CHILD = """
import json, sys, time
began = time.perf_counter()
import torch
import fsseg
from fsseg.recipe.trainings import trainings_of
from fsseg.system.progress import Silent
from fsseg.runs.run import plan_folds
from fsseg.runs.train import begin_training

def held():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

recipe = fsseg.load_recipe(sys.argv[1])
[fold] = plan_folds(recipe, sys.argv[2], torch.device("cpu"), Silent())
training = begin_training(fold, trainings_of(fold.recipe)[0])
training.advance()
told = {"start": time.perf_counter() - began, "start_work": time.process_time(), "held": [held()]}
before = time.process_time()
for _ in range(3):
    for _ in range(50):
        training.advance()
    told["held"].append(held())
print(json.dumps(told | {"step": (time.process_time() - before) / 150}))
"""


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(
        request,
        "cases    first start: clock, processor (a case)    later start: clock, processor    step: processor    memory at the "
        "start, after 50, 100, 150 steps    cache",
    )


def make_scans(root, cases):
    """Different scans, each with a bright and a dark block at a place of its own."""
    root.mkdir(parents=True)
    (root / "dataset.toml").write_text(
        'image = "image_{case}.nii"\nlabel = "label_{case}.nii"\nsupervoxel_min_size = 2000\n\n[classes]\nbright = 1\ndark = 2\n'
    )
    for case in range(1, cases + 1):
        rng = np.random.default_rng(case)
        labels = np.zeros((SLICES, SIZE, SIZE), dtype=np.uint8)
        row, column = rng.integers(8, 50, size=2)
        labels[2:14, row : row + 40, column : column + 30] = 1
        labels[4:12, 95:120, column : column + 40] = 2
        image = 300 + 250 * (labels == 1) - 200 * (labels == 2) + rng.normal(0, 20, labels.shape)
        write_nifti(root / f"image_{case}.nii", image.astype(np.int16))
        write_nifti(root / f"label_{case}.nii", labels)


def start(recipe, folder):
    environment = os.environ | {"FSSEG_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", CHILD, str(recipe), str(folder / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_memory_does_not_grow_with_the_cases(benchmark, table, tmp_path):
    held, begun = {}, {}
    for cases in (10, 1000):
        folder = tmp_path / str(cases)
        make_scans(folder / "scans", cases)
        recipe = write_recipe(folder, folder / "scans", steps=1000)
        first = start(recipe, folder)
        later = (
            benchmark.pedantic(start, (recipe, folder), rounds=1)
            if cases == 1000
            else start(recipe, folder)
        )
        kept = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
        held[cases], begun[cases] = later["held"], later["start_work"]
        a_case = (first["start_work"] - later["start_work"]) / cases
        table.rows.append(
            f"{cases:5}   {first['start']:6.1f} s, {first['start_work']:6.1f} s ({a_case:.2f} s)   {later['start']:6.1f} s, "
            f"{later['start_work']:6.1f} s   {1000 * later['step']:.0f} ms   "
            f"{', '.join(f'{value:.0f}' for value in later['held'])} MiB   {kept / 2**20 / cases:.2f} MiB a case"
        )
    assert max(held[1000]) - held[1000][0] < 50  # nothing is held longer than a step
    assert held[1000][-1] - held[10][-1] < 50
    assert begun[1000] < 10
