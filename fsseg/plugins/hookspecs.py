"""The hooks of a plugin, all of them: one per kind of component, and those that follow a run.

A plugin is a module that an installed distribution names in the entry-point group `fsseg`, or a single file that is
given with `--plugin`. It implements any of the hooks below, with those of their arguments that it needs; docs/hooks.md
has an example of each.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from fsseg.evaluation.scores import CaseScore
    from fsseg.recipe.tables import Recipe
    from fsseg.runs.results import Results

hookspec = pluggy.HookspecMarker("fsseg")
hookimpl = pluggy.HookimplMarker("fsseg")

Register = Callable[[str, str | type], None]
"""Takes a component's name, and its import string `"package.module:Class"` or the class itself.

Import strings let a listing of components import none of them, so distributions should give strings. A single file,
which is imported anyway, may give the class.
"""


@hookspec
def register_datasets(register: Register) -> None:
    """Registers sets of scans with their labels: `fsseg.interfaces.Dataset`."""


@hookspec
def register_supervoxels(register: Register) -> None:
    """Registers ways to cut a scan into regions: `fsseg.interfaces.Supervoxels`."""


@hookspec
def register_intensities(register: Register) -> None:
    """Registers rules that scale the intensities of scans: `fsseg.interfaces.Intensity`."""


@hookspec
def register_episodes(register: Register) -> None:
    """Registers sources of training episodes: `fsseg.interfaces.EpisodeSource`."""


@hookspec
def register_augmentations(register: Register) -> None:
    """Registers changes of training slices: `fsseg.interfaces.Augmentation`."""


@hookspec
def register_backbones(register: Register) -> None:
    """Registers networks from slices to features: `fsseg.interfaces.Backbone`."""


@hookspec
def register_prototypes(register: Register) -> None:
    """Registers extractors of prototypes from a support: `fsseg.interfaces.PrototypeExtractor`."""


@hookspec
def register_heads(register: Register) -> None:
    """Registers class heads, which score features against prototypes: `fsseg.interfaces.Head`."""


@hookspec
def register_segmenters(register: Register) -> None:
    """Registers whole segmenters, which need no prototypes: `fsseg.interfaces.WholeSegmenter`."""


@hookspec
def register_losses(register: Register) -> None:
    """Registers losses, which training minimises: `fsseg.interfaces.Loss`."""


@hookspec
def register_optimisers(register: Register) -> None:
    """Registers optimisers, which update what is trained: `fsseg.interfaces.Optimiser`."""


@hookspec
def register_schedules(register: Register) -> None:
    """Registers schedules, which move the learning rate: `fsseg.interfaces.Schedule`."""


@hookspec
def register_thresholds(register: Register) -> None:
    """Registers threshold policies: `fsseg.interfaces.Threshold`."""


@hookspec
def register_refiners(register: Register) -> None:
    """Registers refiners, which decide again over a whole volume: `fsseg.interfaces.Refiner`."""


@hookspec
def register_folds(register: Register) -> None:
    """Registers ways to divide the cases of a dataset into folds: `fsseg.interfaces.Folds`."""


@hookspec
def register_protocols(register: Register) -> None:
    """Registers protocols, the rules by which folds are evaluated: `fsseg.interfaces.EvaluationProtocol`."""


@hookspec
def register_metrics(register: Register) -> None:
    """Registers metrics, which compare a prediction with the truth: `fsseg.interfaces.Metric`."""


@hookspec
def register_trackers(register: Register) -> None:
    """Registers trackers: classes whose instances implement any of the hooks of a run below, with `@hookimpl`.

    A tracker follows the runs whose recipe names it; the same hooks in a plugin's module follow every run.
    """


@hookspec
def run_started(recipe: "Recipe", name: str, runs_dir: "Path") -> None:
    """Hears that a run begins: its recipe can be run, and nothing is trained yet."""


@hookspec
def step_logged(variants: list[str], fold: int, seed: int, values: dict[str, float]) -> None:
    """Hears that training wrote a line of its log, every 25 steps; `variants` are evaluated with it.

    `values` are step, learning_rate, the mean of each loss by its name (query, alignment and t_loss if the recipe lists
    none) and, for heads that have them, score_threshold and average_distance. Where scans are set aside, lines of their
    own have step, validation_ideal and validation_estimated. A training that an earlier run finished is told of from its
    log.
    """


@hookspec
def case_evaluated(
    variant: str,
    fold: int,
    seed: int,
    case: str,
    support_case: str,
    classes: dict[int, str],
    image: "np.ndarray",
    labels: "np.ndarray",
    truth: "np.ndarray",
    spacing: tuple[float, float, float],
) -> None:
    """Hears how a row of the table segmented a case: slices first, on the scan's own grid.

    `image` has the scan's intensities (with several channels behind the axis of slices), `labels` and `truth` have the dataset's values of these `classes` and 0 elsewhere,
    also in slices that are not segmented; `spacing` is in mm along (slice, height, width). Classes that are segmented by
    themselves are told of one by one. An evaluation that an earlier run finished is told of from its label maps.
    """


@hookspec
def variant_evaluated(variant: str, fold: int, seed: int, scores: "list[CaseScore]") -> None:
    """Hears that a row of the table was evaluated on a fold; there is one score per case and class."""


@hookspec
def run_finished(recipe: "Recipe", results: "Results | None", error: BaseException | None) -> None:
    """Hears that a run is over: with results, or with the error (or Ctrl-C) that ended it.

    `results` is None where it did not come to them, `error` is None where it did.
    """


def spec_names() -> list[str]:
    """The names of all hooks, in the order of this file."""
    return [name for name, value in globals().items() if hasattr(value, "fsseg_spec")]


def describe(hook: str) -> Any:
    """The function of this module that declares a hook, with its arguments and its docstring."""
    return globals()[hook]
