"""Segmenting new scans with a finished run: from labelled slices of one scan to label maps of others."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from fsseg.data.intensity import Scaling, measure
from fsseg.data.volume import Volume, on_working_grid
from fsseg.errors import DataError, FssegError
from fsseg.model.checkpoint import load_states, load_trained, save_states
from fsseg.model.ops import restore
from fsseg.model.segmenter import Segmenter, encode_in_parts, encode_support
from fsseg.model.variants import Variant, assemble
from fsseg.plugins.manager import registry
from fsseg.plugins.options import nearest, schema
from fsseg.recipe.parts import build_parts
from fsseg.recipe.protocols import find_protocol
from fsseg.recipe.reading import parse_recipe
from fsseg.recipe.tables import Recipe, VariantTable
from fsseg.recipe.trainings import trainings_of
from fsseg.runs.results import FORMAT, Results, load_results
from fsseg.system.devices import pick_device
from fsseg.system.files import read_json, reading, replacing
from fsseg.types import Prototypes, Query, Support


@dataclass(frozen=True)
class Predictor:
    """A row of a finished run, ready to be shown an organ.

    Attributes:
        segmenter: Backbone, prototypes, head and threshold as trained and calibrated.
        recipe: The run's recipe.
        scaling: How intensities are scaled where that was measured over training scans; None for each scan by itself.
        device: Where to compute.
    """

    segmenter: Segmenter
    recipe: Recipe
    scaling: Scaling | None
    device: torch.device

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        variant: str | None = None,
        fold: int | None = None,
        seed: int | None = None,
        device: str = "auto",
    ) -> "Predictor":
        """A variant of a finished run, ready to be shown an organ; `load_predictor` is the same.

        Args:
            run: The run directory, or a file that `export_predictor` wrote, which holds one variant, fold and seed.
            variant: The variant; the first that is no oracle when omitted.
            fold: The fold whose training to take; the first when omitted.
            seed: The seed whose training to take; the first when omitted.
            device: "cpu", "cuda" and the like, or "auto", as of `fsseg.run`.

        Raises:
            FssegError: There is no such run, file, variant, fold or seed, a file of it is missing, or the variant's
                threshold is an oracle.

        Example:
            `Predictor.load("runs/tpm").fit(support).predict(volume).labels`
        """
        return load_predictor(run, variant=variant, fold=fold, seed=seed, device=device)

    @property
    def together(self) -> bool:
        """Whether all classes are segmented from the same slices at once, as the run's protocol did."""
        return find_protocol(self.recipe.protocol.name).together

    def fit(
        self,
        support: Volume,
        *,
        slices: Sequence[int] | None = None,
        classes: dict[int, str] | None = None,
    ) -> "Fitted":
        """Learns what to segment from labelled slices of a scan; nothing is trained.

        Args:
            support: A scan with labels, of which only the slices that are used have to be labelled.
            slices: Numbers of the slices to use, from 0; the one with most of the class when omitted, for each class by
                itself (or for all together, that with most of the class that is smallest there).
            classes: Names of the label values; all values that are there when omitted.

        Raises:
            DataError: There are no labels, or a slice does not show the class.
        """
        if support.labels is None:
            raise DataError(
                f"support {support.case}: it has no labels, expected at least one labelled slice"
            )
        values = sorted(set(np.unique(support.labels).tolist()) - {0})
        named = {value: str(value) for value in values} if classes is None else classes
        missing = [value for value in named if value not in values]
        if missing or not named:
            raise DataError(
                f"support {support.case}: its labels have no {missing[0] if missing else 'foreground'}, expected voxels of "
                f"every class; there are {values or 'none'}"
            )
        working = on_working_grid(support, self.recipe.grid.model_dump())
        groups = [tuple(named)] if self.together else [(value,) for value in named]
        parts = [self._part(working, group, slices) for group in groups]
        return Fitted(self, parts, named, support.labels.dtype)

    def _part(
        self, volume: Volume, values: tuple[int, ...], slices: Sequence[int] | None
    ) -> "Part":
        """The prototypes of classes that are segmented at once."""
        shown = np.stack([(volume.labels == value).sum(axis=(1, 2)) for value in values]).min(
            axis=0
        )
        chosen = [int(shown.argmax())] if slices is None else list(slices)
        for number in chosen:
            if not 0 <= number < len(shown) or not shown[number]:
                raise DataError(
                    f"support {volume.case}: slice {number} does not show {' and '.join(map(str, values))}, expected a slice "
                    f"that does, such as {int(shown.argmax())} (they count from 0)"
                    if shown.any()
                    else f"support {volume.case}: no slice shows {' and '.join(map(str, values))} on the working grid"
                )
        images = torch.from_numpy(self._scale(volume)[chosen])
        location = torch.tensor(chosen) / max(len(volume.image) - 1, 1)
        masks = torch.stack([torch.from_numpy(volume.labels[chosen] == value) for value in values])
        ways = len(values)
        support = Support(
            images.expand(ways, *images.shape).contiguous(),
            masks,
            location.expand(ways, -1),
            shared=True,
        ).to(self.device)
        with torch.no_grad():
            features = encode_support(self.segmenter.backbone, support)
            made = self.segmenter.prototypes(features, support.masks, self.segmenter.head.sigma)
        return Part(values, support, made, tuple(chosen))

    def _scale(self, volume: Volume) -> Float[np.ndarray, "slice height width"]:
        scaling = self.scaling or measure(self.segmenter.backbone.intensity, [volume.image])
        return scaling.apply(volume.image)


@dataclass(frozen=True)
class Part:
    """Classes that are segmented at once: their label values, support, prototypes, and the slices that were used."""

    values: tuple[int, ...]
    support: Support
    prototypes: Prototypes
    slices: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """What was found in a scan, on the scan's own grid, slices first.

    Attributes:
        labels: Label values as in the support, 0 for the background.
        margins: By label value, the log-odds of the class against the background under the threshold's prior.
    """

    labels: Integer[np.ndarray, "slice height width"]
    margins: dict[int, Float[np.ndarray, "slice height width"]]

    def probability(self, value: int) -> Float[np.ndarray, "slice height width"]:
        """The probability of a class against the background."""
        return (1 / (1 + np.exp(-self.margins[value].astype(np.float64)))).astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    """A predictor that knows what to look for.

    Attributes:
        predictor: The predictor.
        parts: What it learned.
        classes: Names of the label values.
        dtype: The type of the support's labels, which predictions have too.
    """

    predictor: Predictor
    parts: list[Part]
    classes: dict[int, str]
    dtype: np.dtype

    @torch.no_grad()
    def predict(self, volume: Volume) -> Prediction:
        """Segments every slice of a scan; where several classes claim a voxel, the likeliest has it."""
        predictor = self.predictor
        working = on_working_grid(volume, predictor.recipe.grid.model_dump())
        images = torch.from_numpy(predictor._scale(working))
        count = len(images)
        query = Query(images, torch.arange(count) / max(count - 1, 1), working.spacing).to(
            predictor.device
        )
        features = encode_in_parts(predictor.segmenter.backbone, query.images)
        margins: dict[int, np.ndarray] = {}
        for part in self.parts:
            found = predictor.segmenter.segment(part.support, part.prototypes, query, features)
            own = _on_own_grid(
                found.log_probabilities[:, 1:] - found.log_probabilities[:, :1], working
            )
            margins |= {value: own[:, way] for way, value in enumerate(part.values)}
        stacked = np.stack(list(margins.values()))
        values = np.array([0, *margins], dtype=self.dtype)
        winner = np.where(stacked.max(axis=0) > 0, stacked.argmax(axis=0) + 1, 0)
        return Prediction(values[winner], margins)


def _on_own_grid(margins: Tensor, volume: Volume) -> Float[np.ndarray, "slice way height width"]:
    """Margins on the scan's own grid; nothing is foreground where the working grid ends."""
    if volume.working is None:
        return margins.cpu().numpy()
    own, inside = restore(margins, volume.working)
    return np.stack([torch.where(inside, one, -torch.inf).cpu().numpy() for one in own])


@dataclass(frozen=True)
class _Trained:
    """All that a predictor is made of, wherever it was kept.

    Attributes:
        recipe: The run's recipe.
        row: The row of it.
        state: The state dictionaries of "backbone" and "head".
        threshold: What calibration left in the row's threshold; None for one that is not fitted.
        scaling: As of Predictor.
    """

    recipe: Recipe
    row: VariantTable
    state: dict[str, dict[str, Tensor]]
    threshold: dict[str, Any] | None
    scaling: dict[str, Any] | None

    def build(self, device: torch.device, backbone: torch.nn.Module | None = None) -> Predictor:
        """The predictor, with a backbone of its own or one that has this state already."""
        if backbone is None:
            backbone = _backbone(self.recipe)
            backbone.load_state_dict(self.state["backbone"])
        segmenter = assemble(
            self.row.name,
            backbone,
            **build_parts(self.row, self.recipe.training_of(self.row)),
            head_state=self.state["head"],
            threshold_state=self.threshold,
            mode=self.recipe.mode,
        )
        scaling = Scaling(**self.scaling) if self.scaling else None
        return Predictor(segmenter.to(device), self.recipe, scaling, device)


def load_predictor(
    run: str | Path,
    *,
    variant: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
    device: str = "auto",
) -> Predictor:
    """A row of a finished run as a predictor.

    Args:
        run: The run directory, or a file that `export_predictor` wrote, which holds one row, fold and seed.
        variant: The row; the first that is no oracle when omitted.
        fold: Which fold's training to take; the first when omitted.
        seed: Likewise.
        device: As of `fsseg.run`.

    Raises:
        FssegError: There is no such run, file, row, fold or seed, a file of it is missing, or the row's threshold is an oracle.
    """
    place = pick_device(device)
    if Path(run).is_file():
        return _read_file(Path(run), {"variant": variant, "fold": fold, "seed": seed}).build(place)
    return _read_run(run, variant, fold, seed).build(place)


def load_rows(
    results: Results, fold: int, seed: int, device: torch.device
) -> Iterator[list[Variant]]:
    """The rows of a finished run, by training: the rows of one share its backbone. Rows with an oracle are left out."""
    usable = {row.name for row in _usable(results.recipe)}
    for training in trainings_of(results.recipe):
        variants: list[Variant] = []
        for row in training.variants:
            if row.name in usable:
                backbone = variants[0].segmenter.backbone if variants else None
                built = _read_run(results.path, row.name, fold, seed).build(device, backbone)
                variants.append(Variant(row.name, built.segmenter, row.scoring))
        if variants:
            yield variants


def export_predictor(
    run: str | Path,
    path: str | Path,
    *,
    variant: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
) -> Path:
    """Writes everything that prediction needs into one safetensors file, which is read without the run; no pickle.

    The arguments are those of `load_predictor`, which also reads the file. Returns its path.
    """
    trained, target = _read_run(run, variant, fold, seed), Path(path)
    metadata = {
        "fsseg_format": str(FORMAT),
        "recipe": trained.recipe.toml(),
        "variant": trained.row.name,
        "threshold": json.dumps(trained.threshold),
        "scaling": json.dumps(trained.scaling),
    }
    with replacing(target) as unfinished:
        save_states(unfinished, trained.state, metadata)
    return target


def export_onnx(
    run: str | Path, path: str | Path, *, fold: int | None = None, seed: int | None = None
) -> Path:
    """Writes the trained backbone as ONNX: "images" `slice 3 height width` to "features" `slice channel h w`.

    Images are those after the backbone's intensity rule. The number of slices is free, their size is the working grid's or,
    where that follows from the scan, 256 x 256.

    Raises:
        FssegError: As of `load_predictor`, or onnx and onnxscript are not installed.
    """
    predictor, target = load_predictor(run, fold=fold, seed=seed, device="cpu"), Path(path)
    size = predictor.recipe.grid.size or 256
    images = torch.zeros(2, 3, size, size)
    try:
        program = torch.onnx.export(
            predictor.segmenter.backbone, (images,), dynamo=True, verbose=False,
            input_names=["images"], output_names=["features"], dynamic_shapes=({0: torch.export.Dim("slice")},),
        )  # fmt: skip
    except ImportError:
        raise FssegError("export: ONNX needs onnx and onnxscript; install fsseg[onnx]") from None
    with replacing(target) as unfinished:
        unfinished.write_bytes(program.model_proto.SerializeToString())
    return target


def _read_run(run: str | Path, variant: str | None, fold: int | None, seed: int | None) -> _Trained:
    results = load_results(run)
    recipe = results.recipe
    row = _find_row(recipe, variant)
    fold = _one_of("fold", fold, results.about["folds"], results.path)
    seed = _one_of("seed", seed, results.about["seeds"], results.path)
    number = next(
        number for number, training in enumerate(trainings_of(recipe)) if row in training.variants
    )
    folder = results.folder.fold(seed, fold).training(number)
    checkpoint = folder.checkpoint
    calibration = folder.calibration
    for file in (checkpoint, calibration):
        if not file.is_file():
            raise FssegError(
                f"{file}: it is not there any more, expected what training left; run the recipe again"
            )
    with reading(calibration):
        fitted = dict(read_json(calibration)["states"])
    scaling = results.about.get("scaling", {}).get(str(fold))
    return _Trained(recipe, row, load_trained(checkpoint), fitted.get(row.name), scaling)


def _read_file(path: Path, asked: dict[str, Any]) -> _Trained:
    state, metadata = load_states(path)
    if metadata.get("fsseg_format") != str(FORMAT):
        raise FssegError(
            f"{path}: has format {metadata.get('fsseg_format', 'unknown')}, expected {FORMAT}, as fsseg export writes it; "
            "a checkpoint alone is not enough"
        )
    for what, value in asked.items():
        if value is not None and (what != "variant" or value != metadata["variant"]):
            raise FssegError(
                f"predict: got {what} {value!r}, but {path} holds one training of the row {metadata['variant']!r} alone, expected "
                f"no choice of {what}; export another file, or give the run directory"
            )
    recipe = parse_recipe(tomllib.loads(metadata["recipe"]), str(path))
    row = next(row for row in recipe.variants if row.name == metadata["variant"])
    return _Trained(
        recipe, row, state, json.loads(metadata["threshold"]), json.loads(metadata["scaling"])
    )


def _find_row(recipe: Recipe, variant: str | None) -> VariantTable:
    usable = _usable(recipe)
    names = [row.name for row in recipe.variants]
    if variant is not None and variant not in names:
        raise FssegError(
            f"predict: there is no row {variant!r} in the run; {nearest(variant, names)}"
        )
    found = usable if variant is None else [row for row in usable if row.name == variant]
    if not found:
        told = f"row {variant!r} decides" if variant else "all rows decide"
        raise FssegError(
            f"predict: {told} with an oracle, which needs the ground truth of the scan that is to be segmented; "
            f"expected another row{', one of ' + ', '.join(row.name for row in usable) if usable else ''}"
        )
    return found[0]


def _usable(recipe: Recipe) -> list[VariantTable]:
    """The rows that need no ground truth."""
    return [
        row
        for row in recipe.variants
        if not registry().find("threshold", row.threshold.name).load().oracle
    ]


def _one_of(what: str, asked: int | None, there: list[int], run: Path) -> int:
    if asked is not None and asked not in there:
        raise FssegError(
            f"predict: there is no {what} {asked} in {run}, expected one of {', '.join(map(str, there))}"
        )
    return there[0] if asked is None else asked


def _backbone(recipe: Recipe) -> torch.nn.Module:
    """The backbone without the weights it began with: those that were trained follow."""
    table = recipe.backbone.model_dump()
    component = registry().find("backbone", recipe.backbone.name).load()
    if "weights" in schema(component).model_fields:
        table["weights"] = "none"
    options: dict[str, Any] = {key: value for key, value in table.items() if key != "name"}
    return registry().build("backbone", recipe.backbone.name, options)
