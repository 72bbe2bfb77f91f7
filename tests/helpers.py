"""Small things that several tests need."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import nn

from fsseg.data.folds import FOLD_SCHEMES
from fsseg.data.supervoxels.regions import count_regions
from fsseg.recipe.named_protocols import Alp3Chunk, Ep1, Ep2, Ep2Multi, Ep2Pooled, OwnSlice
from fsseg.recipe.tables import EpisodeTable
from fsseg.training.scans import TrainingScan


def in_a_process(*words, cwd=None, **environment):
    """The shell as a person meets it, in a process of its own; for tests with the mark `processes`."""
    command = [sys.executable, "-m", "fsseg", *map(str, words)]
    environment = os.environ | environment
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


class NoBackbone(nn.Module):
    """Stands where a backbone would, for tests that start from features."""

    channels, stride, intensity = 16, 8, "zscore"

    def forward(self, images):
        raise AssertionError("not called")


class NoScans:
    """A dataset of which only the size of its supervoxels matters."""

    name = "none"
    statistics = "volume"
    folds = FOLD_SCHEMES["disjoint5"]
    classes = {1: "organ"}
    cases = ["1", "2"]

    def __init__(self, supervoxel_min_size=30):
        self.supervoxel_min_size = supervoxel_min_size

    def load(self, case):
        raise NotImplementedError


class TinyBackbone(nn.Module):
    """A backbone for tests: one strided convolution, so that everything around it is what is tested."""

    intensity = "zscore"

    def __init__(self, channels=8, stride=4):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.convolution = nn.Conv2d(3, channels, kernel_size=stride, stride=stride)
        self.channels, self.stride = channels, stride

    def forward(self, images):
        return self.convolution(images)


PROTOCOLS = {
    made().name: made()
    for made in (Ep2(), Ep1(), Alp3Chunk(), Ep2Multi(), Ep2Pooled(supports=2), OwnSlice())
}
"""The rules of the built-in protocols, the pooled one with two scans."""


def block_scan(case="a", slices=6, size=32, seed=0):
    """A scan whose supervoxels are two blocks: 1 in every slice, 2 in three of them and small in one of these."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(slices, size, size)).astype(np.float32)
    regions = np.zeros((slices, size, size), dtype=np.int32)
    regions[:, 2:18, 2:18] = 1
    regions[1, 20:24, 20:24] = 2
    regions[2:4, 20:30, 4:26] = 2
    images += regions
    return TrainingScan(
        case,
        torch.from_numpy(images),
        torch.from_numpy(regions),
        count_regions(regions),
        float(images.mean()),
    )


def published_rules(**changes):
    """The rules of sampling as they are for 256 x 256, on whatever small slices a test has."""
    return EpisodeTable(**{"min_pixels": 200, "min_slice_pixels": 20, **changes})


def write_nifti(path: Path, voxels: np.ndarray, affine=None):
    """Writes slices-first voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.5, 1.5, 6.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(voxels.T), affine), path)


def make_folder(root: Path, cases=10, size=64, slices=5) -> Path:
    """A folder for the `nifti` dataset: a bright blob and a dark one in noise, one case a scan."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.toml").write_text(
        "supervoxel_min_size = 300\n\n[classes]\nbright = 1\ndark = 2\n"
    )
    for case in range(1, cases + 1):
        rng = np.random.default_rng(case)
        labels = np.zeros((slices, size, size), dtype=np.uint8)
        shift = case % 4
        labels[:, 8 + shift : 30 + shift, 8:30] = 1
        labels[1:4, 36:56, 34 + shift : 54 + shift] = 2
        image = 300 + 250 * (labels == 1) - 200 * (labels == 2) + rng.normal(0, 20, labels.shape)
        write_nifti(root / f"image_{case}.nii.gz", image.astype(np.int16))
        write_nifti(root / f"label_{case}.nii.gz", labels)
    return root


RECIPE = """
seed = 3

[dataset]
name = "nifti"
root = "{root}"

[backbone]
name = "light"

[training]
steps = {steps}
learning_rate = 1e-3

[speed]
precision = "float32"

[calibration]
episodes = 6

[protocol]
folds = "disjoint5"

[[variants]]
name = "CE-T"
threshold = "ce_t"

[[variants]]
name = "LinEst"
prototypes = {{ name = "em_gmm", count = 2 }}
threshold = "lin_est"

[[variants]]
name = "OCP"
threshold = "ocp"
"""


def write_recipe(folder: Path, root: Path, steps=2) -> Path:
    """A recipe for `make_folder` that runs in seconds."""
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(root=root, steps=steps))
    return path


def scans_of(results) -> Path:
    """The folder of scans that a run was made of."""
    return Path(tomllib.loads((results.path / "recipe.toml").read_text())["dataset"]["root"])


TIMM = {"name": "timm", "model": "tf_efficientnet_lite0", "strides": [8], "channels": 16}
"""A backbone of the package's own, for the recipe."""

INSTALLED = Path(__file__).parent / "installed"
"""Where the plugin lies that the tests see installed."""


def write_light_recipe(folder: Path, root: Path, steps=2) -> list[Path | str]:
    """The words of a command that runs the recipe with a backbone from a file of its own."""
    path, plugin = write_recipe(folder, root, steps), folder / "light_backbone.py"
    path.write_text(path.read_text().replace('"light"', '"light_in_a_file"'))
    plugin.write_text(
        (INSTALLED / "fsseg_light" / "light.py").read_text()
        + "\n\nfrom fsseg import hookimpl\n\n\n@hookimpl\ndef register_backbones(register):\n"
        + '    register("light_in_a_file", Light)\n'
    )
    return [path, "--plugin", plugin]


def pretend_to_install(folder, distribution, module):
    """What an installation leaves beside a package: its name, its version and its entry points."""
    info = folder / f"{distribution.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[fsseg]\n{module.removeprefix('fsseg_')} = {module}\n")


def dummy_plugins(folder, count):
    """So many distributions, each with a head whose module must not be imported."""
    for number in range(count):
        package = folder / f"fsseg_dummy_{number}"
        package.mkdir()
        (package / "__init__.py").write_text(
            "from fsseg import hookimpl\n\n\n@hookimpl\ndef register_heads(register):\n"
            f'    register("dummy_{number}", "fsseg_dummy_{number}.heavy:Head")\n'
        )
        (package / "heavy.py").write_text("raise SystemExit('imported')\n")
        pretend_to_install(folder, f"fsseg-dummy-{number}", f"fsseg_dummy_{number}")
