"""A training step next to forward pass, backward pass and update of the bare network on the same two slices.

Run by name: `uv run pytest tests/benchmarks/bench_training.py`. Slices of 256 x 256; the step includes drawing and augmenting
its episode. With a GPU also there, with several trainings at a time. Times are not asserted.
"""

import numpy as np
import pytest
import torch
from benchmarks import evaluated_fold as fold
from benchmarks.table import in_turns, print_at_end, told

from fsseg.devices import PLAIN_RUNS, finish_work, pick_device
from fsseg.episodes import EpisodeSampler
from fsseg.heads import Tpm
from fsseg.prototypes import Map
from fsseg.recipe import EpisodeTable, SpeedTable, TrainingTable
from fsseg.timing import bare_step, made_up_scan
from fsseg.training import Training

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine")


@pytest.fixture(scope="module")
def table(request):
    return print_at_end(request, "a training step                                           fsseg  bare network")


def training(name, device, speed, seed=0):
    backbone, head = fold.NETWORKS[name].build("backbone").to(device), Tpm().to(device)
    sampler = EpisodeSampler([made_up_scan((256, 256))], EpisodeTable())
    options = TrainingTable(steps=10_000)
    return Training(backbone, Map(), head, sampler, options, seed=seed, mode="default", device=device, speed=speed)


def in_seconds(name, device, speed, rounds, steps=1):
    """Median seconds of a step and of the bare network's."""
    under_way = training(name, device, speed)
    bare_network = fold.NETWORKS[name].build("backbone").to(device).train()
    bare_network.to(memory_format=torch.channels_last)
    images = made_up_scan((256, 256)).images[:2].to(device)
    bare = bare_step(bare_network, images, under_way.options, under_way.speed)
    for _ in range(PLAIN_RUNS + 1 if device.type != "cpu" else 0):
        under_way.advance(), bare()

    def repeated(step):
        def run():
            for _ in range(steps):
                step()
            finish_work(device)

        return run

    return [seconds / steps for seconds in in_turns(repeated(under_way.advance), repeated(bare), rounds=rounds)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", fold.NETWORKS)
def test_on_a_cpu(benchmark, table, name, precision):
    ours, bare = in_seconds(name, CPU, SpeedTable(precision=precision), rounds=5 if "101" in name else 15)
    table.add(f"CPU, {name}, {precision}", ours, bare, "bare", inverse=True)
    benchmark.pedantic(training(name, CPU, SpeedTable(precision=precision)).advance, rounds=1)


@needs_gpu
@pytest.mark.parametrize("name", fold.NETWORKS)
def test_on_a_gpu(benchmark, table, name):
    device = pick_device("cuda")
    ours, bare = in_seconds(name, device, SpeedTable(), rounds=5, steps=100)
    table.add(f"GPU, {name}, {1 / ours:.0f} steps a second", ours, bare, "bare", inverse=True)
    benchmark.pedantic(training(name, device, SpeedTable()).advance, rounds=1)


@needs_gpu
@pytest.mark.parametrize("together", [2, 5, 8])
def test_several_on_a_gpu(benchmark, table, together):
    device, name = pick_device("cuda"), next(iter(fold.NETWORKS))
    alone = training(name, device, SpeedTable())
    several = [training(name, device, SpeedTable(), seed) for seed in range(together)]
    for one in (alone, *several):
        for _ in range(PLAIN_RUNS + 1):
            one.advance()

    def run(those):
        for _ in range(50):
            for one in those:
                one.advance()
        finish_work(device)

    several_s, alone_s = in_turns(lambda: run(several), lambda: run([alone]), rounds=5)
    table.rows.append(f"{together} trainings at a time: {together * alone_s / several_s:.2f} x the steps of one alone")
    benchmark.pedantic(lambda: run(several), rounds=1)


@pytest.mark.parametrize("classes", [1, 5])
def test_drawing_and_augmenting(benchmark, table, classes):
    """An episode on one core."""
    torch.set_num_threads(1)
    sampler = EpisodeSampler([made_up_scan((256, 256))] * 3, EpisodeTable())
    rngs = iter(np.random.default_rng(number) for number in range(10_000))
    once = lambda: sampler.make(sampler.draw(next(rngs), classes))  # noqa: E731
    [ours] = in_turns(once, rounds=60)
    torch.set_num_threads(torch.get_num_threads())
    table.rows.append(f"an episode of at most {classes} classes, drawn and augmented on one core: {told(ours)}")
    benchmark.pedantic(once, rounds=5)


@needs_gpu
def test_drawing_on_a_gpu(benchmark, table):
    """The share of a step that making the episode there takes."""
    device = pick_device("cuda")
    under_way = training(next(iter(fold.NETWORKS)), device, SpeedTable())
    for _ in range(PLAIN_RUNS + 1):
        under_way.advance()
    sampler = under_way._sampler
    parts = sampler.ingredients(sampler.draw(np.random.default_rng(0))).to(device)

    def timed(function):
        def run():
            for _ in range(50):
                function()
            finish_work(device)

        return run

    step, making = in_turns(timed(under_way.advance), timed(lambda: sampler.compose(parts)), rounds=5)
    table.rows.append(f"GPU, making the episode (not recorded): {making / step:.1%} of a step")
    benchmark.pedantic(timed(under_way.advance), rounds=1)
