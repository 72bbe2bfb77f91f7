"""What a component of each kind must offer, all kinds in one place.

A component is an ordinary class with annotated keyword-only arguments. These are Protocols: nothing needs to inherit
from them. Shapes are in words (see `fsseg.types`). Nothing is imported here but for type checkers, so that the contracts
of datasets and supervoxels can be had without torch.
"""

from fsseg.interfaces.data import (
    Dataset,
    Fingerprinted,
    Intensity,
    StoredSupervoxels,
    Supervoxels,
)
from fsseg.interfaces.evaluation import (
    Assigner,
    EvaluationProtocol,
    Folds,
    Metric,
    ProbabilityMetric,
)
from fsseg.interfaces.model import (
    Backbone,
    FittedThreshold,
    Head,
    OracleThreshold,
    PrototypeExtractor,
    QueryInformedExtractor,
    Refiner,
    Threshold,
    Trained,
    WholeSegmenter,
)
from fsseg.interfaces.training import (
    Augmentation,
    BringsLosses,
    EpisodeSource,
    Loss,
    Optimiser,
    Schedule,
)

__all__ = [
    "Dataset",
    "Fingerprinted",
    "StoredSupervoxels",
    "Intensity",
    "Supervoxels",
    "Trained",
    "Backbone",
    "PrototypeExtractor",
    "QueryInformedExtractor",
    "Head",
    "WholeSegmenter",
    "Threshold",
    "OracleThreshold",
    "FittedThreshold",
    "Refiner",
    "EpisodeSource",
    "Augmentation",
    "Loss",
    "BringsLosses",
    "Optimiser",
    "Schedule",
    "Folds",
    "EvaluationProtocol",
    "Assigner",
    "Metric",
    "ProbabilityMetric",
]
