"""Losses as curves, Dice as a table of hyper-parameters, in TensorBoard's files."""

from datetime import datetime
from pathlib import PurePath, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator, Field
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from fsseg import component, hookimpl


def _below_the_runs(folder: str) -> str:
    """A recipe may be a stranger's: what it has written stays where runs are kept."""
    path = PurePath(folder)
    leads_out = path.is_absolute() or PureWindowsPath(folder).anchor or ".." in path.parts
    if leads_out or "\0" in folder:
        raise ValueError("a folder below that of the runs, without .. or / at its beginning")
    return folder


@component
class Tracker:
    """Writes TensorBoard's files, for `tensorboard --logdir runs/tensorboard`.

    A folder per run, in it one per fold, seed and training: losses, learning rate and score threshold by step. What is
    evaluated is written beside them: the mean Dice of each row, and of each of its classes.
    """

    def __init__(
        self,
        *,
        folder: Annotated[
            str,
            AfterValidator(_below_the_runs),
            Field(description="where to write, seen from the runs' folder and below it"),
        ] = "tensorboard",
    ) -> None:
        self.folder = folder
        self._writers: dict[str, EventFileWriter] = {}
        self._rows: dict[str, str] = {}
        self._root = None

    @hookimpl
    def run_started(self, name, runs_dir):
        """Makes the run's folder."""
        self._root = runs_dir / self.folder / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        self._root.mkdir(parents=True, exist_ok=True)

    @hookimpl
    def step_logged(self, variants, fold, seed, values):
        """Adds a point to each curve."""
        scalars = {f"training/{key}": value for key, value in values.items() if key != "step"}
        self._write(f"fold{fold}-seed{seed}-{self._short(variants)}", scalars, int(values["step"]))

    @hookimpl
    def variant_evaluated(self, variant, fold, seed, scores):
        """Adds the row's mean Dice in percent, and that of each class."""
        found = {}
        for score in scores:
            if score.dice == score.dice:  # a class that is in neither has none
                found.setdefault(score.class_name, []).append(100 * score.dice)
        means = {name: sum(values) / len(values) for name, values in found.items()}
        scalars = {f"dice/{name}": value for name, value in means.items()}
        scalars |= {"dice/mean": sum(means.values()) / len(means)} if means else {}
        self._write(f"fold{fold}-seed{seed}-{self._short([variant])}", scalars, 0)

    @hookimpl
    def run_finished(self):
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self._rows.clear()

    def _write(self, part: str, scalars: dict[str, float], step: int) -> None:
        if part not in self._writers:
            self._writers[part] = EventFileWriter(str(self._root / part))
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = Event(
            step=step, wall_time=datetime.now().timestamp(), summary=Summary(value=values)
        )
        self._writers[part].add_event(event)

    def _short(self, variants: list[str]) -> str:
        """The rows' names as part of a folder's name, with a number where other rows have it already."""
        text = "+".join(variants)
        plain = "".join(c if c.isalnum() or c in "+-_." else "_" for c in text)[:60]
        number = 1
        name = plain
        while self._rows.setdefault(name.casefold(), text) != text:
            number += 1
            name = f"{plain}-{number}"
        return name
