"""What a report's slice viewer shows: chosen cases with their slices, targets, margins and priors, as plain values.

The page decides every slice again, from the margins that the run kept and the prior that its reader chooses.
"""

import base64
import io
import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from fsseg.errors import FssegError
from fsseg.evaluation.files import PRIORS, Decided, read_decisions
from fsseg.model.ops import ideal_prior, resize
from fsseg.recipe.tables import Recipe, VariantTable
from fsseg.runs.data import RunData
from fsseg.runs.results import Results
from fsseg.system.progress import Progress, Silent

WINDOW = (0.5, 99.5)
"""Percentiles of a scan that are shown as black and white."""

QUALITY = 85
"""Of the pictures, which are WebP."""


@dataclass(frozen=True)
class Exhibit:
    """A scan that is shown, as it was segmented from one support.

    Attributes:
        seed: The seed.
        fold: The fold.
        case: The scan.
        support_case: The case that gave the support.
        dice: Its mean Dice over classes and rows that are no oracles, in [0, 1].
    """

    seed: int
    fold: int
    case: str
    support_case: str
    dice: float


def choose_exhibits(results: Results, count: int) -> list[Exhibit]:
    """The worst cases, then the best ones: so many in all, every case once."""
    frame = results.frame
    judged = frame[~frame["oracle"]] if (~frame["oracle"]).any() else frame
    means = (
        judged.groupby(["seed", "fold", "case", "support_case"], sort=False)["dice"]
        .mean()
        .dropna()
        .sort_values()
    )
    ranked: dict[str, Exhibit] = {}
    for place, dice in means.items():
        ranked.setdefault(place[2], Exhibit(*place, float(dice)))
    worst = list(ranked.values())
    if len(worst) <= count:
        return worst
    best = count // 2
    return worst[: count - best] + worst[: len(worst) - best - 1 : -1]


def show(
    results: Results, exhibits: list[Exhibit], progress: Progress | None = None
) -> dict[str, Any]:
    """The viewer's data.

    Args:
        results: The run, with margins.
        exhibits: What to show.
        progress: Follows the cases.

    Raises:
        FssegError: The run kept no margins, or its scans are not there any more or not what they were.
    """
    progress = progress or Silent()
    recipe = results.recipe
    data = RunData(recipe, progress)
    data.require_evaluated(results.about["data"], results.path)
    shown = [
        _exhibit(results, data, recipe, one)
        for one in progress.track(exhibits, "report", len(exhibits))
    ]
    return {"reference": recipe.mode == "reference", "exhibits": shown}


def keeps_margins(results: Results) -> bool:
    """Whether the run kept what decided its slices."""
    return any(results.path.rglob(PRIORS))


def _exhibit(results: Results, data: RunData, recipe: Recipe, exhibit: Exhibit) -> dict[str, Any]:
    volume = data.scans.working[exhibit.case]
    home = results.folder.fold(exhibit.seed, exhibit.fold)
    decided = [
        one
        for training in home.trainings()
        for one in read_decisions(training.path)
        if (one.case, one.support_case) == (exhibit.case, exhibit.support_case)
    ]
    if not decided:
        raise FssegError(
            f"{home.path}: it keeps no margins of case {exhibit.case}; run the recipe again"
        )
    values = {name: value for value, name in data.classes.items()}
    truth = {name: volume.labels == value for name, value in values.items()}
    by_classes = sorted(decided, key=lambda one: [list(values).index(name) for name in one.classes])
    views = [
        _view(list(group), truth, recipe, results.oracles)
        for _, group in groupby(by_classes, key=lambda one: one.classes)
    ]
    where = [f"fold {exhibit.fold}"] + [f"seed {exhibit.seed}"] * (len(results.about["seeds"]) > 1)
    height, width = volume.image.shape[1:]
    return {
        "title": f"case {exhibit.case} ({', '.join(where)})",
        "dice": exhibit.dice,
        "width": width,
        "height": height,
        "pixel": list(volume.spacing[1:]),
        "images": _pictures(volume.image),
        "truth": {
            name: {str(z): run_lengths(mask[z]) for z in range(len(mask)) if mask[z].any()}
            for name, mask in truth.items()
        },
        "views": views,
    }


def _view(
    decided: list[Decided],
    truth: dict[str, Bool[np.ndarray, "slice height width"]],
    recipe: Recipe,
    oracles: set[str],
) -> dict[str, Any]:
    """The classes that are decided together: the margins of each scoring, and the rows that share it."""
    first = decided[0]
    by_file: dict[Path, list[Decided]] = {}
    for one in decided:
        by_file.setdefault(one.margins_file, []).append(one)
    actual = np.stack([truth[name][first.slices] for name in first.classes], axis=1)
    return {
        "title": ", ".join(first.classes),
        "classes": first.classes,
        "support": f"case {first.support_case}, slice {', '.join(map(str, first.support_slices))}",
        "slices": first.slices.tolist(),
        "scorings": [_scoring(group, actual, recipe, oracles) for group in by_file.values()],
    }


def _scoring(
    rows: list[Decided],
    actual: Bool[np.ndarray, "slice way height width"],
    recipe: Recipe,
    oracles: set[str],
) -> dict[str, Any]:
    margins = rows[0].margins()
    tables = {table.name: table for table in recipe.variants}
    first = tables[rows[0].variant]
    return {
        "label": _label(first),
        "height": margins.shape[2],
        "width": margins.shape[3],
        "margins": base64.b64encode(margins.astype("<f4").tobytes()).decode(),
        "ideal": _finite(ideal_priors(margins, actual, aligned=recipe.mode == "reference")),
        "rows": [
            {"name": row.variant, "oracle": row.variant in oracles, "priors": _finite(row.priors)}
            for row in rows
        ],
    }


def _label(row: VariantTable) -> str:
    """What made the margins; refined ones hold the threshold's prior already, so that the row stands at an even one."""
    refined = (
        [row.threshold.label, *(refiner.label for refiner in row.refiners)] if row.refiners else []
    )
    return ", ".join([row.prototypes.label, row.head.label, *refined])


def _finite(priors: Float[np.ndarray, "..."]) -> list[Any]:
    """Log-odds without infinities, which JSON does not have: no margin is as large as what takes their place."""
    return np.clip(priors, -1e6, 1e6).tolist()


def ideal_priors(
    margins: Float[np.ndarray, "slice way h w"],
    actual: Bool[np.ndarray, "slice way height width"],
    *,
    aligned: bool,
) -> Float[np.ndarray, "slice"]:
    """Log-odds of the prior under which each slice gets as many foreground pixels as it has."""
    maps = resize(torch.from_numpy(margins), tuple(actual.shape[2:]), align_corners=aligned)
    counts = torch.from_numpy(actual.any(axis=1)).sum(dim=(1, 2))
    return ideal_prior(maps.amax(dim=1), counts).numpy()


def _pictures(image: Float[np.ndarray, "slice height width"]) -> list[str]:
    """Each slice as a WebP picture in base64, all of them in one window of intensities."""
    from PIL import Image

    low, high = np.percentile(image, WINDOW)
    grey: UInt8[np.ndarray, "..."] = (
        (255 * np.clip((image - low) / max(high - low, 1e-6), 0, 1)).round().astype(np.uint8)
    )
    pictures = []
    for one in grey:
        file = io.BytesIO()
        Image.fromarray(one).save(file, "webp", quality=QUALITY, method=4)
        pictures.append(base64.b64encode(file.getvalue()).decode())
    return pictures


def run_lengths(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """The lengths of runs of equal pixels, row by row, beginning with those outside (which may be 0)."""
    flat = mask.ravel()
    changes: Int[np.ndarray, "change"] = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def as_json(data: Any) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
