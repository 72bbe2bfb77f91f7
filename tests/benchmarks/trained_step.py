"""A training at the size of the paper's slices, for the benchmarks of its steps."""

import torch
from benchmarks import evaluated_fold as fold
from benchmarks.table import in_turns

from fsseg.model.heads import Tpm
from fsseg.model.prototypes import MaskedAverage
from fsseg.recipe.tables import EpisodeTable, TrainingTable
from fsseg.runs.estimate import bare_step
from fsseg.runs.made_up import made_up_scan
from fsseg.system.devices import PLAIN_RUNS, finish_work
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.loop import Training

PAPERS = next(iter(fold.NETWORKS))
"""The paper's network."""


def training(name, device, speed, seed=0):
    backbone, head = fold.NETWORKS[name].build("backbone").to(device), Tpm().to(device)
    sampler = EpisodeSampler([made_up_scan((256, 256))], EpisodeTable())
    options = TrainingTable(steps=10_000)
    return Training(
        backbone,
        MaskedAverage(),
        head,
        sampler,
        options,
        seed=seed,
        mode="default",
        device=device,
        speed=speed,
    )


def in_seconds(name, device, speed, rounds, steps=1):
    """Median seconds of a step and of the bare network's."""
    under_way = training(name, device, speed)
    bare_network = fold.NETWORKS[name].build("backbone").to(device).train()
    bare_network.to(memory_format=torch.channels_last)
    images = made_up_scan((256, 256)).images[:2].to(device)
    bare = bare_step(bare_network, images, under_way.options, under_way.speed)
    for _ in range(PLAIN_RUNS + 1 if device.type != "cpu" else 0):
        under_way.advance(), bare()

    both = (repeated(step, steps, device) for step in (under_way.advance, bare))
    return [seconds / steps for seconds in in_turns(*both, rounds=rounds)]


def repeated(step, steps, device):
    """So many steps, until the device has done them."""

    def run():
        for _ in range(steps):
            step()
        finish_work(device)

    return run
