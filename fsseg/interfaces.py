"""What a component of each kind must offer, all kinds in one file.

A component is an ordinary class with annotated keyword-only arguments. These are Protocols: nothing needs to inherit
from them. Shapes are in words (see `fsseg.types`). Nothing is imported here but for type checkers, so that the contracts
of datasets and supervoxels can be had without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int, Int32
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from fsseg.data.folds import Fold, FoldScheme
    from fsseg.data.volume import Volume
    from fsseg.evaluation.choices import Choice, Shown
    from fsseg.recipe.protocols import Protocol as Rules
    from fsseg.training.drawn import SliceFacts
    from fsseg.training.pairs import Pair
    from fsseg.training.scans import TrainingScan
    from fsseg.training.step import TrainingStep
    from fsseg.types import (
        Evidence,
        IdealPriors,
        Prototypes,
        Query,
        QueryVolume,
        ScoreScale,
        Support,
    )


class Trained(Protocol):
    """The methods of an nn.Module that training, checkpoints and devices need."""

    def parameters(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> Any: ...

    def train(self) -> Any: ...

    def eval(self) -> Any: ...

    def to(self, *place: Any, **options: Any) -> Any: ...


@runtime_checkable
class Backbone(Trained, Protocol):
    """Turns slices into features; an nn.Module.

    It may have two further attributes. `context = n` asks for n neighbouring slices on each side as channels, and
    `in_channels = c` for scans of c channels. It is then called with c (2 n + 1) channels, those of the lowest neighbour
    first; without either, or with a single channel, it is called with that one three times, as networks for photographs
    expect.
    """

    channels: int
    """Channels of the features."""
    stride: int
    """Image pixels per feature cell."""
    intensity: str
    """The name of the rule that scales a volume's intensities before its slices come here, where the recipe names none."""

    def __call__(
        self, images: Float[Tensor, "slice input height width"]
    ) -> Float[Tensor, "slice channel h w"]: ...


@runtime_checkable
class PrototypeExtractor(Protocol):
    """Summarises the support's features under its masks; one that sees the query as well is a `QueryInformedExtractor`.

    A class that inherits from this one has the attributes at their defaults. One that lacks them is taken for one that
    has them so. One that learns is an nn.Module: its parameters are trained with the network of the training that names
    it, and variants that name it as well take them, with the options in its `trained_options` (see `Head`).
    """

    fixed_shape: ClassVar[bool] = False
    """True for one that gives empty ways the weight 0 and never asks the host for a value: training with it can be
    recorded on a GPU."""
    background: ClassVar[bool] = False
    """True for one that also makes prototypes of the background, which is what no way's mask covers; the alignment loss
    then takes both sides' prototypes from it."""

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None = None,
    ) -> Prototypes:
        """Makes the prototypes of each way.

        Args:
            features: The support's features.
            masks: True where a pixel belongs to the way.
            sigma: The head's spread of the foreground around a prototype, for extractors that fit a density.
        """
        ...


@runtime_checkable
class QueryInformedExtractor(Protocol):
    """A prototype extractor with `per_query = True`: it sees the query's features, never its mask.

    It gives each slice of the query prototypes of its own, `query way proto channel` with weights `query way proto`, as
    many for each slice. What it gives a slice depends on no other slice: slices come a few at a time. In the alignment
    loss query and support change places.
    """

    per_query: ClassVar[bool]

    def __call__(
        self,
        features: Float[Tensor, "way shot channel h w"],
        masks: Bool[Tensor, "way shot height width"],
        sigma: Float[Tensor, ""] | None,
        query: Float[Tensor, "query channel h w"],
    ) -> Prototypes: ...


@runtime_checkable
class Head(Trained, Protocol):
    """Scores query features against prototypes; an nn.Module whose state is trained.

    A head may name in `trained_options`, a tuple, the options that its trained state decides, such as what a parameter
    starts from. Variants that take the state take these options with it, and may not give them other values.

    A head with `sees_support = True` is called with a `QueryVolume` as its third argument: the support's images and masks,
    and the images and the features of both sides. It has the slices that are scored at the time, a few of the query.
    """

    score: ScoreScale | None
    """The score scale, for heads of the ADNet family."""
    sigma: Float[Tensor, ""] | None
    """Spread of the foreground around a prototype, for extractors that fit a density."""

    def __call__(
        self, features: Float[Tensor, "query channel h w"], prototypes: Prototypes
    ) -> Float[Tensor, "query class h w"]:
        """Class logits at an even prior, background first."""
        ...


@runtime_checkable
class WholeSegmenter(Protocol):
    """Segments a query from labelled images without prototypes, for example a network that learns in context.

    A row of a recipe names it in place of prototypes and head; thresholds and refiners follow it as they follow a head.
    Images are those after the recipe's intensity rule. One that is an nn.Module with parameters is trained if `[training]`
    names it as its `segmenter`; `trained_options` is as of a head.
    """

    def __call__(
        self, support: Support, query: Query
    ) -> Float[Tensor, "query class own_height own_width"]:
        """Class logits at an even prior, background first, as fine as it has them.

        All slices that one support segments come at once, in the order of the scan: in training and calibration one.
        """
        ...


@runtime_checkable
class Loss(Protocol):
    """Says how badly a training step went; training minimises the weighted sum of its losses.

    One that lacks `fixed_shape` is taken for one that has it False. One with parameters is an nn.Module, which is trained
    with the network.
    """

    fixed_shape: ClassVar[bool] = False
    """True for one whose operations are the same for every episode and never ask the host for a value: training with it
    can be recorded on a GPU."""

    def __call__(self, step: TrainingStep) -> Float[Tensor, ""]:
        """The loss as one number, which is finite and has a gradient; a step is described in `fsseg.TrainingStep`."""
        ...


@runtime_checkable
class BringsLosses(Protocol):
    """A backbone, head, extractor or threshold that brings further losses into the trainings that name it.

    Where it says `fixed_shape = True`, its losses promise what those of `Loss` do.
    """

    def further_losses(
        self,
    ) -> dict[str, tuple[float, Callable[[TrainingStep], Float[Tensor, ""]]]]:
        """By the name that is its column in the training's log, each loss with its weight, often an option.

        Asked for once, when a training begins.
        """
        ...


@runtime_checkable
class Optimiser(Protocol):
    """Makes the optimiser of what is trained; a class that lacks the attribute is taken to have it at its default."""

    capturable: ClassVar[bool] = False
    """True for one whose step never asks the host for a value and takes its rate from a tensor: training with it can be
    recorded on a GPU."""

    def __call__(self, parameters: Sequence[nn.Parameter], fused: bool) -> Optimizer:
        """Makes an optimiser of torch's, or of a class that inherits from `torch.optim.Optimizer`.

        What it keeps of a parameter in its `state` are tensors, numbers and texts, so that training can go on from a
        file. Each of its groups has a rate, `lr`.

        Args:
            parameters: What is trained, on the device.
            fused: True where the recipe wants all of them updated in one go, for optimisers that can.
        """
        ...


@runtime_checkable
class Schedule(Protocol):
    """Moves the learning rate of an optimiser from step to step."""

    def __call__(self, optimiser: Optimizer, steps: int) -> LRScheduler:
        """Makes a scheduler of torch's, or of a class that inherits from `LRScheduler`.

        A schedule knows the step and nothing else, so that a training can go on anywhere. It moves `lr`, `momentum` or
        `betas` of groups. The optimiser is a stand-in: it has the numbers of the real one, and no weights.

        Args:
            optimiser: Whose rate it moves.
            steps: The steps that it is for: the training's, or those up to the next milestone.
        """
        ...


@runtime_checkable
class Threshold(Protocol):
    """Decides with which foreground prior to segment each query slice.

    One that learns with the network is an nn.Module that `[training]` names: its prior then raises the logits before the
    losses see them, and variants that name it take what it learned. With `fixed_shape = True` it promises to ask the
    host for no value, so that such a training can be recorded on a GPU.
    """

    oracle: ClassVar[bool]
    """True for a policy that needs the ground truth; it is then called with the target, and tables mark it."""

    def __call__(self, evidence: Evidence) -> Float[Tensor, "query"] | Float[Tensor, "query way"]:
        """Log-odds of the foreground prior, per slice (or per slice and way). An oracle takes `target` as well."""
        ...


@runtime_checkable
class OracleThreshold(Protocol):
    """A threshold policy with `oracle = True`."""

    oracle: ClassVar[bool]

    def __call__(
        self, evidence: Evidence, target: Int[Tensor, "query height width"]
    ) -> Float[Tensor, "query"] | Float[Tensor, "query way"]: ...


@runtime_checkable
class FittedThreshold(Protocol):
    """A threshold policy that learns from the ideal priors of training-fold episodes."""

    oracle: ClassVar[bool]

    def __call__(
        self, evidence: Evidence
    ) -> Float[Tensor, "query"] | Float[Tensor, "query way"]: ...

    def describe(self, evidence: Evidence) -> Float[Tensor, "query *regressors"]:
        """What the estimate is based on, by query slice, in any shape (also an empty one)."""
        ...

    def fit(self, described: list[np.ndarray], ideal: IdealPriors) -> None:
        """Learns to predict ideal priors. `described` holds what `describe` gave for the query slice of each episode."""
        ...

    def state(self) -> dict[str, Any]:
        """What `fit` learned, as JSON."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `fit` learned."""
        ...


@runtime_checkable
class Refiner(Protocol):
    """Decides again which places of a query are foreground, looking at all its slices together.

    A threshold says how much foreground a slice has, slice by slice; a refiner sees the volume. There is no ground truth
    in what it is handed.

    A refiner may say in `resolution` on which grid it works: "features", as one that says nothing, "image", on the pixels
    of the query's slices, or "any", on the grid of the margins that it gets, whichever that is. One that works on the
    features comes before those that work on the image.
    """

    def __call__(
        self, margins: Float[Tensor, "slice way h w"], volume: QueryVolume
    ) -> Float[Tensor, "slice way h w"]:
        """Margins under the prior in, other margins out.

        A margin is a way's logit minus the background's, the prior included, on the grid on which the refiner works.
        Foreground is where one is positive, and the largest decides which.
        """
        ...


@runtime_checkable
class Folds(Protocol):
    """Divides the cases of a dataset into folds; the recipe's `protocol.folds` names it."""

    def __call__(self, dataset: Dataset) -> FoldScheme:
        """The scheme for this dataset: a `fsseg.FoldScheme`, or a subclass with a `divide` of its own."""
        ...


@runtime_checkable
class EvaluationProtocol(Protocol):
    """Says by which rules folds are evaluated; the recipe's `protocol.name` names it."""

    def __call__(self) -> Rules:
        """The rules: a `fsseg.Protocol`, or a subclass of it that is an `Assigner`."""
        ...


@runtime_checkable
class Assigner(Protocol):
    """Rules with logic of their own: a subclass of `fsseg.Protocol` that chooses slices itself."""

    def choose(
        self,
        fold: Fold,
        shown: Mapping[str, Shown],
        classes: dict[int, str],
        rng: np.random.Generator,
    ) -> list[Choice]:
        """Who segments what, from which labelled slices.

        Args:
            fold: The cases; only those of `fold.evaluated` may be chosen.
            shown: By case, the class values that each slice shows on the working grid.
            classes: The classes that are evaluated: names by label value.
            rng: Depends on the seed of the run and on the fold.

        Returns:
            The choices. Those of one query, support and classes are parts of one segmentation, in which no slice is
            segmented twice and none that is labelled is scored.
        """
        ...


@runtime_checkable
class Metric(Protocol):
    """Compares a predicted class with the ground truth over a whole scan, on the scan's own grid."""

    range: ClassVar[tuple[float, float]]
    """The lowest and the highest value."""
    best: ClassVar[float]
    """The value of a perfect prediction."""
    symmetric: ClassVar[bool]
    """Whether prediction and truth can change places."""
    unit: ClassVar[str]
    """What tables write behind it: "%", which multiplies by a hundred, "mm" or nothing."""

    def __call__(
        self,
        predicted: Bool[np.ndarray, "slice height width"],
        actual: Bool[np.ndarray, "slice height width"],
        spacing: tuple[float, float, float],
    ) -> float:
        """The value; NaN where the class is in neither, and where the measure is not defined.

        `spacing` is the voxel size in mm along (slice, height, width).
        """
        ...


@runtime_checkable
class ProbabilityMetric(Protocol):
    """A metric with `probabilities = True`: it is handed the class's probability as well, beside all that a `Metric` is."""

    range: ClassVar[tuple[float, float]]
    best: ClassVar[float]
    symmetric: ClassVar[bool]
    unit: ClassVar[str]
    probabilities: ClassVar[bool]
    """True for one that asks for probabilities. A metric without this attribute does not."""

    def __call__(
        self,
        predicted: Bool[np.ndarray, "slice height width"],
        actual: Bool[np.ndarray, "slice height width"],
        spacing: tuple[float, float, float],
        probability: Float[np.ndarray, "slice height width"],
    ) -> float:
        """The value. `probability` is the class's among all classes of the segmentation and the background, under the prior
        that decided; NaN in slices that are not segmented, and 0 where the working grid does not reach."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """A set of scans with their labels."""

    name: str
    """What tables call it."""
    classes: dict[int, str]
    """Name of each label value, without the background 0."""
    supervoxel_min_size: int | None
    """Voxels of the scans' own grid that a supervoxel should have at least, where the recipe does not say; None for a
    number that follows from the size of the scan."""
    statistics: Literal["volume", "training"]
    """Where intensity rules take their statistics from: each volume by itself, or the fold's training scans."""
    folds: FoldScheme
    """How its cases are divided, where the recipe does not say."""

    @property
    def cases(self) -> list[str]:
        """Ids in the order that folds count in."""
        ...

    def load(self, case: str) -> Volume:
        """The scan of this case, the same each time; raises DataError for a file that cannot be used.

        Several threads may ask at a time.
        """
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A dataset that can tell whether a case has changed without reading its voxels; a run then starts without them."""

    def fingerprint(self, case: str) -> str:
        """Stands for the case's voxels and how they are read: sizes and times of its files, and options, for example."""
        ...


@runtime_checkable
class StoredSupervoxels(Protocol):
    """A dataset that comes with supervoxels of its own."""

    def load_supervoxels(self, case: str) -> Int32[np.ndarray, "slice height width"]:
        """The published supervoxels of this case, 0 outside the body."""
        ...


@runtime_checkable
class Intensity(Protocol):
    """Scales the intensities of scans, after it has measured them.

    Both methods get images of one channel, on the working grid; of a scan with several channels each is measured and
    scaled by itself. What is measured is kept with a run and goes with its export, so that new scans are scaled alike.
    """

    statistics: ClassVar[Literal["dataset", "training"]]
    """"training" for a rule that has to be measured on the training scans of a fold; "dataset" for one that may as well
    be measured on each scan by itself, as the dataset's `statistics` says."""

    def measure(self, images: Sequence[Float[np.ndarray, "slice height width"]]) -> dict[str, Any]:
        """What `scale` needs to know, as JSON; empty for nothing.

        `images` is one scan, or the training scans of a fold, each of which is read when it is looked at.
        """
        ...

    def scale(
        self, image: Float[np.ndarray, "slice height width"], measured: dict[str, Any]
    ) -> Float[np.ndarray, "slice height width"]:
        """The scaled image; `measured` is what `measure` returned, perhaps of other scans."""
        ...


@runtime_checkable
class Supervoxels(Protocol):
    """Cuts a scan into the regions that serve as pseudo-classes in training."""

    def __call__(self, volume: Volume, dataset: Dataset) -> Int32[np.ndarray, "slice height width"]:
        """A region id per voxel; 0 is never sampled."""
        ...


@runtime_checkable
class EpisodeSource(Protocol):
    """Draws the two slices of a training episode, and the region that both show.

    Four things more it may have:

    * `classes`, names of the dataset's classes whose labels it needs; a recipe that evaluates one of them is refused.
    * `regions(volume, supervoxels)`, which makes the regions of a scan (int32, 0 is never drawn) where they are not its
      supervoxels. The volume has the labels of `classes` alone; calling `supervoxels` cuts it.
    * `usable(scans)`, the scans that it can draw from, which `pair` is then given; it raises DataError where there is none.
    * `others(scan, pair, count, rng)`, so many further regions of the support at most, for episodes of several classes; without
      it each is tried for among all regions of the scan, as published.
    """

    def pair(self, scans: Sequence[TrainingScan], rng: np.random.Generator) -> Pair:
        """Draws a pair from this generator alone; `scan.table` has the pixels of each region in each slice."""
        ...


@runtime_checkable
class Augmentation(Protocol):
    """Changes a slice of a training episode, and its masks where it moves pixels.

    All that is random is drawn first, on the host; the slice is then changed on the device without asking the host for a
    value, by operations whose shapes do not depend on what was drawn, so that a training step can be recorded.

    One that has a method `plainly`, with the arguments of a call, has it called in place of the call where the host may be
    asked; it gives the same, perhaps sooner.
    """

    def draw(self, rng: np.random.Generator, about: SliceFacts) -> Float[np.ndarray, "number"]:
        """Draws the numbers for one slice, from this generator alone; as many each time for slices of one shape."""
        ...

    def __call__(
        self,
        image: Float[Tensor, "*channel height width"],
        masks: Bool[Tensor, "way height width"],
        numbers: Float[Tensor, "number"],
    ) -> tuple[Float[Tensor, "*channel height width"], Bool[Tensor, "way height width"]]:
        """Changes a slice, by these numbers.

        Args:
            image: The slice, after the backbone's intensity rule; a scan of several channels has an axis of them.
            masks: The ways in it.
            numbers: What `draw` drew.

        Returns:
            The image and its masks, in the shapes and types that they had. Masks that stay where they are are handed on
            as they are; those that move leave something of a way, or the slice stays as it was.
        """
        ...
