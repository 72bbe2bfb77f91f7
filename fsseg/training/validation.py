"""A validation curve without labels: the Dice of supervoxel episodes of training scans that are set aside.

No organ's label is involved, so nothing of the evaluation is seen: what is measured is how well the network does what it is
trained for on scans that it is not trained on.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.interfaces import Backbone, Head
from fsseg.model.estimates import LinEst
from fsseg.model.scoring import Extractor, prototypes_of
from fsseg.model.segmenter import Mode, Segmenter, encode, encode_support
from fsseg.model.thresholds import Ocp
from fsseg.recipe.tables import TrainingTable
from fsseg.training.calibration import calibrate, evaluation_mode
from fsseg.training.episodes import EpisodeSampler, episode_rng
from fsseg.types import Episode

VALIDATION_STREAM = 4
"""The stream of a run's seed from which validation draws its episodes, the same ones each time."""

FITTED_TO = 50
"""Training episodes to which the estimated prior is fitted each time."""

IDEAL = "validation_ideal"
"""The name of the Dice under the ideal prior in the log."""

ESTIMATED = "validation_estimated"
"""The name of the Dice under the estimated prior, by which the best state is known."""

BEST = "best"
"""The names of the best state's tensors in snapshots begin so."""

State = dict[str, Tensor]


def set_aside(sampler: EpisodeSampler, count: int) -> tuple[EpisodeSampler, EpisodeSampler]:
    """The sources of episodes of training and of validation; the last so many scans are validation's.

    Raises:
        FssegError: No scan is left to train on.
    """
    scans = sampler.scans
    if count >= len(scans):
        raise FssegError(
            f"training.validation_scans: is {count}, and episodes can be drawn from {len(scans)} training scans, expected "
            "one at least that is left to train on; lower it"
        )
    of_training = EpisodeSampler(scans[:-count], sampler.options, sampler.context)
    return of_training, EpisodeSampler(scans[-count:], sampler.options, sampler.context)


@dataclass(frozen=True)
class Measured:
    """Mean Dice over the validation's episodes.

    Attributes:
        ideal: Each query is decided under its own ideal prior: what prototypes and head can do.
        estimated: Under a prior that LinEst, fitted to training episodes, estimates: what is left of it without the truth.
    """

    ideal: float
    estimated: float

    def dumps(self) -> dict[str, float]:
        """The two by their names in the log."""
        return {IDEAL: self.ideal, ESTIMATED: self.estimated}


class NoValidation:
    """What is done where no scans are set aside: nothing."""

    best: float | None = None

    def is_due(self, step: int) -> bool:
        """True when the training should be measured after so many steps."""
        return False

    def measure(self, backbone: Backbone, prototypes: Extractor, head: Head) -> Measured:
        """The mean Dice of the validation's episodes with these parts; the host waits for the device."""
        raise NotImplementedError("it is never due")

    def keep(self, measured: Measured, state: State) -> None:
        """Copies the state where it is the best so far and the best is to be kept."""

    def settle(self, state: State) -> None:
        """Puts the best state in the place of this one, if there is one."""

    def has(self, name: str) -> bool:
        """True for the name of a tensor in snapshots that is of the best state."""
        return False

    def tensors(self) -> State:
        """The best state, by its names in snapshots."""
        return {}

    def restore(self, tensors: State, best: float | None, model: State) -> None:
        """Takes over the best state of a snapshot."""


class Validation(NoValidation):
    """Measures a network under training every so many steps, and after the last.

    Nothing of the training is moved: the parts are in evaluation mode meanwhile, so no running average moves, and
    episodes are drawn from a stream of their own.

    Attributes:
        best: The best Dice under the estimated prior so far; None where none was measured.
    """

    def __init__(
        self,
        training: EpisodeSampler,
        validation: EpisodeSampler,
        options: TrainingTable,
        *,
        seed: int,
        mode: Mode,
        device: torch.device,
    ) -> None:
        """Measures nothing yet.

        Args:
            training: Episodes of the scans that are trained on, to which the estimated prior is fitted.
            validation: Episodes of the scans that are set aside.
            options: How often, with how many episodes, and what is kept.
            seed: The run's seed.
            mode: "default" or "reference".
            device: Where to compute.
        """
        self.best: float | None = None
        self._training = training
        self._validation = validation
        self._options = options
        self._seed = seed
        self._mode: Mode = mode
        self._device = device
        self._state: State = {}

    def is_due(self, step: int) -> bool:
        """True when the training should be measured after so many steps."""
        return step % self._options.validate_every == 0 or step == self._options.steps

    @torch.no_grad()
    def measure(self, backbone: Backbone, prototypes: Extractor, head: Head) -> Measured:
        """The mean Dice of the validation's episodes with these parts; the host waits for the device."""
        estimate = LinEst()
        parts = (backbone, prototypes, head)
        estimated = Segmenter(*parts, estimate, mode=self._mode)
        ideal = Segmenter(*parts, Ocp(), mode=self._mode)
        with evaluation_mode([estimated, ideal]):
            calibrate(
                backbone,
                [estimated],
                self._training,
                FITTED_TO,
                seed=self._seed,
                device=self._device,
                classes=self._options.classes,
            )
            scores = [self._score(number, estimated, ideal) for number in range(self._episodes)]
        under_ideal, under_estimated = torch.stack(scores).nanmean(dim=0).tolist()
        return Measured(under_ideal, under_estimated)

    @property
    def _episodes(self) -> int:
        return self._options.validation_episodes

    def _score(self, number: int, estimated: Segmenter, ideal: Segmenter) -> Float[Tensor, "2"]:
        """The Dice of an episode under the ideal prior and under the estimated one."""
        episode = self._episode(number)
        support = episode.support
        support_features = encode_support(ideal.backbone, support)
        query_features = encode(ideal.backbone, episode.query.images)
        prototypes = prototypes_of(
            ideal.prototypes, ideal.head, support_features, support.masks, query_features
        )
        scored = ideal.logits(
            support, prototypes, episode.query, query_features, support_features=support_features
        )
        ways = len(support.masks)
        under_ideal = ideal.decide(scored, episode.target).labels
        under_estimated = estimated.decide(scored).labels
        return torch.stack(
            [mean_dice(labels, episode.target, ways) for labels in (under_ideal, under_estimated)]
        )

    def _episode(self, number: int) -> Episode:
        """The episode of this number, the same each time."""
        rng = episode_rng(self._seed, VALIDATION_STREAM, number)
        draw = self._validation.draw(rng, self._options.classes)
        return self._validation.make(draw, self._device)

    def keep(self, measured: Measured, state: State) -> None:
        """Copies the state where it is the best so far and the best is to be kept."""
        if self._options.keep != "best" or not math.isfinite(measured.estimated):
            return
        if self.best is None or measured.estimated > self.best:
            self.best = measured.estimated
            self._state = {name: value.detach().clone() for name, value in state.items()}

    def settle(self, state: State) -> None:
        """Puts the best state in the place of this one, if there is one."""
        for name, value in self._state.items():
            state[name].copy_(value)

    def has(self, name: str) -> bool:
        """True for the name of a tensor in snapshots that is of the best state."""
        return self._options.keep == "best" and name.startswith(f"{BEST}.")

    def tensors(self) -> State:
        """The best state, by its names in snapshots."""
        return {f"{BEST}.{name}": value for name, value in self._state.items()}

    def restore(self, tensors: State, best: float | None, model: State) -> None:
        """Takes over the best state of a snapshot.

        Args:
            tensors: The snapshot's tensors.
            best: The Dice of the best state.
            model: The training's own tensors, for devices and layouts.

        Raises:
            KeyError: There is no such tensor.
        """
        self.best = best
        self._state = {}
        for name, value in tensors.items():
            if self.has(name):
                inner = name.removeprefix(f"{BEST}.")
                self._state[inner] = torch.empty_like(model[inner]).copy_(value)


def mean_dice(
    labels: Integer[Tensor, "query height width"],
    target: Integer[Tensor, "query height width"],
    ways: int,
) -> Float[Tensor, ""]:
    """The Dice of each way, 2 |A and B| / (|A| + |B|), and of these the mean; NaN for ways that are in neither."""
    scores = []
    for way in range(1, ways + 1):
        predicted = labels == way
        actual = target == way
        both = (predicted & actual).sum()
        scores.append(2 * both / (predicted.sum() + actual.sum()))
    return torch.stack(scores).nanmean()


def validation_of(
    sampler: EpisodeSampler, options: TrainingTable, **place: Any
) -> tuple[EpisodeSampler, Validation | None]:
    """What a training draws from, and its validation if the options have one.

    Args:
        sampler: Episodes of all training scans.
        options: The recipe's table of the training.
        **place: Seed, mode and device, as `Validation` takes them.

    Raises:
        FssegError: No scan is left to train on.
    """
    if not options.validation_scans:
        return sampler, None
    of_training, of_validation = set_aside(sampler, options.validation_scans)
    return of_training, Validation(of_training, of_validation, options, **place)
