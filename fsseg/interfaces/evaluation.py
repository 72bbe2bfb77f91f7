"""Contracts of how a segmenter is evaluated: folds, protocols, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float

    from fsseg.data.folds import Fold, FoldScheme
    from fsseg.evaluation.choices import Choice, Shown
    from fsseg.interfaces.data import Dataset
    from fsseg.recipe.protocols import Protocol as Rules


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
