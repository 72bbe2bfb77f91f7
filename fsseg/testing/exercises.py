"""One use of a component of each kind, for the checks that all kinds share: made-up inputs, and what comes out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsseg.evaluation.metrics import value_of
from fsseg.interfaces import FittedThreshold
from fsseg.model.chain import resolution_of
from fsseg.model.inputs import PHOTOGRAPH, channels_of
from fsseg.model.ops import resize
from fsseg.model.scoring import is_per_query, sees_support
from fsseg.testing import samples
from fsseg.testing.contract import Subject
from fsseg.training.drawn import SliceFacts
from fsseg.types import IdealPriors

TENSOR_KINDS = ("backbone", "prototypes", "head", "segmenter", "threshold", "refiner")
"""Kinds whose components work on tensors."""

COMPUTING_KINDS = (
    *TENSOR_KINDS,
    "loss",
    "dataset",
    "supervoxels",
    "intensity",
    "episodes",
    "augmentation",
    "metric",
)
"""Kinds whose components compute something."""


def inputs_of(kind: str) -> tuple[Any, ...]:
    """The arguments of a use of a component of this kind."""
    if kind == "backbone":
        return (samples.random(2, 3, 64, 64),)
    if kind == "prototypes":
        return samples.support_features(), samples.masks(), torch.tensor(0.3)
    if kind == "head":
        return samples.query_features(), samples.prototypes()
    if kind == "segmenter":
        return samples.support(), samples.query()
    if kind == "loss":
        return (converted(samples.training_step(), torch.Tensor.detach),)
    if kind == "threshold":
        return samples.evidence(), samples.target()
    if kind == "refiner":
        return samples.margins(), samples.volume()
    if kind == "augmentation":
        return samples.random(samples.SIZE, samples.SIZE), samples.masks(2)[:, 0]
    if kind == "supervoxels":
        return samples.phantom()
    if kind == "intensity":
        return (samples.intensities(),)
    if kind == "metric":
        predicted = samples.cylinder((0.4, 0.4), 0.3)
        actual = samples.cylinder((0.4, 0.5), 0.3)
        return predicted, actual, samples.SPACING, samples.probability(predicted)
    return ()


def use(subject: Subject, instance: Any, inputs: tuple[Any, ...]) -> Any:
    """The result of a component; a threshold that has to be fitted is, unless it was."""
    _evaluate(instance)
    if subject.kind == "dataset":
        volume = instance.load(instance.cases[0])
        return volume.image, volume.labels, volume.spacing
    if subject.kind == "backbone":
        [images] = inputs
        channels = channels_of(instance)
        if channels != PHOTOGRAPH:
            images = images[:, :1].repeat(1, channels, 1, 1)
        return instance(images)
    if subject.kind == "intensity":
        [image] = inputs
        return instance.scale(image, instance.measure([image]))
    if subject.kind == "head" and sees_support(instance):
        features, prototypes = inputs
        volume = samples.volume()
        return instance(features, prototypes, replace(volume, prototypes=prototypes))
    if subject.kind == "prototypes" and is_per_query(instance):
        return instance(*inputs, samples.query_features().to(inputs[0]))
    if subject.kind == "refiner" and resolution_of(instance) == "image":
        margins, volume = inputs
        size = volume.query.images.shape[-2:]
        return instance(resize(margins, tuple(size)), volume)
    if subject.kind == "episodes":
        scans = samples.training_scans(instance)
        choose = getattr(instance, "usable", list)
        return instance.pair(list(choose(scans)), np.random.default_rng(0))
    if subject.kind == "augmentation":
        image, masks = inputs
        drawn = instance.draw(np.random.default_rng(0), SliceFacts(tuple(image.shape)))
        return instance(image, masks, torch.from_numpy(np.float32(drawn)).to(image.device))
    if subject.kind == "metric":
        return value_of(instance, *inputs)
    if subject.kind != "threshold":
        return instance(*inputs)
    evidence, target = inputs
    if isinstance(instance, FittedThreshold) and needs_fit(instance, evidence):
        fit(instance)
    return decide(instance, evidence, target)


def _evaluate(instance: Any) -> None:
    """Puts a module into evaluation mode."""
    if isinstance(instance, nn.Module):
        instance.eval()


def decide(instance: Any, evidence: Any, target: Tensor) -> Tensor:
    """The answer of a threshold; only an oracle is handed the target."""
    if instance.oracle:
        return instance(evidence, target)
    return instance(evidence)


def needs_fit(instance: FittedThreshold, evidence: Any) -> bool:
    """True if a threshold refuses to answer as it is."""
    try:
        instance(evidence)
    except Exception:
        return True
    return False


def fit(instance: FittedThreshold, ways: int = 1) -> None:
    """Fits a threshold to forty episodes whose ideal priors follow from the support's size, plus noise."""
    random = np.random.default_rng(0)
    evidence = samples.evidence(ways)
    described = []
    ideal_of_ways = []
    for _ in range(40):
        radius = random.uniform(0.05, 0.3)
        location = random.uniform()
        mask = samples.disc((0.5, 0.5), radius)
        episode = replace(
            evidence,
            logits=evidence.logits[:1],
            features=evidence.features[:1],
            support_masks=mask.expand(ways, 1, -1, -1),
            query_location=torch.tensor([location], dtype=torch.float32),
        )
        described.append(instance.describe(episode)[0].numpy())
        noise = random.normal(0, 0.1, ways)
        ideal_of_ways.append(-2 + 8 * radius - location + noise)
    together = np.array([ideal.max() for ideal in ideal_of_ways])
    instance.fit(described, IdealPriors(together, ideal_of_ways))


def numbers(value: Any) -> Iterator[np.ndarray]:
    """All numbers in a result, in a fixed order."""
    if isinstance(value, Tensor):
        yield value.detach().float().cpu().numpy()
    elif isinstance(value, np.ndarray | float | int):
        yield np.asarray(value)
    else:
        for part in _parts(value):
            yield from numbers(part)


def _parts(value: Any) -> Iterable[Any]:
    """The values in a list, a tuple or a dataclass; nothing for what is none of them."""
    if isinstance(value, tuple | list):
        return value
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    return ()


def converted(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same value with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(converted(part, change) for part in value)
    if is_dataclass(value):
        parts = [converted(part, change) for part in _parts(value)]
        made: Any = type(value)
        return made(*parts)
    return value


def same(first: Any, second: Any, tolerance: float = 0.0) -> bool:
    """True if two results have the same shapes and numbers; the tolerance is relative and absolute."""
    arrays = list(numbers(first))
    others = list(numbers(second))
    if len(arrays) != len(others):
        return False
    return all(_are_close(*pair, tolerance) for pair in zip(arrays, others))


def _are_close(first: np.ndarray, second: np.ndarray, tolerance: float) -> bool:
    if first.shape != second.shape:
        return False
    return np.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)
