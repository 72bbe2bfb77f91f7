"""Losses as curves, Dice by row and pictures of segmentations, in TensorBoard's files."""

import io
from datetime import datetime
from pathlib import PurePath, PureWindowsPath
from typing import Annotated

import numpy as np
from PIL import Image  # comes with tensorboard
from pydantic import AfterValidator, Field
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from fsseg import component, hookimpl

TRUTH, PREDICTED = (60, 200, 90), (255, 210, 40)
"""The colours of outlines."""


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
    evaluated is written beside them: the mean Dice of each row and of each of its classes, and a picture of each scan that
    it segmented: the slice that shows most, with the truth in green and the prediction in yellow.
    """

    def __init__(
        self,
        *,
        folder: Annotated[
            str,
            AfterValidator(_below_the_runs),
            Field(description="where to write, seen from the runs' folder and below it"),
        ] = "tensorboard",
        pictures: Annotated[bool, Field(description="write a picture of each scan")] = True,
    ) -> None:
        self.folder = folder
        self.pictures = pictures
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
    def case_evaluated(
        self, variant, fold, seed, case, support_case, classes, image, labels, truth
    ):
        """Adds a picture of the slice that shows most of the classes."""
        if not self.pictures:
            return
        picture = _picture(image, labels, truth)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "png")
        height, width, _ = picture.shape
        encoded = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=file.getvalue()
        )
        tag = f"{' and '.join(classes.values())}/{case} from {support_case}"
        value = Summary.Value(tag=tag, image=encoded)
        self._add(f"fold{fold}-seed{seed}-{self._short([variant])}", [value], 0)

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
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(part, values, step)

    def _add(self, part: str, values: list[Summary.Value], step: int) -> None:
        if part not in self._writers:
            self._writers[part] = EventFileWriter(str(self._root / part))
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


def _picture(image, labels, truth):
    """The slice that shows most of the truth (or of the prediction, where there is none), with both outlines."""
    shown = truth if truth.any() else labels
    number = int((shown > 0).sum(axis=(1, 2)).argmax())
    if image.ndim == 4:  # several channels: the first
        image = image[:, 0]
    grey = image[number].astype(np.float64)
    low, high = np.percentile(grey, (1, 99))
    grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=-1)
    picture[_outline(truth[number])] = TRUTH
    picture[_outline(labels[number])] = PREDICTED
    return picture


def _outline(labels):
    """The pixels of a class with a neighbour that is not of it."""
    height, width = labels.shape
    padded = np.pad(labels, 1)
    inner = np.ones(labels.shape, dtype=bool)
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inner &= padded[row : row + height, column : column + width] == labels
    return (labels > 0) & ~inner
