"""A trained and calibrated variant, read from a run directory or from an export."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fsseg.data.intensity import Scaling, load_scaling
from fsseg.errors import FssegError
from fsseg.interfaces import Backbone, FittedThreshold, Intensity
from fsseg.model.checkpoint import load_into, load_states, load_trained, save_states
from fsseg.model.segmenter import Segmenter
from fsseg.model.variants import assemble
from fsseg.model.whole import in_place
from fsseg.plugins.manager import registry
from fsseg.plugins.options import nearest, schema
from fsseg.prediction.metadata import read_metadata
from fsseg.recipe.parts import build_parts, intensity_of, states_for
from fsseg.recipe.tables import Recipe, VariantTable
from fsseg.recipe.trainings import trainings_of
from fsseg.runs.records import FORMAT, read_calibration
from fsseg.runs.results import Results, load_results
from fsseg.system.files import replacing


@dataclass(frozen=True)
class Trained:
    """All that a predictor is made of, wherever it was kept.

    Attributes:
        recipe: The run's recipe.
        variant: The variant of it.
        states: The state dictionaries of the trained parts by name.
        threshold: What calibration left in the variant's threshold; None for one that is not fitted.
        scaling: What the intensity rule measured of the training scans; None where each scan is measured by itself.
        source: The file that it was read from, for messages.
    """

    recipe: Recipe
    variant: VariantTable
    states: dict[str, dict[str, Tensor]]
    threshold: dict[str, Any] | None
    scaling: dict[str, Any] | list[dict[str, Any]] | None
    source: Path

    def segmenter(self, backbone: Backbone | None = None) -> Segmenter:
        """Puts the segmenter together, with a backbone of its own or one that has this state already.

        Raises:
            FssegError: A state is not one of its component.
        """
        if backbone is None:
            backbone = _backbone(self.recipe, self.states["backbone"], self.source)
        training = self.recipe.training_of(self.variant)
        parts = in_place(build_parts(self.variant, training))
        threshold = parts["threshold"]
        if isinstance(threshold, FittedThreshold) != (self.threshold is not None):
            expected = "none" if self.threshold else "what calibration left"
            raise FssegError(
                f"{self.source}: threshold: its state is {self.threshold}, expected {expected} for the threshold "
                f"{self.variant.threshold.name} of the row {self.variant.name!r}; run the recipe again"
            )
        return assemble(
            self.variant.name,
            backbone,
            **parts,
            states=states_for(self.variant, training, self.states),
            threshold_state=self.threshold,
            mode=self.recipe.mode,
        )

    def intensity(self, backbone: Backbone) -> tuple[Intensity, Scaling | None]:
        """The intensity rule, and how it scales scans where that was measured over training scans.

        Args:
            backbone: The backbone, whose rule counts where the recipe names none.

        Raises:
            FssegError: What was measured is missing, or is not what the rule measures.
        """
        rule = intensity_of(self.recipe, backbone.intensity).build("intensity")
        if self.scaling is not None:
            return rule, load_scaling(rule, self.scaling, str(self.source))
        if rule.statistics == "training":
            raise FssegError(
                f"{self.source}: scaling: is missing, expected what {rule!r} measured of the training scans; run the recipe "
                "again with --fresh, or export it again"
            )
        return rule, None

    def save(self, path: Path) -> None:
        """Writes it into one safetensors file, all or nothing: of the trained parts those that the variant has."""
        training = self.recipe.training_of(self.variant)
        states = {"backbone": self.states["backbone"]}
        states |= states_for(self.variant, training, self.states)
        metadata = {
            "fsseg_format": str(FORMAT),
            "recipe": self.recipe.toml(),
            "variant": self.variant.name,
            "threshold": json.dumps(self.threshold),
            "scaling": json.dumps(self.scaling),
        }
        with replacing(path) as unfinished:
            save_states(unfinished, states, metadata)


def read_run(
    run: str | Path,
    variant: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
) -> Trained:
    """Reads a variant of a finished run; what is not chosen is the first that there is.

    Raises:
        FssegError: There is no such run, variant, fold or seed, the variant is an oracle, or a file is missing.
    """
    return of_results(load_results(run), variant, fold, seed)


def of_results(
    results: Results,
    variant: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
) -> Trained:
    """Reads a variant of a run whose results are read already, as `read_run` does."""
    recipe = results.recipe
    chosen = _choose_variant(recipe, variant)
    fold = _choose("fold", fold, results.about["folds"], results.path)
    seed = _choose("seed", seed, results.about["seeds"], results.path)
    trainings = trainings_of(recipe)
    [number] = [index for index, each in enumerate(trainings) if chosen in each.variants]
    folder = results.folder.fold(seed, fold).training(number)
    for file in (folder.checkpoint, folder.calibration):
        if not file.is_file():
            raise FssegError(
                f"{file}: it is not there any more, expected what training left; run the recipe again"
            )
    results.folder.require_undamaged(folder.checkpoint, folder.calibration)
    thresholds = read_calibration(folder.calibration)["states"]
    threshold = thresholds.get(chosen.name)
    scaling = results.about["scaling"].get(str(fold))
    states = load_trained(folder.checkpoint)
    return Trained(recipe, chosen, states, threshold, scaling, folder.path)


def read_export(
    path: Path,
    variant: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
) -> Trained:
    """Reads the file that `Trained.save` wrote.

    Raises:
        FssegError: It is none, or holds another variant, or a fold or seed was chosen, of which it holds one.
    """
    states, metadata = load_states(path)
    version = metadata.get("fsseg_format")
    if version != str(FORMAT):
        raise FssegError(
            f"{path}: has format {version or 'unknown'}, expected {FORMAT}, as fsseg export writes it; "
            "a checkpoint alone is not enough"
        )
    words = {name: text for name, text in metadata.items() if name != "fsseg_format"}
    recipe, table, about = read_metadata(path, words)
    name = table.name
    chosen = {"variant": None if variant == name else variant, "fold": fold, "seed": seed}
    for key, value in chosen.items():
        if value is not None:
            raise FssegError(
                f"predict: got {key} {value!r}, but {path} holds one training of the row {name!r} "
                f"alone, expected no choice of {key}; export another file, or give the run directory"
            )
    _choose_variant(recipe, name)
    return Trained(recipe, table, states, about.threshold, about.scaling, path)


def without_oracles(recipe: Recipe) -> list[VariantTable]:
    """The variants of a recipe that need no ground truth."""
    usable = []
    for variant in recipe.variants:
        threshold: Any = registry().find("threshold", variant.threshold.name).load()
        if not threshold.oracle:
            usable.append(variant)
    return usable


def _choose_variant(recipe: Recipe, name: str | None) -> VariantTable:
    """The variant of this name, or the first that needs no ground truth."""
    names = [variant.name for variant in recipe.variants]
    if name is not None and name not in names:
        raise FssegError(f"predict: there is no row {name!r} in the run; {nearest(name, names)}")
    usable = without_oracles(recipe)
    for variant in usable:
        if name in (None, variant.name):
            return variant
    who = f"row {name!r} decides" if name else "all rows decide"
    others = f", one of {', '.join(variant.name for variant in usable)}" if usable else ""
    raise FssegError(
        f"predict: {who} with an oracle, which needs the ground truth of the scan that is to be "
        f"segmented; expected another row{others}"
    )


def _choose(
    key: str,
    wanted: int | None,
    available: list[int],
    run: Path,
) -> int:
    """The fold or seed that is wanted, or the first."""
    if wanted is None:
        return available[0]
    if wanted not in available:
        raise FssegError(
            f"predict: there is no {key} {wanted} in {run}, "
            f"expected one of {', '.join(map(str, available))}"
        )
    return wanted


def _backbone(recipe: Recipe, state: dict[str, Tensor], source: Path) -> Backbone:
    """The backbone with its trained state; the weights that it began with are not read."""
    name = recipe.backbone.name
    options = recipe.backbone.model_dump(exclude={"name"})
    component = registry().find("backbone", name).load()
    if "weights" in schema(component).model_fields:
        options["weights"] = "none"
    backbone = registry().build("backbone", name, options)
    load_into(backbone, state, f"{source}: backbone {name}")
    return backbone
