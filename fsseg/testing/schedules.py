"""Checks of schedules."""

from typing import Any

import torch
from torch import nn

from fsseg.errors import FssegError
from fsseg.recipe.tables import TrainingTable
from fsseg.testing.contract import Subject, check
from fsseg.training.course import MOVED, Course

STEPS = 12


def _course(subject: Subject) -> Course:
    """The schedule for twelve steps of Adam at a rate of 0.1."""
    optimiser = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.1)
    return Course(TrainingTable(steps=STEPS), optimiser, schedules=[subject.build()])


def _numbers(course: Course) -> list[Any]:
    return [course.at(step) for step in range(STEPS)]


@check("schedule")
def check_rates(subject: Subject) -> None:
    """It gives a scheduler of torch's, and for every step a finite rate of at least 0."""
    try:
        _numbers(_course(subject))
    except FssegError as error:
        subject.fail(f"expected a rate for each of {STEPS} steps, got: {error}")


@check("schedule")
def check_knows_the_step_alone(subject: Subject) -> None:
    """A step has the same numbers in every training, and when a training goes on from there."""
    course = _course(subject)
    numbers = _numbers(course)
    if numbers != _numbers(_course(subject)) or numbers != _numbers(course):
        subject.fail(
            "expected the same numbers for a step each time, got others; let them follow from the step alone"
        )


@check("schedule")
def check_moves_known_numbers(subject: Subject) -> None:
    """It moves lr, momentum or betas of the groups and nothing else that an optimiser computes with."""
    optimiser = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.1)
    [group] = optimiser.param_groups
    before = dict(group)
    scheduler = subject.build()(optimiser, STEPS)
    for _ in range(STEPS - 1):
        optimiser.step()
        scheduler.step()
    moved = [name for name in before if name not in MOVED and group[name] != before[name]]
    if moved:
        subject.fail(
            f"expected to move {', '.join(MOVED)} alone, got a move of {moved[0]}, which training does not follow; leave it"
        )
