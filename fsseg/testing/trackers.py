"""Checks of trackers."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fsseg.errors import PluginError
from fsseg.evaluation.scores import CaseScore
from fsseg.plugins.manager import check_hooks, load
from fsseg.plugins.sources import Plugin
from fsseg.recipe.reading import parse_recipe
from fsseg.runs.results import Results
from fsseg.testing.contract import Subject, check

RECIPE = {
    "dataset": "abdomen_phantom",
    "backbone": "timm",
    "variants": [{"name": "CE-T", "threshold": "ce_t"}],
}
STEP = {
    "learning_rate": 1e-3,
    "query": 0.5,
    "alignment": 0.4,
    "t_loss": -0.5,
    "score_threshold": -10.0,
    "average_distance": 1.0,
}
SCORE = CaseScore(
    variant="CE-T",
    oracle=False,
    fold=0,
    seed=0,
    case="case",
    class_name="liver",
    support_case="other",
    support_slices=(3,),
    intersection=5,
    predicted=10,
    actual=10,
    measures={"iou": 1 / 3, "nothing": None},
)


@check("tracker")
def check_hooks_of_a_run(subject: Subject) -> None:
    """It implements at least one hook of a run, marked with @hookimpl, with arguments that the hook has."""
    plugin = _as_plugin(subject)
    try:
        check_hooks(plugin)
    except PluginError as error:
        subject.fail(f"expected hooks as in docs/hooks.md, got: {error}")
    if not plugin.hooks:
        subject.fail("expected a method such as step_logged with @hookimpl above it, got none")


@check("tracker")
def check_follows_a_run(subject: Subject) -> None:
    """It follows a run from its start to its results, and one that fails, and a second run after the first."""
    hook = load([_as_plugin(subject)]).manager.hook
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = {"classes": ["liver"], "dataset": "checked", "folds": [0], "seeds": [0]}
        results = Results(folder / "checked", [SCORE], ["liver"], about)
        _follow(hook, folder, results, None)
        _follow(hook, folder, None, RuntimeError("made up"))


def _as_plugin(subject: Subject) -> Plugin:
    return Plugin(subject.label, "checked", "", subject.build())


def _follow(hook: Any, folder: Path, results: Results | None, error: Exception | None) -> None:
    """Calls the hooks as a short run does."""
    recipe = parse_recipe(RECIPE)
    training = {"fold": 0, "seed": 0}
    hook.run_started(recipe=recipe, name="checked", runs_dir=folder)
    for step in (25, 50):
        hook.step_logged(variants=["CE-T"], values={"step": step, **STEP}, **training)
    labels = np.zeros((3, 8, 8), dtype=np.uint8)
    labels[1, 2:6, 2:6] = 1
    hook.case_evaluated(
        variant="CE-T",
        case="case",
        support_case="other",
        classes={1: "liver"},
        image=np.linspace(0, 99, labels.size, dtype=np.float32).reshape(labels.shape),
        labels=labels,
        truth=np.roll(labels, 1, axis=2),
        spacing=(5.0, 1.5, 1.5),
        **training,
    )
    hook.variant_evaluated(variant="CE-T", scores=[SCORE], **training)
    hook.run_finished(recipe=recipe, results=results, error=error)
