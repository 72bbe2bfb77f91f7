"""The plugin files in docs/examples run as they stand, in the run that they name."""

import ast
import re
from pathlib import Path

import pytest

import fsseg
from fsseg import registry
from fsseg.plugins.manager import choose_plugins

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"

TINY = [
    "dataset.size=64",
    "dataset.count=10",
    "backbone.name=light",
    "training.steps=3",
    "calibration.episodes=3",
    "protocol.folds=disjoint5",
    'protocol.classes=["liver"]',
    "speed.threads=1",
]
"""What makes the recipe of the examples small."""


def command_of(file):
    """The words of the command in an example's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text())).replace("\\\n", " ")
    [command] = re.findall(r"uv run fsseg (run .*)", text)
    import shlex

    return shlex.split(command)


@pytest.mark.parametrize("name", ["random_contrast", "distant_pairs"])
def test_an_example_runs(name, shell, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = EXAMPLES / f"{name}.py"
    assert len(file.read_text().splitlines()) < 40
    words = command_of(file)
    changes = [word for change in TINY for word in ("--set", change)]
    done = shell(*words, *changes, "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    results = fsseg.load_results(next(tmp_path.glob("tpm_mp5_linest-*")))
    assert f'name = "{name}"' in (results.path / "recipe.toml").read_text()
    environment = (results.path / "environment.json").read_text()
    assert f"{name}.py" in environment, "the plugin is among what the run depends on"


@pytest.mark.parametrize("label", ["augmentation/random_contrast", "episodes/distant_pairs"])
def test_an_example_keeps_its_contract(label):
    from fsseg.testing import run_checks

    kind, name = label.split("/")
    try:
        choose_plugins(files=[EXAMPLES / f"{name}.py"])
        assert registry().find(kind, name).distribution == f"{name}.py"
        results = run_checks(label)
        assert not [result for result in results if result.status == "failed"]
    finally:
        choose_plugins(files=[])
