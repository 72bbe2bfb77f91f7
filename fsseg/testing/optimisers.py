"""Checks of optimisers."""

import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from fsseg.errors import FssegError
from fsseg.recipe.tables import TrainingTable
from fsseg.testing import samples
from fsseg.testing.contract import Subject, check
from fsseg.training.updates import Optimiser, build_optimiser

CPU = torch.device("cpu")
STEPS = 6


class _Training:
    """A few steps with the optimiser on weights whose best values are known."""

    def __init__(self, subject: Subject) -> None:
        self.weights = [nn.Parameter(samples.random(4, 3, seed=1)), nn.Parameter(torch.ones(()))]
        component = subject.build()
        options = TrainingTable(steps=STEPS)
        self.optimiser = Optimiser(self.weights, options, CPU, fused=False, component=component)

    def steps(self, first: int, last: int) -> None:
        """Does some steps, counted from 0."""
        for step in range(first, last):
            self.optimiser.prepare(step)
            loss = sum((weight**2).sum() for weight in self.weights)
            assert isinstance(loss, Tensor), "there are weights"
            self.optimiser.update(loss)

    def values(self) -> Tensor:
        """All weights."""
        return torch.cat([weight.detach().flatten() for weight in self.weights])


@check("optimiser")
def check_gives_an_optimiser(subject: Subject) -> None:
    """It gives a `torch.optim.Optimizer` of all weights that it is given, each group with a rate."""
    weights = [nn.Parameter(samples.random(4, 3, seed=seed)) for seed in (1, 2)]
    for fused in (False, True):
        try:
            made = build_optimiser(subject.build(), weights, fused=fused)
        except FssegError as error:
            subject.fail(f"expected an optimiser, got: {error}")
        of_groups = [weight for group in made.param_groups for weight in group["params"]]
        if len(of_groups) != 2 or {id(w) for w in of_groups} != {id(w) for w in weights}:
            subject.fail("expected each weight in one group, got others; give it all `parameters`")
        if any(not isinstance(group.get("lr"), float | int) for group in made.param_groups):
            subject.fail("expected a number `lr` in every group, which schedules move")


@check("optimiser")
def check_goes_down(subject: Subject) -> None:
    """After six steps the loss is lower than before, and the weights are finite."""
    training = _Training(subject)
    before = training.values()
    training.steps(0, STEPS)
    after = training.values()
    if not after.isfinite().all() or after.square().sum() >= before.square().sum():
        subject.fail(
            f"expected a lower sum of squares after {STEPS} steps down its gradient, got {after.square().sum():.4g} "
            f"after {before.square().sum():.4g}; look at the sign of the update"
        )


@check("optimiser")
def check_goes_on_from_a_file(subject: Subject) -> None:
    """Stopped after three of six steps and gone on with from its saved state, it gives the same bits."""
    whole = _Training(subject)
    whole.steps(0, 3)
    tensors, values = _through_files(subject, whole)
    halves = _Training(subject)
    with torch.no_grad():
        for weight, kept in zip(halves.weights, whole.weights):
            weight.copy_(kept)
    halves.optimiser.restore(tensors, values)
    for training in (whole, halves):
        training.steps(3, STEPS)
    if not torch.equal(whole.values(), halves.values()):
        subject.fail(
            "expected the same weights from a training that was saved and taken up, got others; keep all that a step "
            "needs in `state` and in numbers of the groups"
        )


def _through_files(
    subject: Subject, training: _Training
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimiser after a way through safetensors and JSON."""
    try:
        tensors = {name: value.contiguous() for name, value in training.optimiser.state().items()}
        values = json.loads(json.dumps(training.optimiser.values()))
    except FssegError as error:
        subject.fail(f"expected a state that can be saved, got: {error}")
    return load(save(tensors)), values
