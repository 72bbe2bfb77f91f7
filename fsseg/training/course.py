"""The numbers of an optimiser that schedules move, for any step: a training can go on anywhere."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fsseg.errors import FssegError
from fsseg.interfaces import Schedule
from fsseg.plugins.blame import described
from fsseg.recipe.tables import TrainingTable
from fsseg.recipe.updates import schedules_of, stretches_of

MOVED = ("lr", "momentum", "betas")
"""The numbers of a group of parameters that schedules move."""

Numbers = dict[str, Any]


class Course:
    """The numbers that the schedules of a training give to each of its steps.

    Schedulers of torch count for themselves, so they are counted forwards on a stand-in of the optimiser; a step that
    lies before is counted from the beginning of its stretch. Nothing of that needs to be saved.

    Example:
        >>> from fsseg.recipe.tables import TrainingTable
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> table = TrainingTable(learning_rate=0.1, decay=0.5, decay_every=10)
        >>> course = Course(table, torch.optim.SGD([weight], lr=0.1))
        >>> course.at(25)[0]["lr"], course.at(3)[0]["lr"]
        (0.025, 0.1)
    """

    def __init__(
        self,
        options: TrainingTable,
        optimiser: Optimizer,
        schedules: Sequence[Schedule] | None = None,
    ) -> None:
        """Begins at step 0.

        Args:
            options: The schedules, and the steps at which they begin.
            optimiser: Whose numbers they move; it is not changed.
            schedules: The schedules; those of the options when omitted.
        """
        self._schedules: Sequence[Schedule] = schedules or [
            table.build("schedule") for table in schedules_of(options)
        ]
        self._stretches = stretches_of(options)
        self._begins = [begin for begin, _ in self._stretches]
        self._groups = [_without_weights(group) for group in optimiser.param_groups]
        self._defaults = dict(optimiser.defaults)
        self._begin(0)

    def at(self, step: int) -> list[Numbers]:
        """The numbers of a step, counted from 0, for each group of parameters.

        Raises:
            FssegError: A schedule gives a rate that is no rate.
        """
        number = bisect_right(self._begins, step) - 1
        if number != self._number or step < self._step:
            self._begin(number)
        while self._scheduler is not None and self._step < step:
            self._stand_in.step()
            self._scheduler.step()
            self._step += 1
        of_groups = []
        for group in self._stand_in.param_groups:
            of_groups.append({name: group[name] for name in MOVED if name in group})
        for numbers in of_groups:
            self._require_rate(numbers, step)
        return of_groups

    def _begin(self, number: int) -> None:
        """Goes to the beginning of a stretch, with the optimiser's own numbers."""
        self._number = number
        self._step, steps = self._stretches[number]
        self._stand_in = _StandIn(self._groups, self._defaults)
        self._scheduler: LRScheduler | None = None
        if not self._schedules:
            return
        schedule = self._schedules[number]
        self._scheduler = schedule(self._stand_in, steps)
        if not isinstance(self._scheduler, LRScheduler):
            raise FssegError(
                f"{described('schedule', schedule)}: gives {type(self._scheduler).__name__}, expected a scheduler of "
                "torch.optim.lr_scheduler; return one from __call__"
            )

    def _require_rate(self, numbers: Numbers, step: int) -> None:
        rate = numbers["lr"] = float(numbers["lr"])
        if not math.isfinite(rate) or rate < 0:
            raise FssegError(
                f"{described('schedule', self._schedules[self._number])}: gives a learning rate of {rate} for step {step}, "
                "expected a finite number of at least 0; correct its options, or the schedule"
            )


class _StandIn(Optimizer):
    """An optimiser of nothing, with the numbers of another."""

    def __init__(self, groups: list[Numbers], defaults: Numbers) -> None:
        weightless = [group | {"params": [nn.Parameter(torch.zeros(()))]} for group in groups]
        super().__init__(weightless, dict(defaults))

    def step(self, closure: Any = None) -> Any:
        """Does nothing: torch's schedulers want an update before each of their steps."""


def _without_weights(group: Numbers) -> Numbers:
    """The numbers of a group; the rate is one of the host's."""
    numbers = {name: value for name, value in group.items() if name != "params"}
    return numbers | {"lr": float(group["lr"])}
