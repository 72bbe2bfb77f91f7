"""A stage's key is the code that ran: what it imports, as it was imported, and plugins that change what they import."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import make_folder, pretend_to_install, write_light_recipe, write_recipe

import fsseg
from fsseg import FssegError, choose_plugins
from fsseg.plugins.effects import may_change_others
from fsseg.plugins.sources import Plugin
from fsseg.recipe.trainings import trainings_of
from fsseg.runs import identity
from fsseg.runs.identity import STAGE_SOURCES, imported_files
from fsseg.runs.run import plan_folds
from fsseg.runs.train import training_stage
from fsseg.system.code_digests import drop_modules
from fsseg.system.files import fill_new_folder
from fsseg.system.progress import Silent

ROOT = Path(__file__).parents[1]

KEYS = """
import sys, json, torch, fsseg
from fsseg.runs.run import plan_folds
from fsseg.runs.train import training_stage
from fsseg.recipe.trainings import trainings_of
from fsseg.runs.identity import reading_identity, stage_source, supervoxel_identity
from fsseg.system.progress import Silent
recipe = fsseg.load_recipe(sys.argv[1])
[plan] = plan_folds(recipe, __import__("pathlib").Path(sys.argv[2]), torch.device("cpu"), Silent())
print(json.dumps({
    "train": training_stage(plan, trainings_of(recipe)[0]).key,
    "calibrate": stage_source("calibrate"),
    "evaluate": stage_source("evaluate"),
    "supervoxels": supervoxel_identity(recipe.supervoxels),
    "facts": reading_identity(recipe.dataset, recipe.grid.model_dump()),
}))
"""


@pytest.fixture(autouse=True)
def _no_plugins_left(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    choose_plugins(files=[], without=[])
    drop_modules(tmp_path)


def keys_of(copy, recipe, runs):
    """The keys that a copy of fsseg's source makes, in a process of its own."""
    # Before what else is looked at, which is where the tests' own backbone lies.
    path = os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-P", "-c", KEYS, str(recipe), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def comment_in(copy, *files):
    for name in files:
        file = copy / "fsseg" / name
        file.write_text(file.read_text() + "\n# a comment\n")


@pytest.mark.processes
def test_a_comment_remakes_what_depends_on_its_module_and_nothing_else(tmp_path):
    recipe = write_recipe(tmp_path, make_folder(tmp_path / "scans"))
    shutil.copytree(ROOT / "fsseg", tmp_path / "copy" / "fsseg")
    copy = tmp_path / "copy"
    first = keys_of(copy, recipe, tmp_path / "runs")
    for package in ("report", "cli", "analysis", "prediction", "jobs", "prepare", "testing"):
        folder = ROOT / "fsseg" / package
        comment_in(copy, *(str(p.relative_to(ROOT / "fsseg")) for p in folder.rglob("*.py")))
    comment_in(copy, "data/datasets/contact_sheet.py", "plugins/scaffold.py")
    assert keys_of(copy, recipe, tmp_path / "runs") == first
    comment_in(copy, "evaluation/evaluate.py")
    second = keys_of(copy, recipe, tmp_path / "runs")
    assert differing(first, second) == {"evaluate"}
    comment_in(copy, "training/losses.py")
    third = keys_of(copy, recipe, tmp_path / "runs")
    assert differing(second, third) == {"train"}, "calibration draws episodes and takes no losses"
    comment_in(copy, "model/ops.py")
    fourth = keys_of(copy, recipe, tmp_path / "runs")
    assert differing(third, fourth) == {"train", "calibrate", "evaluate"}
    comment_in(copy, "data/supervoxels/kernels.py")
    assert "supervoxels" in differing(fourth, keys_of(copy, recipe, tmp_path / "runs"))


def differing(first, second):
    return {name for name in first if first[name] != second[name]}


def test_what_a_stage_imports_is_followed_down_and_never_up():
    """By hand: the modules that certainly compute, and packages that certainly do not."""
    names = {}
    for stage, modules in STAGE_SOURCES.items():
        files = set().union(*(imported_files(module) for module in modules))
        names[stage] = {file.relative_to(ROOT / "fsseg").as_posix() for file in files}
    computing = {"model/ops.py", "types.py", "system/devices.py"}
    assert all(computing <= of_stage for of_stage in names.values())
    assert {"training/step.py", "training/applied.py", "system/random.py"} <= names["train"]
    assert {"training/calibration.py", "training/episodes.py"} <= names["calibrate"]
    assert {"evaluation/assignments.py", "evaluation/files.py"} <= names["evaluate"]
    for of_stage in names.values():
        packages = {name.partition("/")[0] for name in of_stage}
        assert not packages & {"report", "cli", "analysis", "prediction", "plugins", "recipe"}
    assert not any(name.startswith("evaluation") for name in names["train"])
    own_method = "data/supervoxels/felzenszwalb.py"
    assert own_method not in names["train"] | names["calibrate"], "it is in a key by its component"


POLICY = """
from fsseg import CeT, hookimpl


class Idea(CeT):
    'A policy under work.'

    def __init__(self, *, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def __call__(self, evidence):
        return super().__call__(evidence) + {shift}


@hookimpl
def register_thresholds(register):
    register("idea", Idea)
"""


def with_policy(tmp_path, shift):
    """A plugin file with a policy, and a recipe whose second variant uses it."""
    file = tmp_path / "keyed_policy.py"
    file.write_text(POLICY.format(shift=shift))
    return file


@pytest.fixture
def scans(tmp_path):
    return make_folder(tmp_path / "scans")


def light(tmp_path, scans, changes=None):
    path, _, plugin = write_light_recipe(tmp_path, scans, steps=1)
    choose_plugins(files=[plugin])
    return plugin, fsseg.load_recipe(path, changes)


def test_a_file_that_changes_after_its_import_is_refused_until_it_is_chosen_again(tmp_path, scans):
    """Else the old code's scores would stand under the new code's key, for every process to come."""
    backbone, _ = light(tmp_path, scans)
    policy = with_policy(tmp_path, 0.0)
    choose_plugins(files=[backbone, policy])
    path, *_ = write_light_recipe(tmp_path, scans, steps=1)
    recipe = fsseg.load_recipe(path, {"variants.0.threshold": "idea"})
    runs = tmp_path / "runs"
    plain = fsseg.run(recipe, runs_dir=runs, device="cpu")
    with_policy(tmp_path, 40.0)
    with pytest.raises(
        FssegError, match=r"keyed_policy\.py changed since it was imported.*restart"
    ):
        fsseg.run(recipe, runs_dir=runs, device="cpu")
    choose_plugins(files=[backbone, policy])
    changed = fsseg.run(recipe, runs_dir=runs, device="cpu")
    predicted = [
        sum(s.predicted for s in run.scores if s.variant == recipe.variants[0].name)
        for run in (plain, changed)
    ]
    assert predicted[1] > predicted[0], "log-odds of 40 more are foreground everywhere"
    with_policy(tmp_path, 0.0)
    choose_plugins(files=[backbone, policy])
    assert fsseg.run(recipe, runs_dir=runs, device="cpu").scores == plain.scores


def test_an_installed_package_that_changes_after_its_import_is_refused(
    tmp_path, scans, monkeypatch
):
    package = tmp_path / "site" / "fsseg_keyed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from fsseg import hookimpl\n\n\n@hookimpl\ndef register_thresholds(register):\n"
        '    register("keyed", "fsseg_keyed.policy:Idea")\n'
    )
    source = POLICY.format(shift=0.0).split("@hookimpl")[0].replace(", hookimpl", "")
    (package / "policy.py").write_text(source)
    pretend_to_install(tmp_path / "site", "fsseg-keyed", "fsseg_keyed")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    try:
        _, recipe = light(tmp_path, scans)
        fsseg.plugins.manager.loaded.cache_clear()
        recipe.variants[0].threshold = "keyed"
        recipe.check()
        (package / "policy.py").write_text(source.replace("+ 0.0", "+ 40.0"))
        with pytest.raises(FssegError, match=r"policy\.py changed since it was imported"):
            fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
        assert not list((tmp_path / "runs").glob("stages/*"))
    finally:
        drop_modules(package)
        fsseg.plugins.manager.loaded.cache_clear()


def test_a_change_while_a_stage_is_made_keeps_nothing(tmp_path, scans, monkeypatch):
    backbone, recipe = light(tmp_path, scans)
    text = backbone.read_text()

    def change(*args, **kwargs):
        backbone.write_text(text + "\n# a comment\n")
        return original(*args, **kwargs)

    from fsseg.runs import train

    original = train.train_together
    monkeypatch.setattr(train, "train_together", change)
    with pytest.raises(FssegError, match=f"{backbone.name} changed since it was imported"):
        fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
    assert not list((tmp_path / "runs" / "stages").glob("train-*"))


@pytest.mark.parametrize("name", ["train.py", "data.py", "scans.py"])
def test_what_puts_a_stage_together_is_in_its_key(monkeypatch, name):
    """A change of a module of runs/ that hands a stage what it computes with, as its digest would tell."""
    plain = identity.stage_source("train")
    digest = identity.digest_at_import

    def with_a_change(*paths):
        files = {Path(path).relative_to(identity.ROOT).as_posix() for path in paths}
        return f"changed {digest(*paths)}" if f"runs/{name}" in files else digest(*paths)

    monkeypatch.setattr(identity, "digest_at_import", with_a_change)
    assert identity.stage_source("train") != plain


PATCH = """
import fsseg.training.losses as losses
from fsseg import hookimpl

KEPT = losses.weighted_nll


def patched(*args, **kwargs):
    return 3 * KEPT(*args, **kwargs)


{change}


@hookimpl
def run_started(recipe):
    pass
"""


OTHER_WAYS = [
    "setattr(losses, 'weighted_nll', patched)",
    "losses.__dict__['weighted_nll'] = patched",
    "module = losses\nmodule.weighted_nll = patched",
    "import importlib\nfound = importlib.import_module('fsseg.training.losses')\nfound.weighted_nll = patched",
    "def install(module):\n    module.weighted_nll = patched\n\n\ninstall(losses)",
    "from unittest import mock\nmock.patch.object(losses, 'weighted_nll', patched).start()",
]
"""Ways to change a function of fsseg."""


@pytest.mark.parametrize(
    "change",
    [
        "losses.weighted_nll = patched",
        *(pytest.param(change, marks=pytest.mark.slow) for change in OTHER_WAYS),
    ],
)
def test_a_plugin_that_changes_what_it_imports_is_part_of_every_key(
    tmp_path, scans, change, monkeypatch
):
    from fsseg.training import losses

    monkeypatch.setattr(losses, "weighted_nll", losses.weighted_nll)  # put back afterwards
    backbone, recipe = light(tmp_path, scans)
    plain = key_of(recipe, tmp_path)
    file = tmp_path / "patching_plugin.py"
    file.write_text(PATCH.format(change=change))
    choose_plugins(files=[backbone, file])
    patched = key_of(recipe, tmp_path)
    file.write_text(PATCH.format(change=change).replace("3 *", "4 *"))
    choose_plugins(files=[backbone, file])
    assert len({plain, patched, key_of(recipe, tmp_path)}) == 3
    choose_plugins(files=[backbone])
    assert key_of(recipe, tmp_path) == plain


def key_of(recipe, tmp_path):
    [plan] = plan_folds(recipe, tmp_path / "runs", torch.device("cpu"), Silent())
    return training_stage(plan, trainings_of(recipe)[0]).key


def test_a_plugin_that_only_registers_changes_no_key_and_is_recorded(tmp_path, scans):
    backbone, recipe = light(tmp_path, scans)
    plain = key_of(recipe, tmp_path)
    policy = with_policy(tmp_path, 1.0)
    choose_plugins(files=[backbone, policy])
    assert key_of(recipe, tmp_path) == plain, "editing a threshold must not train again"
    results = fsseg.run(recipe, runs_dir=tmp_path / "runs", device="cpu")
    recorded = json.loads(results.folder.environment.read_text())["plugins"]
    assert {"keyed_policy", backbone.stem, "otsu"} <= {plugin["name"] for plugin in recorded}
    assert all(len(plugin["source"]) == 16 for plugin in recorded)


def test_the_plugins_of_this_project_change_nothing_of_others():
    for plugin in fsseg.plugins.manager.loaded().plugins:
        assert plugin.distribution == "fsseg" or not may_change_others(plugin), plugin


def test_a_function_that_was_put_into_fsseg_is_found_whatever_its_source_says(
    tmp_path, monkeypatch
):
    from fsseg.training import losses

    file = tmp_path / "sly.py"
    file.write_text("def patched():\n    pass\n")
    namespace = {}
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    plugin = Plugin("sly", "sly.py", "", None, file)
    assert not may_change_others(plugin)
    monkeypatch.setattr(losses, "weighted_nll", namespace["patched"])
    assert may_change_others(plugin)


def test_a_backbone_that_takes_no_seed_is_given_none(tmp_path, scans):
    file = tmp_path / "seedless.py"
    file.write_text(
        "import torch\nfrom torch import nn\nfrom fsseg import hookimpl\n\n\n"
        "class Seedless(nn.Module):\n    intensity, channels, stride = 'zscore', 8, 8\n\n"
        "    def __init__(self) -> None:\n        super().__init__()\n"
        "        self.layer = nn.Conv2d(3, 8, 8, 8)\n\n"
        "    def forward(self, images):\n        return self.layer(images)\n\n\n"
        "@hookimpl\ndef register_backbones(register):\n    register('seedless', Seedless)\n"
    )
    choose_plugins(files=[file])
    path = write_recipe(tmp_path, scans, steps=1)
    text = path.read_text()
    start, end = text.index("[backbone]"), text.index("[training]")
    path.write_text(text[:start] + '[backbone]\nname = "seedless"\n\n' + text[end:])
    results = fsseg.run(fsseg.load_recipe(path), runs_dir=tmp_path / "runs", device="cpu")
    assert len(results.variants) == 3


def test_folders_of_one_name_that_are_made_at_once_all_stay(tmp_path):
    """Runs that end in the same second: none may take another's place."""

    def make(number):
        return fill_new_folder(
            tmp_path / "run", lambda folder: (folder / "n").write_text(str(number))
        )

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(make, range(24)))
    assert len(set(folders)) == 24 and {path.name for path in tmp_path.iterdir()} == {
        "run",
        *(f"run-{number}" for number in range(2, 25)),
    }
    assert {int((folder / "n").read_text()) for folder in folders} == set(range(24))


def test_identity_is_of_the_code_as_it_was_imported(tmp_path, monkeypatch):
    """The digest of fsseg's own files is the one at import, and a later change is refused by name."""
    changed = [Path("/somewhere/fsseg/model/heads.py")]
    monkeypatch.setattr(identity, "changed_sources", lambda: changed)
    with pytest.raises(FssegError, match="heads.py changed since it was imported.*restart Python"):
        identity.require_as_imported()
