"""Small made-up inputs for the checks, the same each time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsseg.data.datasets.phantom.dataset import AbdomenPhantom
from fsseg.data.grids import FileGrid
from fsseg.data.intensity import measure, rule_of
from fsseg.data.volume import Volume
from fsseg.model.heads import AdNet, AdNetPp
from fsseg.model.prototypes import MaskedAverage
from fsseg.training.scans import TrainingScan, regions_for, training_scan
from fsseg.training.step import TrainingStep, log_probabilities
from fsseg.types import Episode, Evidence, Prototypes, Query, QueryVolume, Support

SIZE = 32
"""Height and width of a slice in pixels."""

CELLS = 8
"""Height and width of features."""

CHANNELS = 16
SLICES = 5

SPACING = (5.0, 1.5, 1.2)
"""The voxel size for metrics, in mm."""


def random(*shape: int, seed: int = 0) -> Tensor:
    """Numbers of a normal distribution, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def disc(centre: tuple[float, float], radius: float, size: int = SIZE) -> Tensor:
    """A mask of size x size with a disc; centre and radius are shares of the image."""
    place = (torch.arange(size) + 0.5) / size
    down = place[:, None] - centre[0]
    right = place[None, :] - centre[1]
    return down**2 + right**2 < radius**2


def masks(ways: int = 1, shots: int = 1, size: int = SIZE) -> Tensor:
    """Masks of way x shot x size x size: discs that do not overlap."""
    centres = [(0.3, 0.3), (0.7, 0.65), (0.25, 0.75)]
    discs = []
    for centre in centres[:ways]:
        for shot in range(shots):
            radius = 0.18 + 0.02 * shot
            discs.append(disc(centre, radius, size))
    return torch.stack(discs).view(ways, shots, size, size)


def support_features(ways: int = 1, shots: int = 1, seed: int = 0) -> Tensor:
    """Features of way x shot x channel x h x w: vectors that change with the place, plus noise, alike for every way."""
    place = torch.linspace(-1, 1, CELLS)
    down = place[:, None].expand(CELLS, CELLS)
    right = place[None, :].expand(CELLS, CELLS)
    mixing = random(CHANNELS, 2, seed=7)
    pattern = torch.einsum("cp,phw->chw", mixing, torch.stack([down, right]))
    noise = 0.3 * random(shots, CHANNELS, CELLS, CELLS, seed=seed)
    features = pattern + noise + 0.5
    return features.expand(ways, -1, -1, -1, -1).contiguous()


def query_features(seed: int = 1) -> Tensor:
    """Features of slice x channel x h x w."""
    return random(SLICES, CHANNELS, CELLS, CELLS, seed=seed)


def prototypes(ways: int = 1, count: int = 1) -> Prototypes:
    """Random prototypes with equal weights, and two for the background."""
    foreground = random(ways, count, CHANNELS, seed=2)
    weights = torch.full((ways, count), 1 / count)
    background = random(2, CHANNELS, seed=3)
    return Prototypes(foreground, weights, background)


def evidence(ways: int = 1, shots: int = 1) -> Evidence:
    """Logits that are large in a disc per way, blurred by noise, over five slices."""
    discs = masks(ways)[:, 0].float()  # way x size x size
    noise = random(SLICES, ways, SIZE, SIZE, seed=4)
    foreground = 6 * discs[None] - 3 + noise
    background = torch.zeros_like(foreground[:, :1])
    with torch.no_grad():
        score = AdNet().score
    return Evidence(
        logits=torch.cat([background, foreground], dim=1),
        features=query_features(),
        support_masks=masks(ways, shots),
        support_location=torch.full((ways, shots), 0.5),
        query_location=torch.linspace(0, 1, SLICES),
        score=score,
    )


def margins(ways: int = 1, size: int = CELLS) -> Tensor:
    """Margins of slice x way x size x size: positive in a disc per way in most slices, with noise."""
    discs = masks(ways, size=size)[:, 0].float()
    height = torch.tensor([-1.0, 4.0, 6.0, 5.0, 2.0]).view(SLICES, 1, 1, 1)
    noise = random(SLICES, ways, size, size, seed=6)
    return height * discs - 2 + 0.3 * noise


def support(ways: int = 1, shots: int = 1) -> Support:
    """Labelled slices of noise, brighter where a way is, and brightest for the last."""
    marked = masks(ways, shots)
    brightness = 2.0 * torch.arange(1, ways + 1)[:, None, None, None]
    all_ways = (marked * brightness).amax(dim=0)  # shots show all ways
    images = all_ways + 0.1 * random(shots, SIZE, SIZE, seed=11)
    location = torch.full((ways, shots), 0.5)
    return Support(images.expand(ways, -1, -1, -1).contiguous(), marked, location)


def query(ways: int = 1) -> Query:
    """Five slices that show the ways as `support` does."""
    brightness = 2.0 * torch.arange(1, ways + 1)[:, None, None]
    shown = (masks(ways)[:, 0] * brightness).amax(dim=0)
    images = shown + 0.1 * random(SLICES, SIZE, SIZE, seed=12)
    return Query(images, torch.linspace(0, 1, SLICES), (6.0, 1.5, 1.5))


def volume(ways: int = 1, shots: int = 1) -> QueryVolume:
    """Five slices of noise before a darker margin, and a support of the same kind."""
    body = 2 * disc((0.5, 0.5), 0.45).float()
    noise = random(ways + SLICES, SIZE, SIZE, seed=8)
    images = body + 0.1 * noise
    support_images = images[:ways, None].expand(-1, shots, -1, -1)
    support = Support(
        support_images.contiguous(),
        masks(ways, shots),
        torch.full((ways, shots), 0.5),
    )
    location = torch.linspace(0, 1, SLICES)
    query = Query(images[ways:], location, (6.0, 1.5, 1.5))
    return QueryVolume(
        support, prototypes(ways), query, query_features(), support_features(ways, shots)
    )


def training_step(ways: int = 1) -> TrainingStep:
    """A step with one slice of the support and one of the query, of which the head finds a part."""
    shown = support_features(1)[0, 0]
    features = shown + 0.2 * random(CHANNELS, CELLS, CELLS, seed=11)
    support_slices = shown[None].clone().requires_grad_()
    query_slices = features[None].clone().requires_grad_()
    marked = masks(ways)
    image = random(1, SIZE, SIZE, seed=12)
    support = Support(
        image.expand(ways, 1, -1, -1).contiguous(),
        marked,
        torch.full((ways, 1), 0.5),
        shared=True,
    )
    query = Query(random(1, SIZE, SIZE, seed=13), torch.tensor([0.6]))
    extractor = MaskedAverage()
    head: Any = AdNetPp(initial_threshold=-14.0)  # a Head and a module: no type says both
    prototypes = extractor(support.spread(support_slices), marked)
    logits = head(query_slices, prototypes)
    return TrainingStep(
        Episode(support, query, target(ways)[:1]),
        support_slices,
        query_slices,
        prototypes,
        logits,
        log_probability(logits),
        head,
        extractor,
        "default",
    )


def log_probability(logits: Tensor) -> Tensor:
    """Log class probabilities at the size of the image."""
    return log_probabilities(logits, (SIZE, SIZE), "default")


def reordered(volume: QueryVolume, order: list[int]) -> QueryVolume:
    """The same scan with its ways in another order."""
    support = volume.support
    prototypes = volume.prototypes
    return replace(
        volume,
        support=replace(
            support,
            images=support.images[order],
            masks=support.masks[order],
            location=support.location[order],
        ),
        prototypes=replace(
            prototypes,
            foreground=prototypes.foreground[order],
            weights=prototypes.weights[order],
        ),
        support_features=volume.support_features[order],
    )


def target(ways: int = 1) -> Tensor:
    """Ground truth of slice x size x size for `evidence`."""
    numbers = torch.arange(1, ways + 1)[:, None, None]
    labels = masks(ways)[:, 0] * numbers
    return labels.amax(dim=0).expand(SLICES, -1, -1).contiguous()


def cylinder(centre: tuple[float, float], radius: float) -> np.ndarray:
    """A mask of four slices with the same disc in each, as metrics take them."""
    slices = [disc(centre, radius).numpy()] * 4
    return np.stack(slices)


def intensities(seed: int = 0) -> np.ndarray:
    """An image of slice x height x width as scanners give them: air, a body, noise, and a few bright voxels."""
    body = disc((0.5, 0.5), 0.4).numpy()
    noise = random(SLICES, SIZE, SIZE, seed=seed).numpy()
    image = 300 * body + 20 * np.abs(noise)
    image[1, 3, 4] = 2000
    return image.astype(np.float32)


def probability(predicted: np.ndarray) -> np.ndarray:
    """Probabilities that decide for this mask, less certain in some columns."""
    certain = np.linspace(0.6, 0.95, predicted.shape[-1], dtype=np.float32)
    return np.where(predicted, certain, 1 - certain).astype(np.float32)


def phantom() -> tuple[Volume, AbdomenPhantom]:
    """A scan, and the dataset that it is from."""
    dataset = AbdomenPhantom(count=4, size=64)
    return dataset.load(dataset.cases[0]), dataset


def labelled_volume(classes: Sequence[str], number: int = 0) -> tuple[Volume, np.ndarray]:
    """A scan of two discs and its supervoxels, the two halves of each quarter; with the labels of these classes.

    The first class is the first disc, and so on; a third has no voxel.
    """
    discs = masks(2)[:, 0].numpy()
    shown = np.zeros((SLICES, SIZE, SIZE), dtype=np.uint8)
    shown[:, discs[0]] = 1
    shown[1:4, discs[1]] = 2
    rng = np.random.default_rng(number)
    image = 100.0 + 50 * shown + rng.normal(0, 5, shown.shape)
    image[:, :2] = 0
    quarters = 1 + np.arange(SIZE)[:, None] // 16 * 2 + np.arange(SIZE) // 16
    supervoxels = np.repeat(quarters[None].astype(np.int32), SLICES, axis=0)
    supervoxels[3:] += 4
    labels = None
    if classes:
        labels = np.where(shown <= len(classes), shown, 0).astype(np.uint8)
    volume = Volume(str(number), image, labels, SPACING, FileGrid.of_spacing(SPACING))
    return volume, supervoxels


def training_scans(source: Any, *, empty: bool = False) -> list[TrainingScan]:
    """Three scans with the regions of which a source makes episodes; with `empty`, without any region."""
    scans = []
    names = getattr(source, "classes", ())
    for number in range(3):
        volume, supervoxels = labelled_volume(names, number)
        if empty:
            supervoxels = np.zeros_like(supervoxels)
        known = dict(enumerate(names, start=1))
        regions = regions_for(source, volume, supervoxels.copy, known)
        scaling = measure(rule_of("zscore"), [volume.image])
        scans.append(training_scan(volume, regions, scaling))
    return scans
