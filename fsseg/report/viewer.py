"""The data of a report's slice viewer: chosen cases with their slices, targets, margins and priors, as plain values.

The page decides every slice again, from the margins that the run kept and the prior that its reader chooses.
"""

import base64
import io
import json
import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8

from fsseg.errors import FssegError
from fsseg.evaluation.files import PRIORS, Decided, read_decisions
from fsseg.model.chain import CERTAIN
from fsseg.model.ops import ideal_prior, resize
from fsseg.recipe.tables import VariantTable
from fsseg.runs.data import RunData
from fsseg.runs.results import Results
from fsseg.system.progress import Progress, Silent

WINDOW = (0.5, 99.5)
"""Percentiles of a scan that are shown as black and white."""

LARGEST = 128
"""Cells that a side of the margins in a page has at most."""

QUALITY = 85
"""The quality of the pictures, which are WebP, up to 100."""


@dataclass(frozen=True)
class Exhibit:
    """A scan that is shown, as it was segmented from one support.

    Attributes:
        seed: The seed.
        fold: The fold.
        case: The scan.
        support_case: The case that gave the support.
        dice: Its mean Dice over classes and variants that are no oracles, in [0, 1].
    """

    seed: int
    fold: int
    case: str
    support_case: str
    dice: float


def choose_exhibits(results: Results, count: int) -> list[Exhibit]:
    """Chooses the worst cases, then the best ones: so many in all, every case once."""
    frame = results.frame
    judged = frame[~frame["oracle"]]
    if judged.empty:
        judged = frame
    keys = ["seed", "fold", "case", "support_case"]
    dice = judged.groupby(keys, sort=False)["dice"].mean()
    ranked: dict[str, Exhibit] = {}
    for (seed, fold, case, support), mean in dice.dropna().sort_values().items():
        ranked.setdefault(case, Exhibit(seed, fold, case, support, float(mean)))
    worst = list(ranked.values())
    if len(worst) <= count:
        return worst
    best = count // 2
    best_first = worst[::-1]
    return worst[: count - best] + best_first[:best]


def keeps_margins(results: Results) -> bool:
    """Whether the run kept what decided its slices."""
    return any(results.path.rglob(PRIORS))


def viewer_data(
    results: Results,
    exhibits: list[Exhibit],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The data of the viewer, as plain values.

    Args:
        results: The run, with margins.
        exhibits: What to show.
        progress: Follows the cases.

    Raises:
        FssegError: The run kept no margins, or its scans are not there any more or not what they were.
    """
    progress = progress or Silent()
    data = RunData(results.recipe, progress)
    data.require_evaluated(results.about["data"], results.path)
    shown = []
    for exhibit in progress.track(exhibits, "report", len(exhibits)):
        shown.append(_show(exhibit, results, data))
    return {"reference": results.recipe.mode == "reference", "exhibits": shown}


def _show(
    exhibit: Exhibit,
    results: Results,
    data: RunData,
) -> dict[str, Any]:
    """A scan with its pictures, its truth, and what decided it."""
    volume = data.scans.working[exhibit.case]
    truth = {name: np.asarray(volume.marked == value) for value, name in data.classes.items()}
    order = list(truth)
    decided = _decisions_of(exhibit, results)
    decided.sort(key=lambda decision: [order.index(name) for name in decision.classes])
    views = []
    for _, together in groupby(decided, key=lambda decision: decision.classes):
        views.append(_view(list(together), truth, results))
    where = f"fold {exhibit.fold}"
    if len(results.about["seeds"]) > 1:
        where += f", seed {exhibit.seed}"
    _, height, width = volume.shape
    return {
        "title": f"case {exhibit.case} ({where})",
        "dice": exhibit.dice,
        "width": width,
        "height": height,
        "pixel": list(volume.spacing[1:]),
        "images": _pictures(volume.by_channel[0]),
        "truth": {name: _contours(mask) for name, mask in truth.items()},
        "views": views,
    }


def _decisions_of(exhibit: Exhibit, results: Results) -> list[Decided]:
    """What decided the slices of a scan, by training, variant and classes."""
    home = results.folder.fold(exhibit.seed, exhibit.fold)
    decided = []
    for training in home.trainings():
        for decision in read_decisions(training.path):
            if decision.case == exhibit.case and decision.support_case == exhibit.support_case:
                decided.append(decision)
    if not decided:
        raise FssegError(
            f"{home.path}: it keeps no margins of case {exhibit.case}; run the recipe again"
        )
    return decided


def _view(
    decided: list[Decided],
    truth: dict[str, Bool[np.ndarray, "slice height width"]],
    results: Results,
) -> dict[str, Any]:
    """The classes that are decided together: the margins of each scoring, and the variants that share it."""
    first = decided[0]
    by_file: dict[Path, list[Decided]] = {}
    for decision in decided:
        by_file.setdefault(decision.margins_file, []).append(decision)
    actual = np.stack([truth[name][first.slices] for name in first.classes], axis=1)
    slices = ", ".join(map(str, first.support_slices))
    return {
        "title": ", ".join(first.classes),
        "classes": first.classes,
        "support": f"case {first.support_case}, slice {slices}",
        "slices": first.slices.tolist(),
        "scorings": [_scoring(sharing, actual, results) for sharing in by_file.values()],
    }


def _scoring(
    sharing: list[Decided],
    actual: Bool[np.ndarray, "slice way height width"],
    results: Results,
) -> dict[str, Any]:
    """The margins of variants that share them, with the priors of each."""
    recipe = results.recipe
    margins = shown_margins(sharing[0].margins())
    ideal = ideal_priors(margins, actual, aligned=recipe.mode == "reference")
    [table] = [table for table in recipe.variants if table.name == sharing[0].variant]
    rows = []
    for decision in sharing:
        name = decision.variant
        priors = _finite(decision.priors)
        rows.append({"name": name, "oracle": name in results.oracles, "priors": priors})
    return {
        "label": _label(table),
        "height": margins.shape[2],
        "width": margins.shape[3],
        "margins": _in_base64(margins.astype("<f4").tobytes()),
        "ideal": _finite(ideal),
        "rows": rows,
    }


def shown_margins(
    margins: Float[np.ndarray, "slice way h w"],
) -> Float[np.ndarray, "slice way small_h small_w"]:
    """The margins that a page holds: finite, and of at most `LARGEST` cells a side.

    Margins at the resolution of the image would make pages that no browser opens; what is shown of them is their mean
    over as many pixels as need be, so that the page's decisions may differ from the label map at borders.
    """
    finite = np.clip(margins, -CERTAIN, CERTAIN)
    h, w = margins.shape[2:]
    factor = math.ceil(max(h, w) / LARGEST)
    if factor == 1:
        return finite
    cells = (math.ceil(h / factor), math.ceil(w / factor))
    return F.adaptive_avg_pool2d(torch.from_numpy(finite), cells).numpy()


def _label(variant: VariantTable) -> str:
    """What made the margins; refined ones hold the threshold's prior already, so that the variant stands at an even one."""
    parts = list(variant.scorers.values())
    if variant.refiners:
        parts += [variant.threshold, *variant.refiners]
    return ", ".join(part.label for part in parts)


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
    size = tuple(actual.shape[2:])
    maps = resize(torch.from_numpy(margins), size, align_corners=aligned)
    foreground = torch.from_numpy(actual.any(axis=1))
    return ideal_prior(maps.amax(dim=1), foreground.sum(dim=(1, 2))).numpy()


def _pictures(image: Float[np.ndarray, "slice height width"]) -> list[str]:
    """Each slice as a WebP picture in base64, all of them in one window of intensities."""
    from PIL import Image

    low, high = np.percentile(image, WINDOW)
    shares = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    grey: UInt8[np.ndarray, "..."] = (255 * shares).round().astype(np.uint8)
    pictures = []
    for of_slice in grey:
        file = io.BytesIO()
        Image.fromarray(of_slice).save(
            file,
            "webp",
            quality=QUALITY,
            method=4,
        )
        pictures.append(_in_base64(file.getvalue()))
    return pictures


def _contours(mask: Bool[np.ndarray, "slice height width"]) -> dict[str, list[int]]:
    """The run lengths of every slice that shows a class, by its number."""
    shown = np.flatnonzero(mask.any(axis=(1, 2)))
    return {str(number): run_lengths(mask[number]) for number in shown}


def run_lengths(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """The lengths of runs of equal pixels, line by line, beginning with those outside (which may be 0).

    Example:
        >>> run_lengths(np.array([[True, False], [False, True]]))
        [0, 1, 2, 1]
    """
    flat = mask.ravel()
    changes: Int[np.ndarray, "change"] = np.flatnonzero(np.diff(flat)) + 1
    borders = [0, *changes.tolist(), flat.size]
    lengths = np.diff(borders).tolist()
    return [0, *lengths] if flat[0] else lengths


def _in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def as_json(data: Any) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(
        data,
        separators=(",", ":"),
        allow_nan=False,
    )
    return text.replace("<", "\\u003c")
