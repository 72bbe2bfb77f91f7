"""Plugins in the shell: new ones of every kind, lists, checks, files, and what a recipe may say."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
from helpers import dummy_plugins, make_folder, pretend_to_install, write_recipe

from fsseg import FssegError, choose_plugins, load_recipe, registry
from fsseg.plugins import manager
from fsseg.plugins.registry import KINDS
from fsseg.plugins.scaffold import write_plugin
from fsseg.recipe.reading import read_tables
from fsseg.recipe.settings import recipe_schema, settings

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What lies in the test's folder is installed, for as long as the test runs."""

    with monkeypatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        manager.loaded.cache_clear()
        yield
    manager.loaded.cache_clear()


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory):
    """A new plugin of every kind."""
    folder = tmp_path_factory.mktemp("plugins")
    return {kind: write_plugin(kind, f"new_{kind}", folder / kind) for kind in KINDS}


@pytest.mark.processes
def test_a_new_plugin_of_every_kind_passes_its_own_tests(one_of_each, tmp_path):
    """As if they were installed: `uv run pytest` in each is what a test of the tutorial does."""
    for kind, made in one_of_each.items():
        (tmp_path / f"fsseg_new_{kind}").symlink_to(made.folder / f"fsseg_new_{kind}")
        pretend_to_install(tmp_path, made.distribution, f"fsseg_new_{kind}")
    tests = [made.folder / "tests" / f"test_new_{kind}.py" for kind, made in one_of_each.items()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_complete(one_of_each, kind):
    made = one_of_each[kind]
    files = {
        path.relative_to(made.folder)
        for path in made.folder.rglob("*.*")
        if "__pycache__" not in path.parts
    }
    assert files == set(made.files)
    project = tomllib.loads((made.folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["fsseg"] == {f"new_{kind}": f"fsseg_new_{kind}"}
    source = project["tool"]["uv"]["sources"]["fsseg"]  # the clone that fsseg is installed from
    assert source["editable"] and (Path(source["path"]) / "fsseg" / "__init__.py").is_file()
    assert f"new_{kind}" in (made.folder / "README.md").read_text()
    text = "".join((made.folder / file).read_text() for file in made.files)
    assert "$" not in text and "\n@component\nclass New" in text


def test_plugins_from_their_folders_work_together_in_a_run(one_of_each, tmp_path, shell):
    """All in one recipe."""
    recipe = tmp_path / "all.toml"
    recipe.write_text("""
metrics = ["new_metric"]
trackers = ["new_tracker"]
dataset = { name = "new_dataset", count = 4 }
supervoxels = "new_supervoxels"
backbone = { name = "new_backbone", channels = 8 }
[training]
head = "new_head"
prototypes = "new_prototypes"
steps = 26
optimiser = "new_optimiser"
schedule = "new_schedule"
[calibration]
episodes = 2
[[variants]]
name = "New"
head = "new_head"
prototypes = "new_prototypes"
threshold = "new_threshold"
""")
    folders = [option for made in one_of_each.values() for option in ("--plugin", made.folder)]
    done = shell("run", recipe, *folders, "--runs-dir", tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "new_metric in percent" in done.stdout and "New" in done.stdout
    lines = [
        json.loads(line)
        for line in (tmp_path / "runs" / "new_tracker.jsonl").read_text().splitlines()
    ]
    assert [next(iter(line)) for line in lines] == ["run", "training", "variant"]


@pytest.mark.parametrize(
    "kind, name, sentence",
    [
        ("treshold", "x", "there is no kind of component 'treshold'; did you mean 'threshold'?"),
        (
            "threshold",
            "My-Policy",
            "expected small letters, digits and single underscores, such as my_threshold",
        ),
        ("threshold", "class", "expected small letters"),
        ("threshold", "otsu", "there is a threshold 'otsu' already, of fsseg-otsu"),
    ],
)
def test_what_a_new_plugin_cannot_be_called(kind, name, sentence, tmp_path):
    with pytest.raises(FssegError, match=sentence.replace("?", r"\?")):
        write_plugin(kind, name, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.py").write_text("precious")
    with pytest.raises(FssegError, match="mine: it is there already, and nothing is overwritten"):
        write_plugin("head", "mine", tmp_path / "mine")
    assert (tmp_path / "mine" / "work.py").read_text() == "precious"


def test_checks_in_the_shell(one_of_each, shell):
    folder = one_of_each["threshold"].folder
    good = shell("plugin", "check", folder, "--set", "threshold/new_threshold.share=0.2", "--json")
    lines = json.loads(good.stdout)
    assert good.returncode == 0 and {line["status"] for line in lines} == {"passed", "skipped"}
    module = folder / "fsseg_new_threshold" / "new_threshold.py"
    text = module.read_text()
    module.write_text(text.replace("return -margins", "return evidence.logits.mean() - margins"))
    bad = shell("plugin", "check", folder)
    module.write_text(text)
    assert bad.returncode == 1 and "check_common_offset" in bad.stdout
    assert "failed: expected the same priors for logits that are all larger by 3" in " ".join(
        bad.stdout.split()
    )
    strange = shell("plugin", "check", "otsu", "--set", "threshold/lin_est.x=1")
    assert strange.returncode == 2 and "that component is not part of otsu" in strange.stderr
    none = shell("plugin", "check", "oostu")
    assert (
        none.returncode == 2
        and "there is no plugin 'oostu' with components; did you mean 'otsu'?" in none.stderr
    )


@pytest.mark.slow
def test_fifty_plugins_are_listed_without_importing_their_components(tmp_path, installed, shell):
    dummy_plugins(tmp_path, 50)
    done = shell("list", "head")
    assert done.returncode == 0 and done.stdout.count("fsseg-dummy-") == 50
    listed = shell("plugin", "list", "--json")
    assert len([line for line in json.loads(listed.stdout) if "dummy" in line["name"]]) == 50


def test_a_plugin_that_fails_can_be_left_out(tmp_path, installed, shell):
    package = tmp_path / "fsseg_broken"
    package.mkdir()
    (package / "__init__.py").write_text("import fsseg\n\nfsseg.nothing_of_the_kind\n")
    pretend_to_install(tmp_path, "fsseg-broken", "fsseg_broken")
    stopped = shell("list")
    assert stopped.returncode == 2 and "Traceback" not in stopped.stderr
    assert (
        "plugin 'broken' of fsseg-broken 0.1.0: fsseg_broken cannot be imported" in stopped.stderr
    )
    assert (
        f"{package / '__init__.py'}:3" in stopped.stderr and "--no-plugin broken" in stopped.stderr
    )
    assert shell("list", "--no-plugin", "broken").returncode == 0
    choose_plugins(without=[])
    listed = shell("plugin", "list", "--json")
    problems = {line["name"]: line["problem"] for line in json.loads(listed.stdout)}
    assert (
        listed.returncode == 1
        and "cannot be imported" in problems["broken"]
        and problems["otsu"] is None
    )


def everything(recipe):
    """A recipe's tables with the plugins' components that its file may name."""
    return tomllib.loads(recipe.read_text())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_schema_takes_every_recipe(recipe):
    jsonschema.Draft7Validator.check_schema(recipe_schema())
    jsonschema.validate(everything(recipe), recipe_schema())


@pytest.mark.parametrize(
    "change",
    [
        lambda tables: tables["training"].update(stepz=3),
        lambda tables: tables["training"].update(steps="many"),
        lambda tables: tables["backbone"].update(name="tim"),
        lambda tables: tables["backbone"].update(stride=8),
        lambda tables: tables["variants"][0].update(threshold="lin_set"),
        lambda tables: tables["variants"][0].update(threshold={"name": "otsu", "bins": 1}),
        lambda tables: tables["variants"][0].update(training={"head": "tmp"}),
        lambda tables: tables.update(metrics=["iuo"]),
        lambda tables: tables.pop("dataset"),
    ],
)
def test_the_schema_refuses_what_a_recipe_refuses(change):
    tables = everything(ROOT / "recipes" / "table1.toml")
    change(tables)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tables, recipe_schema())


def test_the_schema_has_what_installed_plugins_bring():
    thresholds = recipe_schema()["definitions"]["threshold"]["anyOf"]
    assert set(registry().names("threshold")) == set(thresholds[0]["enum"])
    otsu = next(table for table in thresholds if table.get("title") == "otsu")
    assert otsu["properties"]["bins"]["description"] == "bins of the histogram" and otsu[
        "required"
    ] == ["name"]


def test_explain_tells_where_every_value_comes_from():
    file = ROOT / "recipes" / "table1.toml"
    overrides = {"training.steps": 5, "variants.1.threshold": {"name": "otsu", "bins": 16}}
    found = {
        f"{s.table}.{s.key}".lstrip("."): s
        for s in settings(load_recipe(file, overrides), read_tables(file), overrides)
    }
    told = {key: (found[key].value, found[key].default, found[key].source) for key in found}
    assert told["seed"] == (0, 0, "recipe")
    assert told["training.steps"] == (5, 50_000, "command line")
    assert told["training.learning_rate"] == (5e-3, 1e-3, "recipe")
    assert told["training.momentum"] == (0.9, 0.9, "default")
    assert told["backbone.strides"][0] == [8, 16] and told["backbone.normalise"] == (
        True,
        True,
        "default",
    )
    assert told["training.head.alpha"] == (20.0, 20.0, "default")
    assert told["variants.0.training.t_loss"] == (1.0, 0.0, "recipe")
    assert told["variants.0.training.head.name"][::2] == ("adnet", "recipe")
    assert told["variants.1.threshold.bins"] == (16, 256, "command line")
    assert told["variants.5.prototypes.count"][2] == "recipe"
    assert told["supervoxels.name"][::2] == ("felzenszwalb", "recipe")
    assert not [key for key, setting in found.items() if not setting.meaning]


def test_explain_in_the_shell(shell):
    done = shell("explain", ROOT / "recipes" / "tpm_mp5_linest.toml", "--set", "training.steps=7")
    line = next(line for line in done.stdout.splitlines() if line.startswith("steps"))
    assert line.split() == [
        "steps",
        "7",
        "command",
        "line",
        "optimiser",
        "steps,",
        "one",
        "episode",
        "each",
        "[default:",
        "50000]",
    ]
    assert (
        json.loads(shell("explain", ROOT / "recipes" / "tpm_mp5_linest.toml", "--json").stdout)[0][
            "key"
        ]
        == "seed"
    )


def test_a_recipe_with_an_idea_in_a_file(tmp_path, shell):
    root = make_folder(tmp_path / "scans")
    recipe = write_recipe(tmp_path, root, steps=1)
    (tmp_path / "my_idea_of_a_threshold.py").write_text(
        "from fsseg import CeT, hookimpl\n\n\nclass Idea(CeT):\n    'Mine.'\n\n\n"
        "@hookimpl\ndef register_thresholds(register):\n    register('idea', Idea)\n"
    )
    idea = (
        "--plugin",
        tmp_path / "my_idea_of_a_threshold.py",
        "--set",
        'variants.0.threshold="idea"',
    )
    done = shell("run", recipe, *idea, "--runs-dir", tmp_path / "runs", "--json")
    assert done.returncode == 0, done.stderr
    choose_plugins(files=[])
    without = shell("run", recipe, "--set", 'variants.0.threshold="idea"')
    assert without.returncode == 2 and "there is no threshold 'idea'" in without.stderr


def test_choosing_nothing_is_what_it_was():
    choose_plugins(files=[], without=[])
    assert "otsu" in registry().names("threshold")
