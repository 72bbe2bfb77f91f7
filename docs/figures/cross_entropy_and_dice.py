"""Does minimising cross-entropy maximise Dice? Fig. 2 of the TPM paper, computed on the synthetic scans.

    uv run python docs/figures/cross_entropy_and_dice.py

Trains TPM with one prototype on the phantom as `recipes/table1.toml` does (a finished training in the runs directory is
used again), takes the margins of all test slices that show a class, and moves the prior. Writes the figure and its numbers
beside this file.
"""

import argparse
import json
import time
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

import fsseg
from fsseg.model.ops import ideal_prior
from fsseg.plugins.registry import Component

HERE = Path(__file__).resolve().parent
PRIORS = torch.arange(-60, 61, dtype=torch.float64) / 10
"""The log-odds of the foreground prior that are tried."""

BACKGROUND_WEIGHT = 0.1
"""Of background pixels in the training loss."""


class Recorder:
    """CE-T, which also writes down the margins and the truth of the slices that show the class.

    It declares itself an oracle because only oracles are handed the target. What it writes down is lost where a finished
    evaluation is found again, so each one is told the time and is an evaluation of its own.
    """

    oracle: ClassVar[bool] = True
    seen: ClassVar[list[tuple[Tensor, Tensor]]] = []
    score: ClassVar[fsseg.ScoreScale | None] = None

    def __init__(self, *, started: int = 0) -> None:
        pass

    def __call__(
        self, evidence: fsseg.Evidence, target: Int[Tensor, "query height width"]
    ) -> Float[Tensor, "query"]:
        truth = (target > 0).flatten(1)
        shown = truth.any(dim=1)
        Recorder.seen.append((evidence.margin.flatten(1)[shown].cpu(), truth[shown].cpu()))
        Recorder.score = evidence.score
        return torch.zeros_like(evidence.query_location)


def sums(
    margins: Float[Tensor, "slice pixel"],
    truth: Bool[Tensor, "slice pixel"],
    priors: Float[Tensor, "*slice prior"],
) -> dict[str, Float[Tensor, "slice prior"]]:
    """What the curves are made of, per slice and prior: sums over pixels, which add up over slices.

    A pixel's log-odds are `margin + prior`, so its cross-entropy is softplus of minus that where the class is, and
    softplus of it elsewhere. It is foreground where `margin > -prior`.
    """
    priors = priors.expand(len(margins), -1)
    found = {name: [] for name in ("foreground_loss", "background_loss", "overlap", "predicted")}
    for prior in priors.unbind(dim=1):
        log_odds = margins + prior[:, None].to(margins)
        loss = softplus(torch.where(truth, -log_odds, log_odds)).double()
        predicted = margins > -prior[:, None].to(margins)
        found["foreground_loss"].append((loss * truth).sum(dim=1))
        found["background_loss"].append((loss * ~truth).sum(dim=1))
        found["overlap"].append((predicted & truth).sum(dim=1).double())
        found["predicted"].append(predicted.sum(dim=1).double())
    stacked = {name: torch.stack(columns, dim=1) for name, columns in found.items()}
    actual = truth.sum(dim=1, dtype=torch.float64)[:, None].expand_as(priors)
    return stacked | {"actual": actual, "empty": margins.shape[1] - actual}


def pooled(parts: dict[str, Float[Tensor, "slice prior"]]) -> dict[str, Float[Tensor, "1 prior"]]:
    """The sums over all slices together."""
    return {name: values.sum(dim=0, keepdim=True) for name, values in parts.items()}


def curves(
    parts: dict[str, Float[Tensor, "slice prior"]],
) -> dict[str, Float[Tensor, "slice prior"]]:
    """Mean cross-entropy per pixel, unweighted and with the weights of training, Dice and the predicted / true ratio."""
    light = BACKGROUND_WEIGHT
    loss = parts["foreground_loss"] + parts["background_loss"]
    weighted = parts["foreground_loss"] + light * parts["background_loss"]
    return {
        "cross_entropy": loss / (parts["actual"] + parts["empty"]),
        "weighted_cross_entropy": weighted / (parts["actual"] + light * parts["empty"]),
        "dice": 2 * parts["overlap"] / (parts["predicted"] + parts["actual"]),
        "ratio": parts["predicted"] / parts["actual"],
    }


def choices(
    found: dict[str, Float[Tensor, "slice prior"]],
    priors: Float[Tensor, "prior"],
    ideal: Float[Tensor, "slice"],
    dice_at_ideal: Float[Tensor, "slice"],
) -> dict[str, tuple[Float[Tensor, "slice"], Float[Tensor, "slice"]]]:
    """The prior that each criterion chooses, and the Dice there."""
    at = {
        "cross_entropy": found["cross_entropy"].argmin(dim=1),
        "weighted_cross_entropy": found["weighted_cross_entropy"].argmin(dim=1),
        "dice": found["dice"].argmax(dim=1),
    }
    chosen = {
        name: (priors[index], found["dice"].gather(1, index[:, None])[:, 0])
        for name, index in at.items()
    }
    return chosen | {"ideal_proportion": (ideal, dice_at_ideal)}


def at_ideal(
    margins: Float[Tensor, "slice pixel"], truth: Bool[Tensor, "slice pixel"]
) -> tuple[Float[Tensor, "slice"], Float[Tensor, "slice"]]:
    """The prior under which each row gets as many pixels as the truth has, and the Dice there."""
    ideal = ideal_prior(margins[:, None], truth.sum(dim=1))
    return ideal, curves(sums(margins, truth, ideal[:, None]))["dice"][:, 0]


def analyse(
    classes: dict[str, tuple[Float[Tensor, "slice pixel"], Bool[Tensor, "slice pixel"]]],
    priors: Float[Tensor, "prior"] = PRIORS,
) -> tuple[dict, dict]:
    """The numbers and the curves of each class, and of the mean over classes.

    Args:
        classes: Margins and truth of every slice that shows the class.
        priors: The log-odds to try.

    Returns:
        The numbers: by class, the prior (log-odds) that each criterion chooses and the Dice there, for one prior for all
        slices (`pooled`), and for one of its own for every slice, mean over slices (`per_slice`). "mean" is one prior for
        all classes, judged by the means of the classes' curves; its ideal proportion is that of all pixels together. And
        the curves, by class.
    """
    numbers, drawn, totals = {}, {}, []
    for name, (margins, truth) in classes.items():
        parts = sums(margins, truth, priors)
        totals.append(pooled(parts))
        drawn[name] = curves(totals[-1])
        own = choices(curves(parts), priors, *at_ideal(margins, truth))
        common = choices(
            drawn[name], priors, *at_ideal(margins.flatten()[None], truth.flatten()[None])
        )
        numbers[name] = {
            "slices": len(margins),
            "true_share": float(truth.double().mean()),
            "pooled": _plain(common),
            "per_slice": {criterion: float(dice.mean()) for criterion, (_, dice) in own.items()},
        }
    drawn["mean"] = {
        key: torch.stack([drawn[name][key] for name in classes]).mean(dim=0) for key in drawn[name]
    }
    drawn["mean"]["ratio"] = curves(
        {key: sum(total[key] for total in totals) for key in totals[0]}
    )["ratio"]
    ideal, _ = at_ideal(
        *(torch.cat([pair[i].flatten() for pair in classes.values()])[None] for i in (0, 1))
    )
    dices = [curves(pooled(sums(*pair, ideal[:, None])))["dice"][0] for pair in classes.values()]
    numbers["mean"] = {
        "pooled": _plain(choices(drawn["mean"], priors, ideal, torch.stack(dices).mean(dim=0))),
        "per_slice": {
            criterion: sum(numbers[name]["per_slice"][criterion] for name in classes) / len(classes)
            for criterion in own
        },
    }
    return numbers, drawn


def _plain(
    chosen: dict[str, tuple[Float[Tensor, "1"], Float[Tensor, "1"]]],
) -> dict[str, dict[str, float]]:
    return {
        criterion: {"prior": float(prior), "dice": float(dice)}
        for criterion, (prior, dice) in chosen.items()
    }


def record(runs_dir: str, device: str) -> tuple[fsseg.Results, dict[str, tuple[Tensor, Tensor]]]:
    """Trains (or finds the training) and returns the margins and the truth of each class's slices."""
    fsseg.registry().add(Component("threshold", "recorder", f"{__name__}:Recorder", "docs", "1"))
    recipe = fsseg.load_recipe(HERE.parents[1] / "recipes" / "table1.toml")
    recipe.variants = [row for row in recipe.variants if row.name == "TPM 1, CE-T"]
    recipe.variants[0].threshold = {"name": "recorder", "started": time.time_ns()}
    recipe.protocol.save_labels = False
    results = fsseg.run(recipe, name="cross_entropy_and_dice", runs_dir=runs_dir, device=device)
    slices: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in results.classes}
    for score, (margins, truth) in zip(results.scores, Recorder.seen, strict=True):
        assert score.intersection == ((margins > 0) & truth).sum(), "the run counted other pixels"
        slices[score.class_name].append((margins, truth))
    return results, {
        name: tuple(torch.cat(part) for part in zip(*found)) for name, found in slices.items()
    }


LINES = {
    "weighted_cross_entropy": (
        "#d55e00",
        "-.",
        "CE 0.1/1",
        "minimum of cross-entropy, weights of training",
    ),
    "cross_entropy": ("#0072b2", "--", "CE", "minimum of cross-entropy, unweighted"),
    "ideal_proportion": ("#000000", ":", "proportion", "ideal proportion: predicted = true count"),
    "dice": ("#009e73", "-", "max. Dice", "maximum of Dice"),
}
"""Colour (Okabe and Ito's, safe for the colour-blind), style, short and long name of the vertical lines."""


STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""What matplotlib's defaults are changed to."""

DICE_AXIS = {"ylim": (0, 150), "yticks": range(0, 101, 20)}
"""Room above 100 % for the numbers."""

TOP_OF_DICE = 100 / 150
"""Where 100 % lies on that axis, as a share of its height."""


def draw(
    numbers: dict, drawn: dict, priors: Float[Tensor, "prior"], score: fsseg.ScoreScale, path: Path
) -> None:
    """The figure: curves of the mean over classes on the left, the Dice of each class on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    figure = plt.figure(figsize=(9.4, 6.8), dpi=100, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.1, 1])
    _draw_mean(left, numbers["mean"]["pooled"], drawn["mean"], priors, score)
    _draw_classes(right, numbers, drawn, priors)
    handles = [
        plt.Line2D([], [], color=color, linestyle=style, linewidth=1.5, label=label)
        for color, style, _, label in LINES.values()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    _save(figure, path)


def _draw_mean(
    panel, chosen: dict, drawn: dict, priors: Float[Tensor, "prior"], score: fsseg.ScoreScale
) -> None:
    """Cross-entropy, Dice and the ratio of predicted to true pixels, of the mean over classes."""
    mean = {key: values[0] for key, values in drawn.items()}
    loss, dice, ratio = panel.subplots(3, 1, sharex=True, height_ratios=[1, 1.5, 1])
    _draw_losses(loss, mean, priors)
    dice.plot(priors, 100 * mean["dice"], color=LINES["dice"][0])
    for key, choice in chosen.items():
        dice.plot(choice["prior"], 100 * choice["dice"], "o", color=LINES[key][0], markersize=4)
    dice.set(ylabel="Dice (%)", **DICE_AXIS)
    ratio.plot(priors, mean["ratio"], color="black")
    ratio.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    ratio.set(
        ylabel="predicted / true\npixels",
        yscale="log",
        ylim=(0.01, 30),
        xlabel="log-odds of the foreground prior",
    )
    for axes in (loss, dice, ratio):
        _verticals(axes, chosen, top=TOP_OF_DICE if axes is dice else 1)
    _values(dice, chosen, 0.08)
    _distance_axis(loss, score)


def _draw_losses(axes, mean: dict, priors: Float[Tensor, "prior"]) -> None:
    """The cross-entropy, with the weights of training and without."""
    labels = {"weighted_cross_entropy": "weighted 0.1 / 1", "cross_entropy": "unweighted"}
    for key, label in labels.items():
        axes.plot(priors, mean[key], color=LINES[key][0])
        axes.text(-5.9, 1.15 * mean[key][0], label, color=LINES[key][0])
    axes.set(
        ylabel="cross-entropy\n(nats per pixel)",
        yscale="log",
        ylim=(0.6 * mean["cross_entropy"].min(), 3),
    )
    axes.set_title("Mean of the classes, one prior for all slices", fontweight="bold", pad=8)


def _draw_classes(panel, numbers: dict, drawn: dict, priors: Float[Tensor, "prior"]) -> None:
    """The Dice of each class."""
    names = [name for name in drawn if name != "mean"]
    small = panel.subplots(2, 2, sharex=True, sharey=True)
    for axes, name in zip(small.flat, names):
        axes.plot(priors, 100 * drawn[name]["dice"][0], color=LINES["dice"][0])
        axes.set(**DICE_AXIS)
        axes.set_title(name.replace("_", " "), fontweight="bold")
        _verticals(axes, numbers[name]["pooled"], top=TOP_OF_DICE)
        _values(axes, numbers[name]["pooled"], 0.08)
    for axes in small[-1]:
        axes.set_xlabel("log-odds of the prior")
    for axes in small[:, 0]:
        axes.set_ylabel("Dice (%)")


def _save(figure, path: Path) -> None:
    """Writes the figure with few colours, which make a small file."""
    import numpy as np
    from PIL import Image

    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).quantize(64).save(path, optimize=True)


def _verticals(axes, chosen: dict, top: float = 1.0) -> None:
    for key, (color, style, *_) in LINES.items():
        axes.axvline(
            chosen[key]["prior"], ymax=top, color=color, linestyle=style, linewidth=1.3, zorder=0.5
        )


def _values(axes, chosen: dict, step: float) -> None:
    """The Dice at each line, in the line's colour."""
    for row, (key, (color, _, short, _)) in enumerate(LINES.items()):
        text = f"{short}: {100 * chosen[key]['dice']:.1f} at {chosen[key]['prior']:+.1f}"
        place = {"transform": axes.transAxes, "fontsize": 8.5, "ha": "right", "va": "top"}
        axes.text(0.99, 0.99 - step * row, text, color=color, **place)


def _distance_axis(axes, score: fsseg.ScoreScale) -> None:
    """A second axis on top: where a prototype's boundary lies under the prior."""
    distances = [0.2, 0.6, 0.8, 1.0, 1.2, 1.4]
    top = axes.twiny()
    top.set(xlim=axes.get_xlim(), xlabel="distance threshold between unit vectors")
    top.set_xticks(
        [score.prior_at_distance(torch.tensor(distance)).item() for distance in distances],
        distances,
    )
    top.spines["top"].set_visible(True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs-dir", default="runs", help="where runs and finished trainings are kept [runs]"
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda [cpu]")
    given = parser.parse_args()
    results, classes = record(given.runs_dir, given.device)
    numbers, drawn = analyse(classes)
    score = Recorder.score
    about = {
        "recipe": "recipes/table1.toml, TPM 1",
        **{
            key: results.about[key]
            for key in ("dataset", "protocol", "protocol_hash", "folds", "seeds")
        },
        "alpha": float(score.alpha),
        "distance_threshold": float(score.distance),
    }
    rounded = json.loads(
        json.dumps({"about": about, **numbers}), parse_float=lambda text: round(float(text), 6)
    )
    name = Path(__file__).stem
    (HERE / f"{name}.json").write_text(json.dumps(rounded, indent=1) + "\n")
    draw(numbers, drawn, PRIORS, score, HERE / f"{name}.png")


if __name__ == "__main__":
    main()
