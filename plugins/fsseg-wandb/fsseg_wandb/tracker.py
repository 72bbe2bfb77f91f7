"""Losses, Dice and pictures of segmentations in Weights & Biases."""

import os
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fsseg import component, hookimpl

os.environ.setdefault(
    "WANDB_ERROR_REPORTING", "false"
)  # it would call its makers about errors, offline or not
import wandb  # noqa: E402 (reads the line above)


@component
class Tracker:
    """Logs to Weights & Biases: the recipe as the configuration, losses by step, Dice as summary and table, and
    of each scan the slice that shows most, with truth and prediction as masks.

    Offline unless told otherwise: everything stays in a folder beside the runs, and `wandb sync` uploads it later.
    """

    def __init__(
        self,
        *,
        project: Annotated[str, Field(description="the project's name")] = "fsseg",
        mode: Annotated[
            Literal["offline", "online"],
            Field(description="online sends everything to the service as the run goes"),
        ] = "offline",
        pictures: Annotated[bool, Field(description="log a picture of each scan")] = True,
    ) -> None:
        self.project, self.mode = project, mode
        self.pictures = pictures
        self._run = None
        self._rows: list[list] = []

    @hookimpl
    def run_started(self, recipe, name, runs_dir):
        """Begins a run of wandb's."""
        runs_dir.mkdir(parents=True, exist_ok=True)
        self._rows = []
        self._run = wandb.init(
            project=self.project, name=name, mode=self.mode, dir=str(runs_dir), config=recipe.dumps(),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
            reinit="finish_previous",
        )  # fmt: skip

    @hookimpl
    def step_logged(self, variants, fold, seed, values):
        """Logs the values under the training's name, by its own step."""
        part = f"fold{fold}/seed{seed}/{variants[0]}"
        self._run.define_metric(f"{part}/*", step_metric=f"{part}/step")
        self._run.log({f"{part}/{key}": value for key, value in values.items()})

    @hookimpl
    def case_evaluated(
        self, variant, fold, seed, case, support_case, classes, image, labels, truth
    ):
        """Logs the slice that shows most of the truth (or of the prediction, where there is none), with masks of both."""
        if not self.pictures:
            return
        shown = truth if truth.any() else labels
        number = int((shown > 0).sum(axis=(1, 2)).argmax())
        if image.ndim == 4:  # several channels: the first
            image = image[:, 0]
        low, high = np.percentile(image[number], (1, 99))
        grey = np.clip((image[number] - low) / max(high - low, 1e-6), 0, 1)
        masks = {}
        for name, values in (("truth", truth), ("prediction", labels)):
            masks[name] = {"mask_data": values[number], "class_labels": classes}
        names = " and ".join(classes.values())
        caption = f"{names} of {case}, slice {number}, from {support_case}"
        picture = wandb.Image((255 * grey).astype(np.uint8), caption=caption, masks=masks)
        self._run.log({f"fold{fold}/seed{seed}/{variant}/pictures/{names}": picture})

    @hookimpl
    def variant_evaluated(self, variant, fold, seed, scores):
        """Keeps the scores for the table, and the row's mean Dice in percent for the summary."""
        self._rows += [
            [variant, fold, seed, s.case, s.class_name, s.dice if s.dice == s.dice else None]
            for s in scores
        ]
        dice = [100 * score.dice for score in scores if score.dice == score.dice]
        if dice:
            self._run.summary[f"dice/{variant}/fold{fold}/seed{seed}"] = sum(dice) / len(dice)

    @hookimpl
    def run_finished(self, error):
        """Logs the table of scores and ends wandb's run, with its exit code."""
        columns = ["variant", "fold", "seed", "case", "class", "dice"]
        self._run.log({"scores": wandb.Table(columns=columns, data=self._rows)})
        self._run.finish(exit_code=0 if error is None else 1)
        self._run = None
