"""Small made-up inputs for the checks, the same each time."""

import torch
from torch import Tensor

from fsseg.model.heads import AdNet
from fsseg.types import Evidence, Prototypes, Query, QueryVolume, Support

SIZE, CELLS, CHANNELS, SLICES = 32, 8, 16, 5


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def disc(centre: tuple[float, float], radius: float, size: int = SIZE) -> Tensor:
    """A disc, centre and radius in shares of the image."""
    place = (torch.arange(size) + 0.5) / size
    away = (place[:, None] - centre[0]) ** 2 + (place[None, :] - centre[1]) ** 2
    return away < radius**2


def masks(ways: int = 1, shots: int = 1, size: int = SIZE) -> Tensor:
    """way x shot x size x size: discs that do not overlap."""
    centres = [(0.3, 0.3), (0.7, 0.65), (0.25, 0.75)]
    return torch.stack(
        [
            torch.stack([disc(centres[way], 0.18 + 0.02 * shot, size) for shot in range(shots)])
            for way in range(ways)
        ]
    )


def support_features(ways: int = 1, shots: int = 1, seed: int = 0) -> Tensor:
    """way x shot x channel x h x w: two or three kinds of vectors by place, plus noise, the same for every way."""
    place = torch.linspace(-1, 1, CELLS)
    pattern = torch.stack(
        [place[:, None].expand(CELLS, CELLS), place[None, :].expand(CELLS, CELLS)]
    )
    mixed = torch.einsum("cp,phw->chw", random(CHANNELS, 2, seed=7), pattern)
    noise = 0.3 * random(shots, CHANNELS, CELLS, CELLS, seed=seed)
    return (mixed + noise + 0.5).expand(ways, -1, -1, -1, -1).contiguous()


def query_features(seed: int = 1) -> Tensor:
    """slice x channel x h x w."""
    return random(SLICES, CHANNELS, CELLS, CELLS, seed=seed)


def prototypes(ways: int = 1, count: int = 1) -> Prototypes:
    """Random ones with equal weights, and two for the background."""
    weights = torch.full((ways, count), 1 / count)
    return Prototypes(random(ways, count, CHANNELS, seed=2), weights, random(2, CHANNELS, seed=3))


def evidence(ways: int = 1, shots: int = 1) -> Evidence:
    """Logits that are large in a disc per way, blurred by noise, over five slices."""
    shown = masks(ways)[:, 0].float()  # way x size x size
    logits = 6 * shown[None] - 3 + random(SLICES, ways, SIZE, SIZE, seed=4)
    logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
    with torch.no_grad():
        score = AdNet().score
    return Evidence(
        logits,
        query_features(),
        masks(ways, shots),
        torch.full((ways, shots), 0.5),
        torch.linspace(0, 1, SLICES),
        score,
    )


def margins(ways: int = 1) -> Tensor:
    """slice x way x h x w: positive in a disc per way in most slices, with noise."""
    discs = masks(ways, size=CELLS)[:, 0].float()
    height = torch.tensor([-1.0, 4.0, 6.0, 5.0, 2.0])[:, None, None, None]
    return height * discs - 2 + 0.3 * random(SLICES, ways, CELLS, CELLS, seed=6)


def volume(ways: int = 1, shots: int = 1) -> QueryVolume:
    """Five slices of noise before a darker margin, and a support of the same kind."""
    body = 2 * disc((0.5, 0.5), 0.45).float()
    images = body + 0.1 * random(ways + SLICES, SIZE, SIZE, seed=8)
    support = Support(
        images[:ways, None].expand(-1, shots, -1, -1).contiguous(),
        masks(ways, shots),
        torch.full((ways, shots), 0.5),
    )
    query = Query(images[ways:], torch.linspace(0, 1, SLICES), (6.0, 1.5, 1.5))
    return QueryVolume(support, prototypes(ways), query, query_features())


def target(ways: int = 1) -> Tensor:
    """slice x size x size: ground truth for `evidence`."""
    numbers = torch.arange(1, ways + 1)[:, None, None]
    return (masks(ways)[:, 0] * numbers).amax(dim=0).expand(SLICES, -1, -1).contiguous()
