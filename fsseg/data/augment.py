"""Augmentation of training slices: parameters are drawn first, then applied, so an episode can be drawn again."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Warp:
    """Parameters of an affine map followed by an elastic deformation.

    Attributes:
        angle: Rotation about the centre, degrees, counter-clockwise as seen.
        shift: Translation along (width, height), pixels.
        shear: Shear about the origin, degrees.
        zoom: Magnification about the centre.
        elastic: Strength of the elastic deformation; 0 for none.
        elastic_sigma: Its smoothness, pixels.
        seed: Seed of its noise.
    """

    angle: float
    shift: tuple[float, float]
    shear: float
    zoom: float
    elastic: float
    elastic_sigma: float
    seed: int


def draw_warp(
    rng: np.random.Generator,
    *,
    angle: float,
    shift: float,
    shear: float,
    zoom: tuple[float, float],
    elastic: float,
    elastic_sigma: float,
) -> Warp:
    """Draws every parameter uniformly: symmetric about 0, the zoom in its range."""
    return Warp(
        angle=rng.uniform(-angle, angle),
        shift=(rng.uniform(-shift, shift), rng.uniform(-shift, shift)),
        shear=rng.uniform(-shear, shear),
        zoom=rng.uniform(*zoom),
        elastic=elastic,
        elastic_sigma=elastic_sigma,
        seed=int(rng.integers(2**62)),
    )


def change_gamma(image: Float[Tensor, "height width"], gamma: float) -> Float[Tensor, "height width"]:
    """Raises intensities, scaled to the image's own range, to the power gamma."""
    low = image.min()
    span = image.max() - low + 1e-5
    return span * ((image - low + 1e-5) / span) ** gamma + low


def affine_matrix(warp: Warp, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """The forward map of pixel coordinates (x, y, 1): rotate, translate, shear, then zoom."""
    height, width = size
    return (
        _zoom(warp.zoom, (width / 2, height / 2))
        @ _shear(math.radians(warp.shear))
        @ _translation(*warp.shift)
        @ _rotation(math.radians(warp.angle), (height / 2, float(width // 2)))
    )


def warp_grid(warp: Warp, size: tuple[int, int], device: torch.device) -> Float[Tensor, "height width 2"]:
    """For every output pixel, where it comes from, as `grid_sample` wants it (align_corners=False).

    Affine map and elastic deformation are one interpolation here; the published code interpolates twice.
    """
    height, width = size
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    points = torch.stack([x, y], dim=-1) + _elastic_field(warp, size).to(device)
    inverse = torch.from_numpy(np.linalg.inv(affine_matrix(warp, size))).to(points)
    source = points @ inverse[:2, :2].T + inverse[:2, 2]
    return (2 * source + 1) / source.new_tensor([width, height]) - 1


def warp_slice(
    image: Float[Tensor, "height width"],
    masks: Bool[Tensor, "way height width"],
    grid: Float[Tensor, "height width 2"],
    fill: float,
) -> tuple[Float[Tensor, "height width"], Bool[Tensor, "way height width"]]:
    """Image and masks on the grid, bilinear; what comes from outside the image is `fill` and background."""
    stacked = torch.cat([(image - fill)[None], masks.to(image.dtype)])[None]
    warped = F.grid_sample(stacked, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    return warped[0] + fill, warped[1:] > 0.5


def _rotation(angle: float, centre: tuple[float, float]) -> Float[np.ndarray, "3 3"]:
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = centre  # counter-clockwise as seen, because rows count downwards
    return np.array([[cos, sin, (1 - cos) * x - sin * y], [-sin, cos, sin * x + (1 - cos) * y], [0, 0, 1]])


def _translation(x: float, y: float) -> Float[np.ndarray, "3 3"]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _shear(angle: float) -> Float[np.ndarray, "3 3"]:
    return np.array([[1, -math.sin(angle), 0], [0, math.cos(angle), 0], [0, 0, 1.0]])


def _zoom(factor: float, centre: tuple[float, float]) -> Float[np.ndarray, "3 3"]:
    x, y = centre
    return np.array([[factor, 0, (1 - factor) * x], [0, factor, (1 - factor) * y], [0, 0, 1.0]])


def _elastic_field(warp: Warp, size: tuple[int, int]) -> Float[Tensor, "height width 2"]:
    """Smoothed uniform noise, in pixels; always drawn on the CPU so that a seed means the same everywhere."""
    generator = torch.Generator().manual_seed(warp.seed)
    noise = 2 * torch.rand(2, 1, *size, generator=generator) - 1
    kernel = _gaussian(warp.elastic_sigma)
    half = len(kernel) // 2
    padded = F.pad(noise, [half] * 4, mode="reflect")
    smooth = F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])
    return warp.elastic * smooth[:, 0].movedim(0, -1)


@lru_cache(maxsize=8)
def _gaussian(sigma: float) -> Float[Tensor, "tap"]:
    """A Gaussian of 2 (2 sigma) + 1 taps that sum to one: 21 for the published sigma of 5."""
    half = max(1, round(2 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-half, half + 1) / sigma) ** 2)
    return taps / taps.sum()
