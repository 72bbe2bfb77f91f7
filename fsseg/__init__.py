"""fsseg: prototype-based few-shot medical image segmentation, from a recipe to a table.

The names below are the public API. They are imported when first used, so that `import fsseg` is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fsseg.errors import DataError, FssegError

if TYPE_CHECKING:
    from fsseg.ablation import Sweep, sweep
    from fsseg.backbones.deeplab import DeepLabResNet101
    from fsseg.backbones.timm import TimmBackbone
    from fsseg.calibration import calibrate
    from fsseg.comparison import Comparison, compare
    from fsseg.data.folders import find_dataset
    from fsseg.grids import FileGrid
    from fsseg.heads import AdNet, AdNetPp, Tpm
    from fsseg.hookspecs import hookimpl
    from fsseg.plugins import choose_plugins, registry
    from fsseg.predicted_files import predict_files, read_volume
    from fsseg.prediction import Predictor, export_onnx, export_predictor, load_predictor
    from fsseg.protocols import FoldScheme
    from fsseg.prototypes import EmGmm, Map
    from fsseg.recipe import Recipe, load_recipe
    from fsseg.refiners import Amount, Component3d, Position, QueryInformed, Smooth3d
    from fsseg.report import write_report
    from fsseg.reproduction import Reproduction, reproduce
    from fsseg.results import Results, load_results
    from fsseg.runs import run
    from fsseg.segmenter import Segmenter
    from fsseg.sensitivity import Sensitivity, support_sensitivity
    from fsseg.thresholds import AvgEst, CeT, Fixed, LinEst, Ocp, Profile
    from fsseg.types import Episode, Evidence, Prototypes, Query, QueryVolume, Score, Segmentation, Support
    from fsseg.volumes import Volume
    from fsseg.wrong_voxels import ErrorTable, error_table

_HOMES = {
    "fsseg.ablation": ["Sweep", "sweep"],
    "fsseg.backbones.deeplab": ["DeepLabResNet101"],
    "fsseg.backbones.timm": ["TimmBackbone"],
    "fsseg.calibration": ["calibrate"],
    "fsseg.comparison": ["Comparison", "compare"],
    "fsseg.data.folders": ["find_dataset"],
    "fsseg.grids": ["FileGrid"],
    "fsseg.heads": ["AdNet", "AdNetPp", "Tpm"],
    "fsseg.hookspecs": ["hookimpl"],
    "fsseg.plugins": ["choose_plugins", "registry"],
    "fsseg.predicted_files": ["predict_files", "read_volume"],
    "fsseg.prediction": ["Predictor", "export_onnx", "export_predictor", "load_predictor"],
    "fsseg.protocols": ["FoldScheme"],
    "fsseg.prototypes": ["EmGmm", "Map"],
    "fsseg.recipe": ["Recipe", "load_recipe"],
    "fsseg.refiners": ["Amount", "Component3d", "Position", "QueryInformed", "Smooth3d"],
    "fsseg.report": ["write_report"],
    "fsseg.reproduction": ["Reproduction", "reproduce"],
    "fsseg.results": ["Results", "load_results"],
    "fsseg.runs": ["run"],
    "fsseg.segmenter": ["Segmenter"],
    "fsseg.sensitivity": ["Sensitivity", "support_sensitivity"],
    "fsseg.thresholds": ["AvgEst", "CeT", "Fixed", "LinEst", "Ocp", "Profile"],
    "fsseg.types": ["Episode", "Evidence", "Prototypes", "Query", "QueryVolume", "Score", "Segmentation", "Support"],
    "fsseg.volumes": ["Volume"],
    "fsseg.wrong_voxels": ["ErrorTable", "error_table"],
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["DataError", "FssegError", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fsseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
