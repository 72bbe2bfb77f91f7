"""The log of a training, read from the device so late that steps do not wait for it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fsseg.errors import FssegError
from fsseg.types import ScoreScale

LOG_EVERY = 25
"""The steps over which a record takes its means."""

PENDING = "log.pending"
"""The name in snapshots of the losses since the last record."""

USUAL = {"query": "query", "alignment": "alignment", "t_loss": "t_loss"}
"""The losses of a recipe that lists none, and what messages call them."""

OF_SCORE = ("score_threshold", "average_distance")
"""The values of a record that follow the losses, for heads with a score scale."""

Record = dict[str, Any]
"""`step`, `learning_rate`, the mean losses, and the score scale where there is one."""


@dataclass(frozen=True)
class _OnDevice:
    """A record whose values the host has not read yet."""

    step: int
    learning_rate: float
    values: Float[Tensor, "name"]
    losses: Float[Tensor, "step loss"]


class TrainingLog:
    """A record of every 25 steps: the mean losses, the learning rate and the score scale.

    Example:
        >>> log = TrainingLog()
        >>> for step in range(50):
        ...     log.add(step, torch.full((3,), float(step)), score=None, learning_rate=0.1)
        >>> [record["query"] for record in log.records()]
        [12.0, 37.0]
    """

    def __init__(
        self,
        listener: Callable[[Record], None] | None = None,
        name: str = "training",
        losses: Mapping[str, str] = USUAL,
        rate_key: str = "training.learning_rate",
    ) -> None:
        """Begins an empty log.

        Args:
            listener: Hears of each record when `tell` reads it.
            name: What messages call the training.
            losses: The names of the losses in their order, and what messages call each.
            rate_key: The key of a recipe that messages tell to lower.
        """
        self._rate_key = rate_key
        self._name = name
        self._losses = dict(losses)
        self._columns = [*losses, *OF_SCORE]
        self._listener = listener
        self._pending: list[Float[Tensor, "loss"]] = []
        self._unread: list[_OnDevice] = []
        self._read: list[Record] = []

    def add(
        self,
        step: int,
        losses: Float[Tensor, "loss"],
        score: ScoreScale | None,
        learning_rate: float,
    ) -> None:
        """Adds a step; every 25th makes a record.

        Args:
            step: The number of steps done before this one.
            losses: The losses of the step, in their order.
            score: The head's score scale after the step.
            learning_rate: The rate of the step.
        """
        self._pending.append(losses.clone())
        if (step + 1) % LOG_EVERY:
            return
        steps = torch.stack(self._pending)
        values = steps.mean(dim=0)
        self._pending.clear()
        if score is not None:
            threshold = score.threshold.detach()
            of_score = torch.stack([threshold, score.average_distance])
            values = torch.cat([values, of_score])
        record = _OnDevice(step + 1, learning_rate, values, steps)
        self._unread.append(record)

    def tell(self, behind: int = 0) -> None:
        """Lets the listener hear of the records that were not read yet.

        Args:
            behind: The number of latest records that are left for later: to read the very latest,
                the host would have to wait for the device.

        Raises:
            FssegError: A value of a record is not finite; nobody hears of that record.
        """
        if self._listener is not None:
            for record in self._read_new(behind):
                self._listener(record)

    def add_line(self, record: Record) -> None:
        """Adds a record of numbers that the host has, behind all records so far; the host waits for the device.

        Raises:
            FssegError: A value of a record before it is not finite.
        """
        self.tell()
        self._read_new()
        self._read.append(record)
        if self._listener is not None:
            self._listener(record)

    def records(self) -> list[Record]:
        """All records so far; the host waits for the device.

        Raises:
            FssegError: A value of a record is not finite.
        """
        self._read_new()
        return list(self._read)

    def require_finite(self, step: int, learning_rate: float) -> None:
        """Checks the losses since the last record; the host waits for the device.

        Args:
            step: The number of steps done.
            learning_rate: The rate of the last of them.

        Raises:
            FssegError: One is not finite.
        """
        if self._pending:
            steps = torch.stack(self._pending)
            values = steps.mean(dim=0).tolist()
            self._require_finite(self._record(step, learning_rate, values), steps)

    def pending(self) -> dict[str, Tensor]:
        """The losses since the last record, for a snapshot."""
        if not self._pending:
            return {}
        return {PENDING: torch.stack(self._pending)}

    def restore(
        self,
        records: list[Record],
        tensors: dict[str, Tensor],
        device: torch.device,
    ) -> None:
        """Takes over the records and pending losses of a snapshot; the listener hears of all records.

        Args:
            records: All records so far.
            tensors: A snapshot's tensors; those of others are left alone.
            device: Where losses are collected.
        """
        self._read = list(records)
        self._unread = []
        self._pending = []
        if PENDING in tensors:
            self._pending = list(tensors[PENDING].to(device))
        if self._listener is not None:
            for record in records:
                self._listener(record)

    def _read_new(self, behind: int = 0) -> list[Record]:
        """Reads the records that were not read yet, but for so many of the latest."""
        count = max(0, len(self._unread) - behind)
        if not count:
            return []
        unread = self._unread[:count]
        self._unread = self._unread[count:]
        on_device = torch.stack([record.values for record in unread])
        new = []
        for record, values in zip(unread, on_device.tolist()):
            named = self._record(record.step, record.learning_rate, values)
            self._require_finite(named, record.losses)
            new.append(named)
        self._read += new
        return new

    def _require_finite(self, record: Record, losses: Float[Tensor, "step loss"]) -> None:
        """Raises FssegError for a record of a training that diverged, with the loss that did first.

        Args:
            record: The record.
            losses: The losses of its steps, on the device: they are read where something is wrong alone.
        """
        if all(math.isfinite(record.get(name, 0.0)) for name in self._columns):
            return
        step = record["step"]
        rate = record["learning_rate"]
        for number, values in enumerate(losses.tolist(), start=step - len(losses) + 1):
            for label, value in zip(self._losses.values(), values):
                if not math.isfinite(value):
                    raise self.diverged(f"{label} is {value}", number, rate)
        for name in self._columns:  # their mean, or the score scale
            value = record.get(name, 0.0)
            if not math.isfinite(value):
                raise self.diverged(f"{name} is {value}", step, rate)

    def _record(self, step: int, learning_rate: float, values: list[float]) -> Record:
        steps = {"step": step, "learning_rate": learning_rate}
        return steps | dict(zip(self._columns, values))

    def diverged(self, what: str, step: int, learning_rate: float) -> FssegError:
        """The error for a training of which nothing can be used any more.

        Args:
            what: What was seen, as a sentence without its end.
            step: The number of steps done.
            learning_rate: The rate of the last of them.
        """
        return FssegError(
            f"{self._name}: {what} by step {step}, at a learning rate of {learning_rate:g}, expected finite numbers: it "
            f"diverged; lower {self._rate_key} (to {learning_rate / 10:g}, say) or training.gradient_clip, or bring "
            "the options of its head and the weights of its losses nearer to their defaults"
        )
