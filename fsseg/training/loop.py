"""Training: episodes of supervoxels, SGD, and the running averages that published thresholds rest on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fsseg.interfaces import PrototypeExtractor
from fsseg.model.ops import ideal_prior, resize
from fsseg.model.segmenter import encode
from fsseg.recipe.tables import SpeedTable, TrainingTable
from fsseg.system.devices import (
    Recorded,
    gains_from_bfloat16,
    is_accelerator,
    join_stream,
    new_stream,
    on_stream,
)
from fsseg.system.progress import Progress, Silent
from fsseg.system.random import Generators, preserved
from fsseg.system.signals import Stopped, saving_first
from fsseg.training.episodes import EpisodeSampler, Ingredients
from fsseg.training.losses import (
    alignment_loss,
    exchange_loss,
    log_probabilities,
    t_loss,
    weighted_nll,
)
from fsseg.types import Episode, ScoreScale, margin

TRAINING_STREAM, CALIBRATION_STREAM = 1, 2
"""Which stream of random numbers a stage draws its episodes from."""

LOG_EVERY = 25


def episode_rng(seed: int, stream: int, index: int) -> np.random.Generator:
    """The generator of one episode: it depends on the episode's number alone, so training can go on anywhere."""
    return np.random.default_rng([seed, stream, index])


@dataclass(frozen=True)
class Losses:
    """The parts of an episode's loss, before their weights."""

    query: Float[Tensor, ""]
    alignment: Float[Tensor, ""]
    t_loss: Float[Tensor, ""]

    def total(self, options: TrainingTable) -> Float[Tensor, ""]:
        """The weighted sum that is minimised."""
        return self.query + options.alignment * self.alignment + options.t_loss * self.t_loss


@dataclass(frozen=True)
class Speed:
    """How a training is run on a device, with everything that a recipe leaves open decided.

    Attributes:
        precision: Of the network; cosines, margins and losses are float32 in any case.
        capture: Whether steps have fixed shapes and are recorded where the device can.
        channels_last: Whether the network's weights have their channels last.
        fused: Whether the optimiser updates all weights in one go.
    """

    precision: str
    capture: bool
    channels_last: bool
    fused: bool


def choose_speed(
    asked: SpeedTable,
    device: torch.device,
    backbone: nn.Module,
    prototypes: PrototypeExtractor,
    sampler: EpisodeSampler,
) -> Speed:
    """Decides what the recipe leaves open; only components that never ask the host can have fixed shapes."""
    precision = asked.precision
    if precision == "auto":
        precision = "bfloat16" if gains_from_bfloat16(device, backbone) else "float32"
    can_capture = getattr(prototypes, "fixed_shape", False) and sampler.slice_size is not None
    wants = asked.capture == "on" or (
        asked.capture == "auto" and asked.fused and is_accelerator(device)
    )
    return Speed(precision, can_capture and wants, asked.channels_last, asked.fused)


@dataclass(frozen=True)
class Snapshot:
    """All that a training is at one moment.

    Attributes:
        step: The number of steps done.
        tensors: States of backbone, head and optimiser, and the losses since the log's last record.
        values: The log's records, and the states of the generators that components may draw from.
    """

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


@runtime_checkable
class Saver(Protocol):
    """Keeps a training's state where it survives the process."""

    def is_due(self, step: int) -> bool:
        """Whether to save after so many steps."""
        ...

    def save(self, training: "Training") -> None:
        """Saves the training as it is."""
        ...

    def resume(self, training: "Training") -> None:
        """Brings the training to where it was saved last, if it was."""
        ...


class Training:
    """A training under way: each `advance` is one episode and one update of backbone and head, in place.

    With `capture`, a step is a fixed sequence of operations on the same tensors: the episode's ingredients are copied
    into place, and the rest is recorded and replayed, so that the host never waits and hardly works.

    Attributes:
        backbone: What is trained.
        head: Likewise.
        options: The recipe's.
        speed: What was decided about speed.
        device: Where it computes.
        step: The number of steps done.
        log: Losses so far.
        saver: Keeps its state; the training begins where it was saved last.
    """

    # `tell` hears of each record of the log one record late: reading the latest would have the host wait for the GPU.

    def __init__(
        self,
        backbone: nn.Module,
        prototypes: PrototypeExtractor,
        head: nn.Module,
        sampler: EpisodeSampler,
        options: TrainingTable,
        *,
        seed: int,
        mode: str,
        device: torch.device,
        speed: SpeedTable | None = None,
        tell: Callable[[dict[str, Any]], None] | None = None,
        saver: Saver | None = None,
    ) -> None:
        self.options, self.step = options, 0
        self.speed = choose_speed(speed or SpeedTable(), device, backbone, prototypes, sampler)
        self.backbone, self.head, self._prototypes = backbone, head, prototypes
        self._sampler, self._seed, self._mode, self.device = (
            sampler.resident(device),
            seed,
            mode,
            device,
        )
        backbone.to(
            memory_format=torch.channels_last
            if self.speed.channels_last
            else torch.contiguous_format
        )
        backbone.train()
        head.train()
        self._parameters = [
            p for module in (backbone, head) for p in module.parameters() if p.requires_grad
        ]
        # A recording reads the rate from where it lies; a CPU takes the number itself, with all its digits.
        self._rate = (
            torch.tensor(options.learning_rate, device=device) if is_accelerator(device) else None
        )
        self._optimiser = torch.optim.SGD(
            self._parameters,
            lr=options.learning_rate if self._rate is None else self._rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=self.speed.fused,
        )
        self._losses = torch.zeros(3, device=device)
        self.log, self._tell = TrainingLog(), tell
        self._stream = new_stream(device)
        self._parts: Ingredients | None = None
        self._recorded = Recorded(self._update_in_place, device)
        self._generators = Generators.seeded(device, seed, TRAINING_STREAM)
        self.saver = saver
        if saver is not None:
            saver.resume(self)

    def advance(self) -> None:
        """Does the next step; components draw from where this training stood last, whatever was done in between."""
        self._generators.take_over(self.device)
        rate = self.options.learning_rate * self.options.decay ** (
            self.step // self.options.decay_every
        )
        draw = self._sampler.draw(
            episode_rng(self._seed, TRAINING_STREAM, self.step), self.options.classes
        )
        with on_stream(self._stream):
            self._set_rate(rate)
            if self.speed.capture:
                self._place(
                    self._sampler.ingredients(draw, ways=self.options.classes).to(self.device)
                )
                self._recorded()
            else:
                self._update(self._sampler.make(draw, self.device))
            self.log.add(self.step, self._losses, self.head.score, rate)
            if self._tell is not None:
                self._tell_of(self.log.new_records(behind=1))
        self._generators = Generators.now(self.device)
        self.step += 1

    def finish(self) -> None:
        """Leaves backbone and head in evaluation mode."""
        join_stream(self._stream)
        self.backbone.eval()
        self.head.eval()
        if self._tell is not None:
            self._tell_of(self.log.new_records())

    def snapshot(self) -> Snapshot:
        """All of its state; the host waits for the device."""
        join_stream(self._stream)
        if (
            self._tell is not None
        ):  # of all records so far: those that are read for the snapshot are not told later
            self._tell_of(self.log.new_records())
        tensors = {
            f"{part}.{name}": value for part, state in self._states for name, value in state.items()
        }
        for number, parameter in enumerate(self._parameters):
            for name, value in self._optimiser.state[parameter].items():
                if value is not None:
                    tensors[f"optimiser.{number}.{name}"] = value
        values = {"log": self.log.records(), "generators": self._generators.dumps()}
        return Snapshot(self.step, tensors | self.log.pending(), values)

    def restore(self, snapshot: Snapshot) -> None:
        """Takes over a state; raises ValueError, before anything is changed, for one of another training."""
        wanted = {
            f"{part}.{name}": value for part, state in self._states for name, value in state.items()
        }
        for number, parameter in enumerate(self._parameters):
            wanted[f"optimiser.{number}.momentum_buffer"] = parameter
        for name, value in snapshot.tensors.items():
            if name != "log.pending" and (name not in wanted or value.shape != wanted[name].shape):
                raise ValueError(f"{name} is not what this training has")
        if any(
            name not in snapshot.tensors for name in wanted if not name.startswith("optimiser.")
        ):
            raise ValueError("a part is missing")
        try:
            generators, records = (
                Generators.loads(snapshot.values["generators"]),
                snapshot.values["log"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"its plain values are others: {error!r}") from None
        for name, value in snapshot.tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".")
                parameter = self._parameters[int(number)]
                self._optimiser.state[parameter][key] = (
                    torch.empty_like(parameter).detach().copy_(value)
                )
            elif name != "log.pending":
                wanted[name].copy_(value)
        self._generators, self.step = generators, snapshot.step
        self.log.restore(records, snapshot.tensors, self.device)
        if self._tell is not None:
            self._tell_of(self.log.records())

    @property
    def _states(self) -> list[tuple[str, dict[str, Tensor]]]:
        return [("backbone", self.backbone.state_dict()), ("head", self.head.state_dict())]

    @property
    def problem(self) -> str | None:
        """Why steps could not be recorded, if that was tried."""
        return self._recorded.problem

    def _tell_of(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self._tell(record)

    def _set_rate(self, rate: float) -> None:
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def _place(self, parts: Ingredients) -> None:
        if self._parts is None:
            self._parts = parts
        else:
            self._parts.copy_(parts)

    def _update_in_place(self) -> None:
        self._update(self._sampler.compose(self._parts).episode())

    def _update(self, episode: Episode) -> None:
        losses = episode_losses(
            self.backbone,
            self._prototypes,
            self.head,
            episode,
            self.options,
            self._mode,
            self.speed.precision,
        )
        losses.total(self.options).backward()
        nn.utils.clip_grad_value_(self._parameters, self.options.gradient_clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._losses.copy_(torch.stack([losses.query, losses.alignment, losses.t_loss]).detach())


def train(
    backbone: nn.Module,
    prototypes: PrototypeExtractor,
    head: nn.Module,
    sampler: EpisodeSampler,
    options: TrainingTable,
    *,
    seed: int,
    mode: str,
    device: torch.device,
    speed: SpeedTable | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Trains backbone and head in place, and leaves them in evaluation mode.

    Returns:
        The log: mean losses of every 25 steps, the learning rate and the score threshold.
    """
    training = Training(
        backbone,
        prototypes,
        head,
        sampler,
        options,
        seed=seed,
        mode=mode,
        device=device,
        speed=speed,
    )
    train_together([training], progress)
    return training.log.records()


def train_together(trainings: list[Training], progress: Progress | None = None) -> list[Training]:
    """Finishes several trainings in turns, a step each, and returns them: a GPU works on them at the same time.

    They share nothing that changes, so each ends as it would by itself. Raises Stopped when a signal asks to stop, after
    their state is saved.
    """
    progress = progress or Silent()
    most = max(training.options.steps - training.step for training in trainings)
    with preserved(trainings[0].device), saving_first() as asked:
        for _ in progress.track(range(most), "training", most):
            for training in trainings:
                if training.step < training.options.steps:
                    training.advance()
            _save(trainings, now=asked.number is not None)
            if asked.number is not None:
                done = ", ".join(
                    f"{training.step} of {training.options.steps}" for training in trainings
                )
                raise Stopped(asked.number, f"after training step {done}")
    for training in trainings:
        training.finish()
    problems = {training.problem for training in trainings} - {None}
    for problem in problems:
        progress.note(
            f"training: its steps could not be recorded and ran plain, which is slower ({problem})"
        )
    return trainings


def _save(trainings: list[Training], *, now: bool) -> None:
    for training in trainings:
        saver, left = training.saver, training.step < training.options.steps
        if saver is not None and left and (now or saver.is_due(training.step)):
            saver.save(training)


def episode_losses(
    backbone: nn.Module,
    prototypes: PrototypeExtractor,
    head: nn.Module,
    episode: Episode,
    options: TrainingTable,
    mode: str,
    precision: str = "float32",
) -> Losses:
    """The losses of one episode; updates the head's running averages as every training forward does."""
    support, query = episode.support, episode.query
    slices = support.slices
    # Weights are used once in a step, so there is nothing to gain from keeping their copies of lower precision.
    with torch.autocast(
        slices.device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False
    ):
        # One batch: batch normalisation takes its statistics over support and query together, as published.
        features = encode(backbone, torch.cat([slices, query.images])).float()
    support_features, query_features = features[: len(slices)], features[len(slices) :]
    logits = head(
        query_features, prototypes(support.spread(support_features), support.masks, head.sigma)
    )
    size = tuple(query.images.shape[-2:])
    both_sides = getattr(prototypes, "background", False)
    align = (
        partial(exchange_loss, prototypes, head) if both_sides else partial(alignment_loss, head)
    )
    score = head.score
    if score is not None:
        update_averages(score, logits, episode.target, options.average_rate)
    return Losses(
        query=weighted_nll(
            log_probabilities(logits, size, mode), episode.target, options.background_weight
        ),
        alignment=align(logits, query_features, support_features, support, mode)
        if options.alignment
        else logits.new_zeros(()),
        t_loss=t_loss(score) if score is not None else logits.new_zeros(()),
    )


@torch.no_grad()
def update_averages(
    score: ScoreScale,
    logits: Float[Tensor, "query class h w"],
    target: Int[Tensor, "query height width"],
    rate: float,
) -> None:
    """Moves the averages of the ideal distance threshold and of the sigmas towards this episode's.

    In place: the score's averages are the head's own buffers, so that they are saved and loaded with it.
    """
    margins = resize(margin(logits)[:, None], tuple(target.shape[-2:]))[:, 0]
    ideal = score.distance_at_prior(ideal_prior(margins, (target > 0).sum(dim=(1, 2)))).mean()
    score.average_distance.lerp_(ideal, rate).clamp_(1e-3, math.sqrt(2) - 1e-3)
    score.average_sigmas.lerp_(score.sigmas, rate)


class TrainingLog:
    """Collects losses on the device and reads them off later, so that steps do not wait for the host."""

    def __init__(self) -> None:
        self._pending: list[Tensor] = []
        self._rows: list[tuple[int, float, Tensor]] = []
        self._read: list[dict[str, Any]] = []

    def add(
        self, step: int, losses: Float[Tensor, "3"], score: ScoreScale | None, rate: float
    ) -> None:
        """Adds a step; every 25th makes a record."""
        self._pending.append(losses.clone())
        if (step + 1) % LOG_EVERY:
            return
        values = torch.stack(self._pending).mean(dim=0)
        self._pending.clear()
        if score is not None:
            values = torch.cat(
                [values, torch.stack([score.threshold.detach(), score.average_distance])]
            )
        self._rows.append((step + 1, rate, values))

    def new_records(self, behind: int = 0) -> list[dict[str, Any]]:
        """The records that were not read yet, but for so many of the latest."""
        count = max(0, len(self._rows) - behind)
        rows, self._rows = self._rows[:count], self._rows[count:]
        names = ("query", "alignment", "t_loss", "score_threshold", "average_distance")
        values = torch.stack([values for *_, values in rows]).tolist() if rows else []
        new = [
            {"step": step, "learning_rate": rate} | dict(zip(names, of_row))
            for (step, rate, _), of_row in zip(rows, values)
        ]
        self._read += new
        return new

    def pending(self) -> dict[str, Tensor]:
        """The losses since the last record, for a snapshot."""
        return {"log.pending": torch.stack(self._pending)} if self._pending else {}

    def restore(
        self, records: list[dict[str, Any]], tensors: dict[str, Tensor], device: torch.device
    ) -> None:
        """Takes over the records and pending losses of a snapshot."""
        self._read, self._rows = list(records), []
        self._pending = list(tensors["log.pending"].to(device)) if "log.pending" in tensors else []

    def records(self) -> list[dict[str, Any]]:
        """All records so far."""
        self.new_records()
        return list(self._read)
