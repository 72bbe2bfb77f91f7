"""One use of a component of each kind, for the checks that all kinds share: made-up inputs, and what comes out."""

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsseg.data.datasets.phantom.dataset import AbdomenPhantom
from fsseg.interfaces import FittedThreshold
from fsseg.testing import samples
from fsseg.testing.contract import Subject
from fsseg.types import IdealPriors

TENSOR_KINDS = ("backbone", "prototypes", "head", "threshold", "refiner")
"""Kinds whose components work on tensors."""

COMPUTING_KINDS = (*TENSOR_KINDS, "dataset", "supervoxels", "metric")
"""Kinds whose components compute something."""


def inputs_of(kind: str) -> tuple[Any, ...]:
    """The arguments of a use."""
    if kind == "backbone":
        return (samples.random(2, 3, 64, 64),)
    if kind == "prototypes":
        return samples.support_features(), samples.masks(), torch.tensor(0.3)
    if kind == "head":
        return samples.query_features(), samples.prototypes()
    if kind == "threshold":
        return samples.evidence(), samples.target()
    if kind == "refiner":
        return samples.margins(), samples.volume()
    if kind == "supervoxels":
        dataset = AbdomenPhantom(count=4, size=64)
        return dataset.load(dataset.cases[0]), dataset
    if kind == "metric":
        first, second = (
            samples.disc((0.4, place), 0.3).numpy()[None].repeat(4, axis=0) for place in (0.4, 0.5)
        )
        return first, second, (5.0, 1.5, 1.2)
    return ()


def use(subject: Subject, instance: Any, inputs: tuple[Any, ...]) -> Any:
    """What the component makes of the inputs; a threshold that has to be fitted is, unless it was."""
    if isinstance(instance, nn.Module):
        instance.eval()
    if subject.kind == "dataset":
        volume = instance.load(instance.cases[0])
        return volume.image, volume.labels, volume.spacing
    if subject.kind != "threshold":
        return instance(*inputs)
    evidence, target = inputs
    if isinstance(instance, FittedThreshold) and needs_fit(instance, evidence):
        fit(instance)
    return decide(instance, evidence, target)


def decide(instance: Any, evidence: Any, target: Tensor) -> Tensor:
    """A threshold's answer; only an oracle is handed the target."""
    return instance(evidence, target) if instance.oracle else instance(evidence)


def needs_fit(instance: FittedThreshold, evidence: Any) -> bool:
    """Whether it refuses to answer as it is."""
    try:
        instance(evidence)
    except Exception:
        return True
    return False


def fit(instance: FittedThreshold, ways: int = 1) -> None:
    """Fits to forty episodes whose ideal priors follow from the support's size, plus noise."""
    random = np.random.default_rng(0)
    described, together, own = [], [], []
    for _ in range(40):
        evidence = samples.evidence(ways)
        radius, place = random.uniform(0.05, 0.3), random.uniform()
        mask = samples.disc((0.5, 0.5), radius).expand(ways, 1, -1, -1)
        shown = type(evidence)(
            evidence.logits[:1], evidence.features[:1], mask, evidence.support_location,
            torch.tensor([place], dtype=torch.float32), evidence.score,
        )  # fmt: skip
        described.append(instance.describe(shown)[0].numpy())
        ideal = -2 + 8 * radius - place + random.normal(0, 0.1, ways)
        together.append(ideal.max())
        own.append(ideal)
    instance.fit(described, IdealPriors(np.array(together), own))


def numbers(value: Any) -> list[np.ndarray]:
    """All numbers in a result, in a fixed order."""
    if isinstance(value, Tensor):
        return [value.detach().float().cpu().numpy()]
    if isinstance(value, np.ndarray | float | int):
        return [np.asarray(value)]
    if is_dataclass(value):
        return [array for one in fields(value) for array in numbers(getattr(value, one.name))]
    if isinstance(value, tuple | list):
        return [array for one in value for array in numbers(one)]
    return []


def converted(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same value with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(converted(one, change) for one in value)
    if is_dataclass(value):
        parts = {one.name: converted(getattr(value, one.name), change) for one in fields(value)}
        return type(value)(**parts)
    return value


def same(first: Any, second: Any, tolerance: float = 0.0) -> bool:
    """Whether two results have the same shapes and numbers; the tolerance is relative and absolute."""
    one, other = numbers(first), numbers(second)
    return len(one) == len(other) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(one, other)
    )


def copied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A deep copy of the inputs."""
    return copy.deepcopy(inputs)
