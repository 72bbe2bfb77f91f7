"""Checks of trackers."""

import tempfile
from pathlib import Path

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
    "step": 25, "learning_rate": 1e-3, "query": 0.5, "alignment": 0.4, "t_loss": -0.5, "score_threshold": -10.0,
    "average_distance": 1.0,
}  # fmt: skip


@check("tracker")
def check_hooks_of_a_run(subject: Subject) -> None:
    """It implements at least one hook of a run, marked with @hookimpl, with arguments that the hook has."""
    plugin = Plugin(subject.label, "checked", "", subject.build())
    try:
        check_hooks(plugin)
    except PluginError as error:
        subject.fail(f"expected hooks as in docs/hooks.md, got: {error}")
    if not plugin.hooks:
        subject.fail("expected a method such as step_logged with @hookimpl above it, got none")


@check("tracker")
def check_follows_a_run(subject: Subject) -> None:
    """It follows a run from its start to its results, and one that fails, and a second run after the first."""
    plugin = Plugin(subject.label, "checked", "", subject.build())
    hook = load([plugin]).manager.hook
    recipe = parse_recipe(RECIPE)
    score = CaseScore(
        "CE-T",
        False,
        0,
        0,
        "case",
        "liver",
        "other",
        (3,),
        5,
        10,
        10,
        {"iou": 1 / 3, "nothing": None},
    )
    with tempfile.TemporaryDirectory() as folder:
        for failed in (False, True):
            hook.run_started(recipe=recipe, name="checked", runs_dir=Path(folder))
            for number in (1, 2):
                hook.step_logged(
                    variants=["CE-T"], fold=0, seed=0, values=STEP | {"step": 25 * number}
                )
            hook.variant_evaluated(variant="CE-T", fold=0, seed=0, scores=[score])
            about = {"classes": ["liver"], "dataset": "checked", "folds": [0], "seeds": [0]}
            results = (
                None if failed else Results(Path(folder) / "checked", [score], ["liver"], about)
            )
            error = RuntimeError("made up") if failed else None
            hook.run_finished(recipe=recipe, results=results, error=error)
