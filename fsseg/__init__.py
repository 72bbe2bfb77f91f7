"""fsseg: prototype-based few-shot medical image segmentation, from a recipe to a table.

The names below are the public API. They are imported when first used, so that `import fsseg` is fast. Components are
also found by kind: `fsseg.thresholds.LinEst` is `fsseg.LinEst`.
"""

import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

from fsseg.errors import DataError, FssegError
from fsseg.system.code_digests import keep
from fsseg.system.imports import SecondNames, on_first_use

if TYPE_CHECKING:
    from fsseg import interfaces as interfaces
    from fsseg import testing as testing
    from fsseg import types as types
    from fsseg.analysis.comparison import Comparison, compare
    from fsseg.analysis.reproduction import Reproduction, reproduce
    from fsseg.analysis.supports import Sensitivity, support_sensitivity
    from fsseg.analysis.sweep import Sweep, sweep
    from fsseg.analysis.wrong_voxels import ErrorTable, error_table
    from fsseg.data import datasets as datasets
    from fsseg.data import intensity_rules as intensities
    from fsseg.data import supervoxels as supervoxels
    from fsseg.data.datasets.folders import find_dataset
    from fsseg.data.folds import FoldScheme
    from fsseg.data.grids import FileGrid
    from fsseg.data.volume import Volume
    from fsseg.evaluation import metrics as metrics
    from fsseg.evaluation.choices import Choice
    from fsseg.model import backbones as backbones
    from fsseg.model import heads as heads
    from fsseg.model import prototypes as prototypes
    from fsseg.model import refiners as refiners
    from fsseg.model import thresholds as thresholds
    from fsseg.model.backbones.deeplab import DeepLabResNet101
    from fsseg.model.backbones.timm import TimmBackbone
    from fsseg.model.heads import AdNet, AdNetPp, Tpm
    from fsseg.model.prototypes import EmGmm, MaskedAverage
    from fsseg.model.refiners import Amount, Component3d, Position, QueryInformed, Smooth3d
    from fsseg.model.segmenter import Segmenter
    from fsseg.model.thresholds import AvgEst, CeT, Fixed, LinEst, Ocp, Profile
    from fsseg.plugins.hookspecs import hookimpl
    from fsseg.plugins.manager import choose_plugins, registry
    from fsseg.plugins.options import component
    from fsseg.prediction.export import export_onnx, export_predictor
    from fsseg.prediction.files import predict_files, read_volume
    from fsseg.prediction.predictor import Predictor, load_predictor
    from fsseg.recipe.protocols import Protocol
    from fsseg.recipe.reading import load_recipe
    from fsseg.recipe.tables import Recipe
    from fsseg.report import plots as plots
    from fsseg.report.page import write_report
    from fsseg.runs.results import Results, load_results
    from fsseg.runs.run import run
    from fsseg.training import augmentations as augmentations
    from fsseg.training import losses as losses
    from fsseg.training import sources as sources
    from fsseg.training.calibration import calibrate
    from fsseg.training.episodes import EpisodeSampler
    from fsseg.training.pairs import Pair, Place
    from fsseg.training.scans import training_scans
    from fsseg.training.step import TrainingStep
    from fsseg.types import (
        Episode,
        Evidence,
        Prototypes,
        Query,
        QueryVolume,
        ScoreScale,
        Segmentation,
        Support,
    )

keep(*__path__)  # before any of it is imported, so that a change while the process lives is seen

_HOMES = {
    "fsseg.analysis.comparison": ["Comparison", "compare"],
    "fsseg.analysis.reproduction": ["Reproduction", "reproduce"],
    "fsseg.analysis.supports": ["Sensitivity", "support_sensitivity"],
    "fsseg.analysis.sweep": ["Sweep", "sweep"],
    "fsseg.analysis.wrong_voxels": ["ErrorTable", "error_table"],
    "fsseg.data.datasets.folders": ["find_dataset"],
    "fsseg.data.folds": ["FoldScheme"],
    "fsseg.data.grids": ["FileGrid"],
    "fsseg.evaluation.choices": ["Choice"],
    "fsseg.data.volume": ["Volume"],
    "fsseg.model.backbones.deeplab": ["DeepLabResNet101"],
    "fsseg.model.backbones.timm": ["TimmBackbone"],
    "fsseg.model.heads": ["AdNet", "AdNetPp", "Tpm"],
    "fsseg.model.prototypes": ["EmGmm", "MaskedAverage"],
    "fsseg.model.refiners": ["Amount", "Component3d", "Position", "QueryInformed", "Smooth3d"],
    "fsseg.model.segmenter": ["Segmenter"],
    "fsseg.model.thresholds": ["AvgEst", "CeT", "Fixed", "LinEst", "Ocp", "Profile"],
    "fsseg.plugins.hookspecs": ["hookimpl"],
    "fsseg.plugins.manager": ["choose_plugins", "registry"],
    "fsseg.plugins.options": ["component"],
    "fsseg.prediction.files": ["predict_files", "read_volume"],
    "fsseg.prediction.export": ["export_onnx", "export_predictor"],
    "fsseg.prediction.predictor": ["Predictor", "load_predictor"],
    "fsseg.recipe.protocols": ["Protocol"],
    "fsseg.recipe.reading": ["load_recipe"],
    "fsseg.recipe.tables": ["Recipe"],
    "fsseg.report.page": ["write_report"],
    "fsseg.runs.results": ["Results", "load_results"],
    "fsseg.runs.run": ["run"],
    "fsseg.training.calibration": ["calibrate"],
    "fsseg.training.episodes": ["EpisodeSampler"],
    "fsseg.training.pairs": ["Pair", "Place"],
    "fsseg.training.scans": ["training_scans"],
    "fsseg.training.step": ["TrainingStep"],
    "fsseg.types": [
        "Episode",
        "Evidence",
        "Prototypes",
        "Query",
        "QueryVolume",
        "ScoreScale",
        "Segmentation",
        "Support",
    ],
}
"""Public names by the module that they are imported from; the imports above are the same, for type checkers."""

_GROUPS = {
    "thresholds": "fsseg.model.thresholds",
    "heads": "fsseg.model.heads",
    "prototypes": "fsseg.model.prototypes",
    "refiners": "fsseg.model.refiners",
    "backbones": "fsseg.model.backbones",
    "losses": "fsseg.training.losses",
    "augmentations": "fsseg.training.augmentations",
    "sources": "fsseg.training.sources",
    "metrics": "fsseg.evaluation.metrics",
    "datasets": "fsseg.data.datasets",
    "intensities": "fsseg.data.intensity_rules",
    "supervoxels": "fsseg.data.supervoxels",
    "plots": "fsseg.report.plots",
}
"""Modules that are also `fsseg.NAME`."""

_MODULES = ["interfaces", "testing", "types", *_GROUPS]

_RENAMED = {"Map": "MaskedAverage", "Score": "ScoreScale"}
"""Names that still work, with a warning, and what they are called now."""

_get, _names = on_first_use("fsseg", _HOMES)

__all__ = ["DataError", "FssegError", *sorted(sum(_HOMES.values(), [])), *sorted(_MODULES)]

if not any(isinstance(finder, SecondNames) for finder in sys.meta_path):
    sys.meta_path.insert(0, SecondNames({f"fsseg.{name}": home for name, home in _GROUPS.items()}))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fsseg.{name}")
    if name in _RENAMED:
        renamed = _RENAMED[name]
        warnings.warn(
            f"fsseg.{name} is called fsseg.{renamed} now", DeprecationWarning, stacklevel=2
        )
        return _get(renamed)
    return _get(name)


def __dir__() -> list[str]:
    return __all__
