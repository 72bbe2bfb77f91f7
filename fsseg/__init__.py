"""fsseg: prototype-based few-shot medical image segmentation, from a recipe to a table.

The names below are the public API. They are imported when first used, so that `import fsseg` is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fsseg.errors import DataError, FssegError

if TYPE_CHECKING:
    from fsseg.analysis.comparison import Comparison, compare
    from fsseg.analysis.reproduction import Reproduction, reproduce
    from fsseg.analysis.supports import Sensitivity, support_sensitivity
    from fsseg.analysis.sweep import Sweep, sweep
    from fsseg.analysis.wrong_voxels import ErrorTable, error_table
    from fsseg.data.datasets.folders import find_dataset
    from fsseg.data.folds import FoldScheme
    from fsseg.data.grids import FileGrid
    from fsseg.data.volume import Volume
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
    from fsseg.prediction.files import predict_files, read_volume
    from fsseg.prediction.predictor import Predictor, export_onnx, export_predictor, load_predictor
    from fsseg.recipe.reading import load_recipe
    from fsseg.recipe.tables import Recipe
    from fsseg.report.page import write_report
    from fsseg.runs.results import Results, load_results
    from fsseg.runs.run import run
    from fsseg.training.calibration import calibrate
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

_HOMES = {
    "fsseg.analysis.sweep": ["Sweep", "sweep"],
    "fsseg.model.backbones.deeplab": ["DeepLabResNet101"],
    "fsseg.model.backbones.timm": ["TimmBackbone"],
    "fsseg.training.calibration": ["calibrate"],
    "fsseg.analysis.comparison": ["Comparison", "compare"],
    "fsseg.data.datasets.folders": ["find_dataset"],
    "fsseg.data.grids": ["FileGrid"],
    "fsseg.model.heads": ["AdNet", "AdNetPp", "Tpm"],
    "fsseg.plugins.hookspecs": ["hookimpl"],
    "fsseg.plugins.manager": ["choose_plugins", "registry"],
    "fsseg.plugins.options": ["component"],
    "fsseg.prediction.files": ["predict_files", "read_volume"],
    "fsseg.prediction.predictor": [
        "Predictor",
        "export_onnx",
        "export_predictor",
        "load_predictor",
    ],
    "fsseg.data.folds": ["FoldScheme"],
    "fsseg.model.prototypes": ["EmGmm", "MaskedAverage"],
    "fsseg.recipe.reading": ["load_recipe"],
    "fsseg.recipe.tables": ["Recipe"],
    "fsseg.model.refiners": ["Amount", "Component3d", "Position", "QueryInformed", "Smooth3d"],
    "fsseg.report.page": ["write_report"],
    "fsseg.analysis.reproduction": ["Reproduction", "reproduce"],
    "fsseg.runs.results": ["Results", "load_results"],
    "fsseg.runs.run": ["run"],
    "fsseg.model.segmenter": ["Segmenter"],
    "fsseg.analysis.supports": ["Sensitivity", "support_sensitivity"],
    "fsseg.model.thresholds": ["AvgEst", "CeT", "Fixed", "LinEst", "Ocp", "Profile"],
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
    "fsseg.data.volume": ["Volume"],
    "fsseg.analysis.wrong_voxels": ["ErrorTable", "error_table"],
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["DataError", "FssegError", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fsseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
