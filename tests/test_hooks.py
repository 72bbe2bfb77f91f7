"""The hooks of a run are heard, and docs/hooks.md says what they are."""

import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import make_folder, write_recipe

import fsseg
from fsseg import choose_plugins
from fsseg.plugins import hookspecs
from fsseg.plugins.hookspecs import describe, spec_names
from fsseg.plugins.manager import check_hooks
from fsseg.plugins.sources import Plugin
from fsseg.system.progress import Silent

PAGE = (Path(__file__).parents[1] / "docs" / "hooks.md").read_text()
SECTIONS = {
    text.partition("\n")[0]: text.partition("\n## ")[0] for text in PAGE.split("\n### ")[1:]
}


def test_the_page_has_every_hook_in_order():
    assert list(SECTIONS) == spec_names()


@pytest.mark.parametrize("name", spec_names())
def test_a_hook_stands_on_the_page_under_its_exact_signature_with_an_example_that_is_one(name):
    signature = str(inspect.signature(describe(name))).replace(
        "Callable[[str, str | type], NoneType]", "Register"
    )
    signature = re.sub(
        r"collections\.abc\.Callable\[\[str, str \| type\], None\]", "Register", signature
    )
    signature = signature.replace("'", '"')
    shown, example = re.findall(r"```python\n(.*?)```", SECTIONS[name], flags=re.S)
    assert shown.strip() == f"def {name}{signature}"
    names = {"hookimpl": fsseg.hookimpl}
    exec(example, names)  # noqa: S102 (our own documentation)
    plugin = Plugin("example", "docs", "", type("Module", (), {name: staticmethod(names[name])}))
    assert list(plugin.hooks) == [name]
    check_hooks(plugin)


def test_every_hook_says_what_it_is_for():
    assert all(inspect.getdoc(describe(name)) for name in spec_names())
    assert hookspecs.__doc__


LISTENER = '''
from fsseg import hookimpl

HEARD = []


@hookimpl
def run_started(name, recipe, runs_dir):
    HEARD.append(("started", name, recipe.training.steps, runs_dir.name))


@hookimpl
def step_logged(variants, fold, seed, values):
    HEARD.append(("step", tuple(variants), fold, seed, values["step"], sorted(values)))


@hookimpl
def variant_evaluated(variant, fold, seed, scores):
    HEARD.append(("evaluated", variant, fold, seed, len(scores)))


@hookimpl
def run_finished(results, error):
    HEARD.append(("finished", results and results.path.name, type(error).__name__))


class Tracker:
    """Keeps what it hears."""

    def __init__(self, *, word: str = "tracked") -> None:
        self.word = word

    @hookimpl
    def variant_evaluated(self, variant):
        HEARD.append((self.word, variant))


@hookimpl
def register_trackers(register):
    register("keeping", Tracker)
'''


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    file = tmp_path_factory.mktemp("listener") / "listening_plugin.py"
    file.write_text(LISTENER)
    return file


@pytest.fixture
def heard(listener):
    choose_plugins(files=[listener])
    fsseg.registry()
    import listening_plugin

    listening_plugin.HEARD.clear()
    yield listening_plugin.HEARD
    choose_plugins(files=[])


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hooks")
    return write_recipe(folder, make_folder(folder / "scans"), steps=50)


NAMES = sorted(
    ["step", "learning_rate", "query", "alignment", "t_loss", "score_threshold", "average_distance"]
)


def test_a_run_is_followed_from_start_to_results_and_so_is_one_that_finds_its_training_finished(
    heard, recipe_file, tmp_path
):
    recipe = fsseg.load_recipe(
        recipe_file, {"trackers": [{"name": "keeping", "word": "told"}], "metrics": ["iou"]}
    )
    results = fsseg.run(recipe, name="first", runs_dir=tmp_path / "runs")
    rows, (seed,) = [variant.name for variant in recipe.variants], recipe.seeds
    scored = len(results.classes) * len({score.case for score in results.scores})
    steps = [("step", tuple(rows), 0, seed, step, NAMES) for step in (25, 50)]
    told = [item for row in rows for item in (("told", row), ("evaluated", row, 0, seed, scored))]
    expected = [
        ("started", "first", 50, "runs"),
        *steps,
        *told,
        ("finished", results.path.name, "NoneType"),
    ]
    assert (
        sorted(map(str, heard)) == sorted(map(str, expected))
        and heard[0] == expected[0]
        and heard[-1] == expected[-1]
    )
    first = list(heard)
    heard.clear()
    again = fsseg.run(recipe, name="first", runs_dir=tmp_path / "runs")
    assert [item for item in heard if item[0] != "finished"] == [
        item for item in first if item[0] != "finished"
    ]
    assert again.path != results.path
    for metric in ("dice", "iou"):
        assert again.table(metric).equals(results.table(metric))
    dice, iou = results.frame["dice"], results.frame["iou"]
    assert ((dice - 2 * iou / (1 + iou)).abs() < 1e-12).all()  # what one is for the other


SHOWN = """
from fsseg import hookimpl

SHOWN = []


@hookimpl
def case_evaluated(variant, fold, seed, case, support_case, classes, image, labels, truth, spacing):
    SHOWN.append((variant, fold, seed, case, support_case, classes, image, labels, truth, spacing))


@hookimpl
def variant_evaluated(variant):
    SHOWN.append(variant)
"""


@pytest.mark.parametrize(
    "protocol", ["own_slice", pytest.param("ep2_multi", marks=pytest.mark.slow)]
)
def test_label_maps_are_shown_as_they_were_counted(protocol, finished_run, tmp_path, monkeypatch):
    """Also those of an evaluation that an earlier run finished; before the scores of their row; not where nobody looks."""
    changes = {"protocol.name": protocol, "protocol.folds": "disjoint2"}
    results = finished_run(changes, cases=6)
    runs, recipe = results.path.parent, results.recipe
    file = tmp_path / f"showing_{protocol}.py"
    file.write_text(SHOWN)
    choose_plugins(files=[file])
    try:
        fsseg.registry()
        [shown] = [module.SHOWN for name, module in sys.modules.items() if name == file.stem]
        again = fsseg.run(recipe, runs_dir=runs, device="cpu")
        unsaved = recipe.model_copy(deep=True)
        unsaved.protocol.save_labels = False
        told, shown[:] = list(shown), []
        notes = []
        silent = Silent()
        monkeypatch.setattr(silent, "note", notes.append, raising=False)
        fsseg.run(unsaved, runs_dir=runs, device="cpu", progress=silent)
        assert all(isinstance(item, str) for item in shown) and "no label maps" in " ".join(notes)
    finally:
        choose_plugins(files=[])
    assert [item for item in told if isinstance(item, str)] == [v.name for v in recipe.variants]
    scores = {
        (s.variant, s.case, s.support_case, s.class_name): (s.intersection, s.predicted, s.actual)
        for s in again.scores
    }
    counted, before = {}, set()
    for item in told:
        if isinstance(item, str):
            assert item in before
            continue
        variant, _, _, case, support, classes, image, labels, truth, spacing = item
        before.add(variant)
        assert image.shape == labels.shape == truth.shape and spacing == (6.0, 1.5, 1.5)
        assert set(np.unique(labels)) <= {0, *classes}
        for value, name in classes.items():
            predicted, actual = labels == value, truth == value
            voxels = (predicted & actual).sum(), predicted.sum(), actual.sum()
            counted[variant, case, support, name] = voxels
    assert counted == scores
    monkeypatch.setattr("fsseg.runs.listeners.read_labels", None)
    fsseg.run(recipe, runs_dir=runs, device="cpu")


def test_a_tracker_follows_only_the_runs_that_name_it(heard, recipe_file, tmp_path):
    fsseg.run(fsseg.load_recipe(recipe_file, {"training.steps": 1}), runs_dir=tmp_path / "runs")
    assert {item[0] for item in heard} == {"started", "evaluated", "finished"}


def test_whoever_heard_of_the_start_hears_of_the_error(heard, recipe_file, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fsseg.runs.fold.evaluate", stop)
    recipe = fsseg.load_recipe(recipe_file, {"training.steps": 2})
    with pytest.raises(KeyboardInterrupt):
        fsseg.run(recipe, runs_dir=tmp_path / "runs")
    assert [item[0] for item in heard] == ["started", "finished"] and heard[-1] == (
        "finished",
        None,
        "KeyboardInterrupt",
    )


def test_an_unknown_metric_or_tracker_is_found_before_anything_runs(recipe_file):
    with pytest.raises(fsseg.FssegError) as caught:
        fsseg.load_recipe(recipe_file, {"metrics": ["iuo"], "trackers": [{"name": "tensorbord"}]})
    text = str(caught.value)
    assert "[metrics.0]: name: there is no metric 'iuo'; did you mean 'iou'?" in text
    assert (
        "[trackers.0]: name: there is no tracker 'tensorbord'; did you mean 'tensorboard'?" in text
    )
