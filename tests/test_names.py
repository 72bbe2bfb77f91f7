"""The public names: each from its module, also by kind, and those that were renamed."""

import ast
import importlib
import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from helpers import NoBackbone

import fsseg
from fsseg import AdNet, CeT, MaskedAverage, Query, Segmentation, Segmenter, Support

KINDS = {
    "thresholds": ["AvgEst", "CeT", "Fixed", "LinEst", "Ocp", "Profile"],
    "heads": ["AdNet", "AdNetPp", "Tpm"],
    "prototypes": ["EmGmm", "MaskedAverage"],
    "refiners": ["Amount", "Component3d", "Position", "QueryInformed", "Smooth3d"],
    "backbones": ["DeepLabResNet101", "TimmBackbone"],
    "datasets": ["AbdomenPhantom", "ChaosT2", "Cmr", "NiftiFolder", "Sabs", "find_dataset"],
    "supervoxels": ["Felzenszwalb", "Slic", "Stored"],
    "metrics": ["Assd", "Hd95", "Iou", "Nsd", "VolumeError"],
    "augmentations": [
        "BiasField",
        "Flip",
        "Gamma",
        "Noise",
        "RandomCurve",
        "RandomNetwork",
        "Warp",
    ],
    "sources": ["Labelled", "Superpixel", "SupervoxelPairs"],
    "losses": ["alignment_loss", "t_loss"],
    "plots": ["scores", "theory"],
    "types": ["Query", "Support"],
    "interfaces": ["Head", "Threshold"],
    "testing": ["parametrize_with_checks"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_found_by_kind_as_at_the_top(kind):
    module = importlib.import_module(f"fsseg.{kind}")
    assert module is getattr(fsseg, kind)
    for name in KINDS[kind]:
        value = getattr(module, name)
        assert inspect.isclass(value) or inspect.isfunction(value)
        if name in fsseg.__all__:
            assert value is getattr(fsseg, name)


@pytest.mark.processes
def test_a_module_with_two_names_is_one_module():
    """Imported afresh, under its second name first, also within a package."""
    code = (
        "from fsseg.datasets.folders import NiftiFolder as second\n"
        "import fsseg.datasets, sys\n"
        "from fsseg.data.datasets.folders import NiftiFolder as first\n"
        "assert first is second is fsseg.datasets.NiftiFolder\n"
        "assert fsseg.datasets is fsseg.data.datasets is sys.modules['fsseg.data.datasets']\n"
        "assert fsseg.datasets.__spec__.name == 'fsseg.data.datasets'\n"
        "assert fsseg.datasets.folders is sys.modules['fsseg.data.datasets.folders']\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ModuleNotFoundError, match="No module named 'fsseg.backbones.nothing'"):
        importlib.import_module("fsseg.backbones.nothing")


def test_type_checkers_see_every_public_name():
    tree = ast.parse(Path(fsseg.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and "TYPE" in ast.dump(node)]
    told = {alias.asname or alias.name for node in block.body for alias in node.names}
    assert told == set(fsseg.__all__) - {"DataError", "FssegError"}
    assert set(dir(fsseg)) == set(fsseg.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'fsseg' has no attribute 'EmGMM'"):
        fsseg.EmGMM  # noqa: B018 (looking it up is the test)


@pytest.mark.parametrize("old, new", [("Map", "MaskedAverage"), ("Score", "ScoreScale")])
def test_renamed_classes_warn_where_they_are_used(old, new):
    with pytest.warns(DeprecationWarning, match=f"fsseg.{old} is called fsseg.{new} now") as seen:
        assert getattr(fsseg, old) is getattr(fsseg, new)
    assert seen[0].filename == __file__
    assert old not in fsseg.__all__


def test_renamed_members_do_what_they_did(tmp_path):
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    segmentation = Segmentation(labels, torch.zeros(1), lambda: torch.ones(1, 2, 4, 4))
    with pytest.warns(DeprecationWarning, match="Segmentation.scores is called log_prob"):
        assert segmentation.scores is segmentation.log_probabilities

    segmenter = Segmenter(NoBackbone(), MaskedAverage(), AdNet(), CeT())
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    support = Support(torch.ones(1, 1, 4, 4), mask, torch.ones(1, 1))
    prototypes = MaskedAverage()(torch.ones(1, 1, 3, 2, 2), mask)
    parts = (support, prototypes, Query(torch.ones(1, 4, 4), torch.ones(1)), torch.ones(1, 3, 2, 2))
    labelled = {"support_features": torch.ones(1, 1, 3, 2, 2)}
    scored = segmenter.logits(*parts, **labelled)
    with pytest.warns(DeprecationWarning, match="Segmenter.score is called logits now"):
        assert torch.equal(segmenter.score(*parts, **labelled).coarse, scored.coarse)
    with pytest.warns(DeprecationWarning, match="Segmenter.settle is called decide now"):
        assert torch.equal(segmenter.settle(scored, target=None).labels, labels + 1)
    with (
        pytest.warns(DeprecationWarning, match="Segmenter.load is called Predictor.load now"),
        pytest.raises(fsseg.FssegError) as first,
    ):
        Segmenter.load(tmp_path / "nothing")
    with pytest.raises(fsseg.FssegError) as second, warnings.catch_warnings():
        warnings.simplefilter("error")
        fsseg.Predictor.load(tmp_path / "nothing")
    assert str(first.value) == str(second.value)
