"""How fast a machine is at a recipe, and how long the recipe will take: a few steps of everything, on made-up slices.

Nothing of the data is read but the sizes of its scans, so an estimate takes seconds.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsseg.evaluation.evaluate import evaluate
from fsseg.interfaces import Backbone
from fsseg.model.inputs import context_of, scan_channels_of, with_context
from fsseg.model.segmenter import encode, encode_in_parts
from fsseg.model.variants import Variant
from fsseg.recipe.tables import ComponentTable, TrainingTable
from fsseg.recipe.trainings import trainings_of
from fsseg.recipe.updates import optimiser_of
from fsseg.runs.fold import assemble_variants
from fsseg.runs.made_up import SLICES, made_up_fold, made_up_scan
from fsseg.runs.plan import FoldPlan
from fsseg.runs.train import begin_training, is_trained
from fsseg.system.devices import PLAIN_RUNS, Recorded, finish_work, name_device
from fsseg.system.progress import told_time
from fsseg.training.calibration import calibrate
from fsseg.training.episodes import EpisodeSampler
from fsseg.training.scans import TrainingScan
from fsseg.training.speed import Speed
from fsseg.training.updates import build_optimiser

EPISODES = 8
"""Made-up episodes to calibrate with."""

LEAST_CALLS, MOST_CALLS, SECONDS = 3, 50, 0.5
"""How often to time something at least and at most, and the seconds after which to stop."""


@dataclass(frozen=True)
class Speeds:
    """Seconds of everything that a recipe does many times.

    Attributes:
        device: The device, in words.
        size: Height and width of the slices.
        speed: What was decided about the speed of training.
        step: A training step.
        bare_step: Forward and backward pass and update of the bare network on two slices, likewise run.
        slice: A slice through the network.
        episode: A calibration episode, for all rows of a training.
        decision: A slice's labels for one support, by all rows of a training; without the network.
    """

    device: str
    size: tuple[int, int]
    speed: Speed
    step: float
    bare_step: float
    slice: float
    episode: float
    decision: float

    @property
    def fraction(self) -> float:
        """Of the bare network's steps per second, the share that training reaches."""
        return self.bare_step / self.step


@dataclass(frozen=True)
class Estimate:
    """Seconds that a recipe will take, without what is finished already.

    Attributes:
        training: For all trainings that are left.
        calibration: For all folds and seeds.
        evaluation: Likewise.
        steps: Training steps that are left.
        speeds: What it rests on.
    """

    training: float
    calibration: float
    evaluation: float
    steps: int
    speeds: Speeds

    @property
    def total(self) -> float:
        """Seconds of all three together."""
        return self.training + self.calibration + self.evaluation

    def rows(self) -> list[tuple[str, str]]:
        """Everything by name, as people read it."""
        speeds, size = self.speeds, " x ".join(str(edge) for edge in self.speeds.size)
        chosen = speeds.speed
        steps = (
            ["channels last"] * chosen.channels_last
            + ["fused"] * chosen.fused
            + ["recorded"] * chosen.capture
        )
        return [
            ("device", speeds.device),
            ("slices", size),
            (
                "training step",
                f"{1000 * speeds.step:.1f} ms, {1 / speeds.step:.1f} a second ({', '.join([chosen.precision, *steps])})",
            ),
            (
                "  bare network",
                f"{1000 * speeds.bare_step:.1f} ms, of which speed training reaches {speeds.fraction:.0%}",
            ),
            ("slice, network", f"{1000 * speeds.slice:.1f} ms, {1 / speeds.slice:.1f} a second"),
            ("slice, labels of all rows", f"{1000 * speeds.decision:.1f} ms for each support"),
            ("calibration episode, all rows", f"{1000 * speeds.episode:.1f} ms"),
            ("this recipe", f"{told_time(self.total)}, without supervoxels that are not kept yet"),
            ("  training", f"{told_time(self.training)}, {self.steps} steps"),
            ("  calibration", told_time(self.calibration)),
            ("  evaluation", told_time(self.evaluation)),
        ]

    def dumps(self) -> dict[str, Any]:
        """As plain values; times in seconds."""
        return asdict(self) | {
            "total": self.total,
            "fraction_of_bare_network": self.speeds.fraction,
        }

    def __str__(self) -> str:
        speeds = self.speeds
        return (
            f"estimate for {speeds.device}: {told_time(self.total)}, of which training {told_time(self.training)} ({self.steps} steps, "
            f"{1 / speeds.step:.1f} a second, {speeds.fraction:.0%} of the bare network), calibration "
            f"{told_time(self.calibration)}, evaluation {told_time(self.evaluation)}; supervoxels that are not kept yet come on top"
        )


def steps_left(plans: list[FoldPlan]) -> int:
    """Training steps that are not done yet."""
    steps = 0
    for plan in plans:
        for training in trainings_of(plan.recipe):
            if not is_trained(plan, training):
                steps += training.table.steps
    return steps


def estimate(plans: list[FoldPlan]) -> Estimate:
    """How long what is left of the folds and seeds of a recipe will take, after a few steps of everything."""
    speeds = measure_speeds(plans[0])
    recipe = plans[0].recipe
    trainings = trainings_of(recipe)
    steps = steps_left(plans)
    episodes = len(plans) * len(trainings) * recipe.calibration.episodes
    slices = sum(_slices(plan) for plan in plans)
    decisions = sum(_decisions(plan) for plan in plans)
    evaluation = slices * speeds.slice + decisions * speeds.decision
    return Estimate(
        training=steps * speeds.step,
        calibration=episodes * speeds.episode,
        evaluation=len(trainings) * evaluation,
        steps=steps,
        speeds=speeds,
    )


def _slices(plan: FoldPlan) -> int:
    """Slices that pass the network when a fold is evaluated."""
    queries = {choice.query_case for choice in plan.data.choices(plan.seed)}
    facts = plan.data.run.scans.facts
    return sum(facts[case].size[0] for case in queries)


def _decisions(plan: FoldPlan) -> int:
    """Slices that are labelled when a fold is evaluated: each for every support and class that is segmented alone."""
    facts = plan.data.run.scans.facts
    decisions = 0
    for choice in plan.data.choices(plan.seed):
        slices = choice.query_slices
        decisions += facts[choice.query_case].size[0] if slices is None else len(slices)
    return decisions


def measure_speeds(plan: FoldPlan) -> Speeds:
    """Times a few steps, slices, episodes and decisions of a recipe's first training."""
    training = trainings_of(plan.recipe)[0]
    device = plan.device
    facts = next(iter(plan.data.run.scans.facts.values()))
    _, height, width = facts.size
    size = (height, width)
    scan = made_up_scan(size, facts.channels)
    any_region = ComponentTable(name="supervoxel_pairs", min_pixels=1, min_slice_pixels=0)
    rules = plan.recipe.episodes.model_copy(update={"source": any_region})
    sampler = EpisodeSampler([scan], rules, plan.data.run.backbone.context)

    under_way = begin_training(plan, training, sampler, told=False)
    backbone = under_way.backbone
    speed = under_way.speed
    images = with_context(scan.images.to(device), context_of(backbone))
    plain = PLAIN_RUNS + 1 if speed.capture else 1
    step = _time(under_way.advance, device, plain)
    bare = _time(bare_step(backbone, images[:2], training.table, speed), device, plain)
    under_way.pause()

    variants = assemble_variants(plan, backbone, under_way.states(), training)
    encoding = _time_encoding(backbone, images)
    calibration = _time_calibration(plan, backbone, variants, sampler)
    decisions = _time_decisions(plan, backbone, variants, scan)
    return Speeds(
        name_device(device),
        size,
        speed,
        step,
        bare,
        encoding / SLICES,
        calibration / EPISODES,
        decisions / SLICES,
    )


@torch.no_grad()
def _time_encoding(
    backbone: Backbone, images: Float[Tensor, "slice *channel height width"]
) -> float:
    return _time(lambda: encode_in_parts(backbone, images), images.device)


def _time_calibration(
    plan: FoldPlan, backbone: Backbone, variants: list[Variant], sampler: EpisodeSampler
) -> float:
    def run() -> None:
        calibrate(
            backbone,
            variants,
            sampler,
            EPISODES,
            seed=0,
            device=plan.device,
            classes=plan.calibration_classes,
        )

    return _time(run, plan.device)


def _time_decisions(
    plan: FoldPlan, backbone: Backbone, variants: list[Variant], scan: TrainingScan
) -> float:
    together = plan.data.run.protocol.together
    ways = len(plan.data.run.classes) if together else 1
    scans, assigned, fold = made_up_fold(scan, ways)
    known = Known(backbone, scan.images.to(plan.device))

    def run() -> None:
        for _ in evaluate(known, variants, assigned, scans, fold, seed=0, device=plan.device):
            pass

    return _time(run, plan.device)


def bare_step(
    backbone: Backbone,
    images: Float[Tensor, "2 *channel height width"],
    options: TrainingTable,
    speed: Speed,
) -> Callable[[], None]:
    """The least that a training step can be: two slices through the network, back again, and the update."""
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    component = optimiser_of(options).build("optimiser")
    optimiser = build_optimiser(component, parameters, fused=speed.fused)
    half = speed.precision == "bfloat16"

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            features = encode(backbone, images)
        features.float().square().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    can_record = speed.capture and getattr(component, "capturable", False)
    return Recorded(step, images.device) if can_record else step


class Known(nn.Module):
    """In the place of a network: features that were worked out before, so that what comes after it can be timed."""

    @torch.no_grad()
    def __init__(
        self, backbone: Backbone, images: Float[Tensor, "slice *channel height width"]
    ) -> None:
        super().__init__()
        self.channels = backbone.channels
        self.stride = backbone.stride
        self.intensity = backbone.intensity
        self.context = context_of(backbone)
        self.in_channels = scan_channels_of(backbone)
        self._features = encode_in_parts(backbone, with_context(images, self.context))

    def forward(
        self, images: Float[Tensor, "any input height width"]
    ) -> Float[Tensor, "any channel h w"]:
        return self._features[: len(images)]


def _time(function: Callable[[], object], device: torch.device, warm_up: int = 1) -> float:
    """Median seconds of a call, after the first few; of a slow one the first call has to do."""
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < warm_up + MOST_CALLS:
        started = time.perf_counter()
        function()
        finish_work(device)
        seconds.append(time.perf_counter() - started)
        enough = len(seconds) >= warm_up + LEAST_CALLS or seconds[-1] > SECONDS
        if enough and time.perf_counter() - began > SECONDS:
            break
    return float(np.median(seconds[warm_up:] or seconds))
