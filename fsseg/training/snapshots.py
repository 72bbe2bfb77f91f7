"""Trainings that can be killed: every so often all of their state goes to a file, from which they go on.

A file holds tensors and one text of plain values (safetensors: nothing in it can run) under a
checksum of both. It is written beside, forced to the disk and renamed, so that it is whole or not
there; the newest two are kept.
"""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fsseg.model.checkpoint import write_tensors
from fsseg.system.progress import Progress
from fsseg.training.loop import Training
from fsseg.training.saving import Snapshot

KEPT = 2
"""Files of a training that are kept: the newest, and one more should that be damaged."""

LEAST_SECONDS = 30.0
"""Seconds between two files at least, where a recipe leaves it open."""

SHARE = 1 / 50
"""The share of the time that writing may take, where a recipe leaves it open."""


class Snapshots:
    """The files of one training, as a `Saver`.

    Attributes:
        folder: Where they lie.
        resumed: The step that the training went on from; 0 for one from the start.
    """

    def __init__(self, folder: Path, every: int | Literal["auto"], progress: Progress) -> None:
        """Writes nothing yet.

        Args:
            folder: Where the files lie or will lie.
            every: Steps between two files; "auto" to go by the time that writing takes.
            progress: Is told of what was resumed, and of damaged files.
        """
        self.folder = folder
        self.resumed = 0
        self._every = every
        self._progress = progress
        self._last = time.monotonic()
        self._took = 0.0

    def is_due(self, step: int) -> bool:
        """True when the training should be saved after so many steps."""
        if isinstance(self._every, int):
            return step % self._every == 0
        waited = time.monotonic() - self._last
        return waited >= max(LEAST_SECONDS, self._took / SHARE)

    def save(self, training: Training) -> None:
        """Saves the training as it is; raises FssegError for a disk that is full."""
        started = time.monotonic()
        snapshot = training.snapshot()
        write_snapshot(self.folder / f"step-{snapshot.step:09}.safetensors", snapshot)
        for old in self._files()[KEPT:]:
            old.unlink(missing_ok=True)
        self._last = time.monotonic()
        self._took = self._last - started

    def resume(self, training: Training) -> None:
        """Brings the training to the newest file that is whole; leaves it at its start if there is none."""
        for file in self._files():
            try:
                training.restore(read_snapshot(file))
            except ValueError as error:
                self._progress.note(
                    f"{file}: damaged ({error}), going on from what was saved before it"
                )
                continue
            self.resumed = training.step
            self._progress.note(
                f"training: goes on from step {training.step} of {training.options.steps}"
            )
            return

    def clear(self) -> None:
        """Removes the files: the training is finished, or begins anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        """The files, the newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Writes a file that is whole or not there, whatever happens; raises FssegError for a disk that is full."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in snapshot.tensors.items()}
    values = json.dumps({"step": snapshot.step} | snapshot.values)
    metadata = {"values": values, "sha256": _checksum(tensors, values)}
    write_tensors(path, tensors, metadata)


def read_snapshot(path: Path) -> Snapshot:
    """Reads a file; raises ValueError, saying why, for one that is not as it was written."""
    tensors = {}
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                tensors[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from None
    text = metadata.get("values", "")
    if metadata.get("sha256") != _checksum(tensors, text):
        raise ValueError("its checksum is another")
    values: dict[str, Any] = json.loads(text)
    step = values.pop("step")
    return Snapshot(step, tensors, values)


def _checksum(tensors: dict[str, Tensor], values: str) -> str:
    digest = hashlib.sha256(values.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        header = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        digest.update(header.encode())
        content = tensor.contiguous().flatten()
        digest.update(content.view(torch.uint8).numpy().data)
    return digest.hexdigest()
