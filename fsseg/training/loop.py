"""Training: an episode of supervoxels and an update of all trained parts in each step.

`Training.advance` is a step; its forward pass is in `fsseg.training.forward`, its losses in `fsseg.training.objective`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fsseg.interfaces import Backbone, Head, PrototypeExtractor, Threshold
from fsseg.model.segmenter import Mode, encode
from fsseg.model.variants import states_of
from fsseg.recipe.tables import SpeedTable, TrainingTable
from fsseg.recipe.updates import rate_key_of
from fsseg.system.devices import Recorded, join_stream, new_stream, on_stream
from fsseg.system.progress import Progress, Silent
from fsseg.system.random import Generators, preserved
from fsseg.system.signals import Stopped, saving_first
from fsseg.training.compose import Ingredients
from fsseg.training.episodes import TRAINING_STREAM, Draw, EpisodeSampler, episode_rng
from fsseg.training.forward import ForwardPass
from fsseg.training.log import LOG_EVERY, Record, TrainingLog
from fsseg.training.objective import Objective, losses_for
from fsseg.training.parts import ReachedParts, begin_training, modules_of
from fsseg.training.saving import Saver, Snapshot
from fsseg.training.speed import choose_speed
from fsseg.training.updates import Optimiser
from fsseg.training.validation import NoValidation, Validation
from fsseg.types import Episode


class Training:
    """A training under way: each `advance` is one episode and one update of all trained parts, in place.

    With `capture`, a step is a fixed sequence of operations on the same tensors: the episode's
    ingredients are copied into place, and the rest is recorded and replayed, so that the host never
    waits and hardly works.

    Attributes:
        backbone: The network that is trained.
        head: The head that is trained with it.
        parts: All that is trained, by name: backbone, head, and whatever else is a module.
        options: The recipe's table of this training.
        speed: The decisions about speed.
        device: Where it computes.
        step: The number of steps done.
        log: The losses so far.
        saver: Keeps its state; the training begins where it was saved last.
    """

    _ingredients: Ingredients | None = None

    def __init__(
        self,
        backbone: Backbone,
        prototypes: PrototypeExtractor,
        head: Head,
        sampler: EpisodeSampler,
        options: TrainingTable,
        *,
        seed: int,
        mode: Mode,
        device: torch.device,
        threshold: Threshold | None = None,
        speed: SpeedTable | None = None,
        tell: Callable[[Record], None] | None = None,
        saver: Saver | None = None,
        validation: Validation | None = None,
        name: str = "training",
    ) -> None:
        """Begins at the first step, or where the saver saved last.

        Args:
            backbone: The network to train, on the device.
            prototypes: The extractor to train with.
            head: The head to train, on the device.
            sampler: Where episodes come from.
            options: The recipe's table of this training.
            seed: The run's seed.
            mode: "default" or "reference": how losses bring logits to the size of the image.
            device: Where to compute.
            threshold: The policy whose prior the losses see; an even prior when omitted.
            speed: The recipe's wishes about speed.
            tell: Hears of each record of the log, one late: for the latest the host would have to wait.
            saver: Keeps the training's state.
            validation: Measures it every so many steps, and may keep its best state.
            name: What messages call it.
        """
        self.options = options
        self.device = device
        self.step = 0
        components = dict(backbone=backbone, head=head, prototypes=prototypes, threshold=threshold)
        self._objective = Objective(losses_for(options, components), device)
        must_be_fixed = [prototypes, threshold, *self._objective.losses]
        self.speed = choose_speed(speed or SpeedTable(), device, backbone, must_be_fixed, sampler)
        self.backbone: Any = backbone  # a Backbone and a module: no type says both
        self.head: Any = head
        self.parts = modules_of(components) | self._objective.parts
        self._forward = ForwardPass(prototypes, head, threshold, mode, options.average_rate)
        self._sampler = sampler.resident(device)
        self._seed = seed
        trained = begin_training(self.parts, self.speed.memory_format)
        self._optimiser = Optimiser(trained, options, device, fused=self.speed.fused)
        self.log = TrainingLog(tell, name, self._objective.labels, rate_key_of(options))
        self._stream = new_stream(device)
        self._recorded = Recorded(self._update_in_place, device)
        self._reached = ReachedParts(self.parts, name)
        self._generators = Generators.seeded(device, seed, TRAINING_STREAM)
        self._validation: NoValidation = validation or NoValidation()
        self.saver = saver
        if saver is not None:
            saver.resume(self)

    def advance(self) -> None:
        """Does the next step: draws an episode, composes it, and updates the trained parts on it.

        Components draw from the generators as this training left them, whatever was done in between.

        Raises:
            FssegError: No gradient ever reached one of the parts, or a value of the log is not finite.
        """
        self._generators.take_over(self.device)
        rng = episode_rng(self._seed, TRAINING_STREAM, self.step)
        draw = self._sampler.draw(rng, self.options.classes)
        with on_stream(self._stream):
            rate = self._optimiser.prepare(self.step)
            if self.speed.capture:
                self._place(draw)
                self._recorded(self._optimiser.unrecordable)
            else:
                episode = self._sampler.make(draw, self.device)
                self._update(episode)
            score = self.head.score
            self.log.add(self.step, self._objective.values, score, rate)
            self.log.tell(behind=1)
        self._generators = Generators.now(self.device)
        self.step += 1
        if self.step % LOG_EVERY == 0:
            self._reached.require()
        if self._validation.is_due(self.step):
            self._validate()

    def _validate(self) -> None:
        """Measures the parts as they are, which moves nothing of the training."""
        with on_stream(self._stream):
            measured = self._validation.measure(self.backbone, self._forward.extractor, self.head)
            self.log.add_line({"step": self.step} | measured.dumps())
            self._validation.keep(measured, self._model_state())

    def _update(self, episode: Episode) -> None:
        """Does a step with an episode: the forward pass, the losses and the update."""
        features = self._encode(episode.support.slices, episode.query.images)
        step = self._forward(episode, *features)
        self._optimiser.update(self._objective(step))

    def _encode(
        self,
        support: Float[Tensor, "slice *input height width"],
        query: Float[Tensor, "query *input height width"],
    ) -> tuple[Float[Tensor, "slice channel h w"], Float[Tensor, "query channel h w"]]:
        """Features of support and query from one pass.

        One batch: batch normalisation takes its statistics over both together, as published.
        """
        images = torch.cat([support, query])
        with self.speed.precision_of_network(self.device):
            features = encode(self.backbone, images).float()
        count = len(support)
        return features[:count], features[count:]

    def _place(self, draw: Draw) -> None:
        """Copies the ingredients of an episode to where a recorded step reads them."""
        ingredients = self._sampler.ingredients(draw, ways=self.options.classes)
        ingredients = ingredients.to(self.device)
        if self._ingredients is None:
            self._ingredients = ingredients
        else:
            self._ingredients.copy_(ingredients)

    def _update_in_place(self) -> None:
        """Does a step with the ingredients in place; no operation's shape depends on the draw."""
        assert self._ingredients is not None, "they are placed first"
        composed = self._sampler.compose(self._ingredients)
        self._update(composed.episode())

    def finish(self) -> None:
        """Leaves the trained parts in evaluation mode.

        Raises:
            FssegError: The training diverged: a loss, a weight or a buffer is not finite; or no gradient ever reached one
                of the parts.
        """
        self.pause()
        if self.step:
            self._reached.require()
        self.log.tell()
        self.log.records()  # of which nobody may have heard
        self._require_finite()
        self._validation.settle(self._model_state())

    def pause(self) -> None:
        """Leaves the trained parts in evaluation mode, as they are."""
        join_stream(self._stream)
        for part in self.parts.values():
            part.eval()

    def _require_finite(self) -> None:
        """Raises FssegError where the losses since the last record, or what would be kept, are not finite."""
        rate = self._optimiser.rate
        self.log.require_finite(self.step, rate)
        for name, value in self._model_state().items():
            if not value.isfinite().all():
                raise self.log.diverged(f"{name} is not finite", self.step, rate)

    @property
    def steps_left(self) -> int:
        """The number of steps to do."""
        return self.options.steps - self.step

    @property
    def problem(self) -> str | None:
        """The reason why steps could not be recorded, if that was tried."""
        return self._recorded.problem

    def snapshot(self) -> Snapshot:
        """All of its state; the host waits for the device.

        Raises:
            FssegError: The training diverged: from such a state nothing could go on.
        """
        join_stream(self._stream)
        self.log.tell()  # of records that the snapshot reads, which are not told later
        self._require_finite()
        tensors = self._model_state()
        tensors |= self._optimiser.state()
        tensors |= self.log.pending()
        tensors |= self._validation.tensors()
        values = {
            "log": self.log.records(),
            "generators": self._generators.dumps(),
            "optimiser": self._optimiser.values(),
            "best": self._validation.best,
        }
        return Snapshot(self.step, tensors, values)

    def restore(self, snapshot: Snapshot) -> None:
        """Takes over a state.

        Raises:
            ValueError: It is of another training; nothing was changed then.
        """
        model = self._model_state()
        shapes = {name: value.shape for name, value in model.items()}
        snapshot.require_tensors(shapes, [self._optimiser, self._validation])
        try:
            generators = Generators.loads(snapshot.values["generators"])
            records = snapshot.values["log"]
            of_optimiser = snapshot.values["optimiser"]
            best = snapshot.values["best"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"its plain values are others: {error!r}") from None
        for name, value in model.items():
            value.copy_(snapshot.tensors[name])
        self._optimiser.restore(snapshot.tensors, of_optimiser)
        self._validation.restore(snapshot.tensors, best, model)
        self._generators = generators
        self.step = snapshot.step
        self.log.restore(records, snapshot.tensors, self.device)

    def _model_state(self) -> dict[str, Tensor]:
        """The states of all trained parts under one name each, not copied."""
        tensors = {}
        for part, state in self.states().items():
            for name, value in state.items():
                tensors[f"{part}.{name}"] = value
        return tensors

    def states(self) -> dict[str, Mapping[str, Tensor]]:
        """The states of the trained parts by name, not copied."""
        return states_of(self.parts)


def train_together(
    trainings: list[Training],
    progress: Progress | None = None,
) -> list[Training]:
    """Finishes several trainings in turns, a step each: a GPU works on them at the same time.

    They share nothing that changes, so each ends as it would by itself.

    Args:
        trainings: The trainings, all on one device.
        progress: Follows the steps of the longest.

    Returns:
        The same trainings, finished.

    Raises:
        FssegError: A training diverged: a record of its log, or what it ends with, is not finite.
        Stopped: A signal asked to stop; the trainings' states are saved then.
    """
    progress = progress or Silent()
    turns = max(training.steps_left for training in trainings)
    with preserved(trainings[0].device), saving_first() as stop:
        for _ in progress.track(range(turns), "training", turns):
            for training in _unfinished(trainings):
                training.advance()
            number = stop.number
            _save(trainings, only_due=number is None)
            if number is not None:
                raise Stopped(number, f"after training step {_steps_done(trainings)}")
    for training in trainings:
        training.finish()
    problems = {training.problem for training in trainings}
    for problem in problems - {None}:
        progress.note(
            f"training: its steps could not be recorded and ran plain, which is slower ({problem})"
        )
    return trainings


def _unfinished(trainings: list[Training]) -> list[Training]:
    return [training for training in trainings if training.steps_left > 0]


def _save(trainings: list[Training], *, only_due: bool) -> None:
    for training in _unfinished(trainings):
        saver = training.saver
        if saver is not None and (not only_due or saver.is_due(training.step)):
            saver.save(training)


def _steps_done(trainings: list[Training]) -> str:
    return ", ".join(f"{training.step} of {training.options.steps}" for training in trainings)
