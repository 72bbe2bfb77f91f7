"""Losses and Dice in Weights & Biases."""

import os
from typing import Annotated, Literal

from pydantic import Field

from fsseg import component, hookimpl

os.environ.setdefault(
    "WANDB_ERROR_REPORTING", "false"
)  # it would call its makers about errors, offline or not
import wandb  # noqa: E402 (reads the line above)


@component
class Tracker:
    """Logs to Weights & Biases: the recipe as the configuration, losses by step, Dice as summary and table.

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
    ) -> None:
        self.project, self.mode = project, mode
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
