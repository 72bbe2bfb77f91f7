"""Segmenting new scans with a finished run: from labelled slices of one scan to label maps of others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from fsseg.data.intensity import Scaling, measure
from fsseg.data.volume import Volume, on_working_grid
from fsseg.errors import DataError
from fsseg.interfaces import Intensity
from fsseg.model.inputs import context_of, scan_channels_of, with_context
from fsseg.model.ops import restore
from fsseg.model.scoring import is_per_query, prototypes_of
from fsseg.model.segmenter import Scored, Segmenter, encode, encode_in_parts
from fsseg.model.soundness import sound_slices, unsound_logits, unsound_margins, unsound_prior
from fsseg.model.variants import Variant
from fsseg.prediction.shown import choose_slices, labels_of, names_of_classes
from fsseg.prediction.trained import of_results, read_export, read_run, without_oracles
from fsseg.recipe.setup import rules_of
from fsseg.recipe.tables import Recipe
from fsseg.recipe.trainings import trainings_of
from fsseg.runs.results import Results
from fsseg.system.devices import pick_device
from fsseg.types import Prototypes, Query, Segmentation, Support


@dataclass(frozen=True)
class Predictor:
    """A variant of a finished run, ready to be shown an organ.

    Attributes:
        segmenter: Backbone, prototypes, head and threshold as trained and calibrated.
        recipe: The run's recipe.
        rule: The rule that scales intensities.
        scaling: How it scales them where that was measured over training scans; None for each scan by itself.
        device: Where to compute.

    Example:
        From labelled slices of one scan to the label map of another:

            support = fsseg.read_volume("a.nii.gz", "a_labels.nii.gz")
            fitted = fsseg.Predictor.load("runs/tpm").fit(support)
            labels = fitted.predict(fsseg.read_volume("b.nii.gz")).labels
    """

    segmenter: Segmenter
    recipe: Recipe
    rule: Intensity
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
        return load_predictor(
            run,
            variant=variant,
            fold=fold,
            seed=seed,
            device=device,
        )

    @property
    def together(self) -> bool:
        """Whether all classes are segmented from the same slices at once, as the run's protocol did."""
        return rules_of(self.recipe.protocol).together

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
        labels = labels_of(support)
        names = names_of_classes(support, classes)
        working = on_working_grid(support, self.recipe.grid.model_dump())
        groups = [tuple(names)] if self.together else [(value,) for value in names]
        parts = [self._part(working, values, slices) for values in groups]
        return Fitted(self, parts, names, labels.dtype)

    def _part(
        self,
        volume: Volume,
        values: tuple[int, ...],
        slices: Sequence[int] | None,
    ) -> "Part":
        """The prototypes of classes that are segmented at once."""
        chosen = choose_slices(volume, values, slices)
        of_scan = torch.from_numpy(self.scale(volume))
        images = of_scan[chosen]
        location = torch.tensor(chosen) / max(len(volume.image) - 1, 1)
        labels = labels_of(volume)[chosen]
        masks = [torch.from_numpy(labels == value) for value in values]
        ways = len(values)
        support = Support(
            images.expand(ways, *images.shape).contiguous(),
            torch.stack(masks),
            location.expand(ways, -1),
            shared=True,
        ).to(self.device)
        backbone = self.segmenter.backbone
        with_neighbours = with_context(of_scan, context_of(backbone))
        with torch.no_grad():
            encoded = encode(backbone, with_neighbours[chosen].to(self.device))
            features = support.spread(encoded)
            sees_query = is_per_query(self.segmenter.prototypes)
            prototypes = None if sees_query else self._prototypes(support, features)
        return Part(values, support, features, prototypes, tuple(chosen))

    def prototypes_for(
        self, part: "Part", query_features: Float[Tensor, "query channel h w"]
    ) -> Prototypes:
        """The prototypes with which a query is scored: those that were learned, unless the extractor sees the query."""
        if part.prototypes is not None:
            return part.prototypes
        return self._prototypes(part.support, part.features, query_features)

    def _prototypes(
        self,
        support: Support,
        features: Float[Tensor, "way shot channel support_h support_w"],
        query_features: Float[Tensor, "query channel h w"] | None = None,
    ) -> Prototypes:
        parts = (self.segmenter.prototypes, self.segmenter.head)
        return prototypes_of(*parts, features, support.masks, query_features)

    def require_channels(self, volume: Volume) -> None:
        """Raises DataError for a scan with another number of channels than the network was trained on."""
        channels = len(volume.by_channel)
        wanted = scan_channels_of(self.segmenter.backbone)
        if channels != wanted:
            raise DataError(
                f"scan {volume.case}: it has {channels} channel(s), expected {wanted} as the scans that the network was "
                "trained on; give one file with them along its fourth axis, or the files of all channels joined by commas"
            )

    def scale(self, volume: Volume) -> Float[np.ndarray, "slice *channel height width"]:
        """The intensities of a scan as the backbone takes them."""
        self.require_channels(volume)
        scaling = self.scaling or measure(self.rule, [volume.image])
        return scaling.apply(volume.image, volume.case)


@dataclass(frozen=True)
class Part:
    """Classes that are segmented at once.

    Attributes:
        values: Their label values.
        support: The labelled slices.
        features: Their features.
        prototypes: What was learned from them; None where the extractor sees the query first.
        slices: The numbers of the slices.
    """

    values: tuple[int, ...]
    support: Support
    features: Float[Tensor, "way shot channel h w"]
    prototypes: Prototypes | None
    slices: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """The segmentation of a scan, on the scan's own grid, slices first.

    Attributes:
        labels: Label values as in the support, 0 for the background.
        margins: By label value, the log-odds of the class against the background under the threshold's prior.
    """

    labels: Integer[np.ndarray, "slice height width"]
    margins: dict[int, Float[np.ndarray, "slice height width"]]

    def probability(self, value: int) -> Float[np.ndarray, "slice height width"]:
        """The probability of a class against the background."""
        margin = self.margins[value].astype(np.float64)
        return (1 / (1 + np.exp(-margin))).astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    """A predictor that knows what to look for, as `Predictor.fit` returns it.

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
        segmenter = predictor.segmenter
        working = on_working_grid(volume, predictor.recipe.grid.model_dump())
        images = torch.from_numpy(predictor.scale(working))
        location = torch.arange(len(images)) / max(len(images) - 1, 1)
        query = Query(images, location, working.spacing).to(predictor.device)
        with_neighbours = with_context(query.images, context_of(segmenter.backbone))
        features = encode_in_parts(segmenter.backbone, with_neighbours)
        margins: dict[int, np.ndarray] = {}
        for part in self.parts:
            prototypes = predictor.prototypes_for(part, features)
            scored = segmenter.logits(
                part.support, prototypes, query, features, support_features=part.features
            )
            segmented = segmenter.decide(scored)
            log_probabilities = segmented.log_probabilities
            of_part = _on_own_grid(log_probabilities[:, 1:] - log_probabilities[:, :1], working)
            _require_numbers(f"predict: scan {volume.case}", segmenter, scored, segmented, of_part)
            for way, value in enumerate(part.values):
                margins[value] = of_part[:, way]
        stacked = np.stack(list(margins.values()))
        winner = np.where(stacked.max(axis=0) > 0, stacked.argmax(axis=0) + 1, 0)
        values = np.array([0, *margins], dtype=self.dtype)
        return Prediction(values[winner], margins)


def load_predictor(
    run: str | Path,
    *,
    variant: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
    device: str = "auto",
) -> Predictor:
    """Loads a variant of a finished run; `Predictor.load` is the same.

    Args:
        run: The run directory, or a file that `export_predictor` wrote, which holds one variant, fold and seed.
        variant: The variant; the first that is no oracle when omitted.
        fold: The fold whose training to take; the first when omitted.
        seed: The seed whose training to take; the first when omitted.
        device: As of `fsseg.run`.

    Raises:
        FssegError: There is no such run, file, variant, fold or seed, a file of it is missing, or the variant's threshold
            is an oracle.
    """
    where = pick_device(device)
    chosen = (variant, fold, seed)
    is_export = Path(run).is_file()
    trained = read_export(Path(run), *chosen) if is_export else read_run(run, *chosen)
    segmenter = trained.segmenter().to(where)
    rule, scaling = trained.intensity(segmenter.backbone)
    return Predictor(segmenter, trained.recipe, rule, scaling, where)


def load_variants(
    results: Results, fold: int, seed: int, device: torch.device
) -> Iterator[list[Variant]]:
    """Loads the variants of a finished run that need no ground truth, by training: those of one share its backbone."""
    usable = {variant.name for variant in without_oracles(results.recipe)}
    for training in trainings_of(results.recipe):
        variants: list[Variant] = []
        backbone = None
        for table in training.variants:
            if table.name in usable:
                trained = of_results(results, table.name, fold, seed)
                segmenter = trained.segmenter(backbone).to(device)
                backbone = segmenter.backbone
                variants.append(Variant(table.name, segmenter, table.scoring))
        if variants:
            yield variants


def _require_numbers(
    where: str,
    segmenter: Segmenter,
    scored: Scored,
    segmented: Segmentation,
    margins: Float[np.ndarray, "slice way height width"],
) -> None:
    """Raises FssegError for what would be segmented as if it were background: logits that are not finite, NaN."""
    sound = sound_slices(scored.coarse)
    if not sound.all():
        features = scored.evidence.features
        raise unsound_logits(where, segmenter, features[~sound])
    if not np.isnan(margins).any():
        return
    if segmented.prior.isnan().any():
        raise unsound_prior(where, segmenter)
    raise unsound_margins(where, segmenter)


def _on_own_grid(
    margins: Float[Tensor, "slice way h w"], volume: Volume
) -> Float[np.ndarray, "slice way height width"]:
    """Margins on the scan's own grid; nothing is foreground where the working grid ends."""
    if volume.working is None:
        return margins.cpu().numpy()
    slices = []
    own, inside = restore(margins, volume.working)
    for of_slice in own:
        slices.append(torch.where(inside, of_slice, -torch.inf).cpu().numpy())
    return np.stack(slices)
