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
class Affine:
    """Parameters of an affine map of a slice.

    Attributes:
        angle: Rotation about the centre, degrees, counter-clockwise as seen.
        shift: Translation along (width, height), pixels.
        shear: Shear about the origin, degrees.
        zoom: Magnification about the centre.
    """

    angle: float
    shift: tuple[float, float]
    shear: float
    zoom: float


def draw_affine(
    rng: np.random.Generator, *, angle: float, shift: float, shear: float, zoom: tuple[float, float]
) -> Affine:
    """Draws every parameter of an affine map uniformly.

    Args:
        rng: The generator.
        angle: The largest rotation to either side, degrees.
        shift: The largest translation to either side, pixels.
        shear: The largest shear to either side, degrees.
        zoom: The range of the magnification.
    """
    return Affine(
        angle=rng.uniform(-angle, angle),
        shift=(rng.uniform(-shift, shift), rng.uniform(-shift, shift)),
        shear=rng.uniform(-shear, shear),
        zoom=rng.uniform(*zoom),
    )


def draw_noise(seed: int, size: tuple[int, int]) -> Float[Tensor, "2 height width"]:
    """Uniform noise between -1 and 1 for `elastic_field`; on the CPU, so that a seed means the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(2, *size, generator=generator) - 1


def change_gamma(
    image: Float[Tensor, "height width"], gamma: float | Float[Tensor, ""]
) -> Float[Tensor, "height width"]:
    """Raises intensities, scaled to the image's own range, to the power gamma.

    For an image v with minimum m: `r ((v - m + 1e-5) / r)^gamma + m`, where r is the range, also
    with 1e-5 added.
    """
    low = image.min()
    span = image.max() - low + 1e-5
    return span * ((image - low + 1e-5) / span) ** gamma + low


def affine_matrix(affine: Affine, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """The forward map of pixel coordinates (x, y, 1): rotate, translate, shear, then zoom."""
    height, width = size
    zoom = _zoom(affine.zoom, (width / 2, height / 2))
    shear = _shear(math.radians(affine.shear))
    translation = _translation(*affine.shift)
    rotation = _rotation(math.radians(affine.angle), (height / 2, float(width // 2)))
    return zoom @ shear @ translation @ rotation


def elastic_field(
    noise: Float[Tensor, "2 height width"], strength: float, sigma: float
) -> Float[Tensor, "2 height width"]:
    """Displacements along (width, height) in pixels: the noise, smoothed over `sigma` pixels, times `strength`."""
    height, width = noise.shape[-2:]
    taps = _gaussian(sigma)
    margin = len(taps) // 2
    padded = F.pad(noise[None], [margin] * 4, mode="reflect")[0]
    # Sums of shifted planes: for one channel they are several times faster on a CPU than a convolution.
    along_width = padded[:, :, :width] * taps[0]
    for offset, tap in enumerate(taps[1:], start=1):
        along_width.add_(padded[:, :, offset : offset + width], alpha=tap)
    smooth = along_width[:, :height] * taps[0]
    for offset, tap in enumerate(taps[1:], start=1):
        smooth.add_(along_width[:, offset : offset + height], alpha=tap)
    return strength * smooth


def warp_grids(
    field: Float[Tensor, "2 height width"], inverses: Float[Tensor, "candidate 2 3"]
) -> Float[Tensor, "candidate height width 2"]:
    """For every output pixel, where it comes from, as `grid_sample` wants it (align_corners=False).

    Affine map and elastic deformation are one interpolation here; the published code interpolates
    twice.

    Args:
        field: The elastic deformation, which all candidates share.
        inverses: The first two rows of each candidate's inverse affine matrix.
    """
    height, width = field.shape[-2:]
    columns = torch.arange(width, device=field.device, dtype=field.dtype)
    rows = torch.arange(height, device=field.device, dtype=field.dtype)
    x = columns + field[0]
    y = rows[:, None] + field[1]
    to_x, to_y = inverses[..., None, None].movedim(0, 2).unbind()
    source_x = _in_grid_units(_apply(to_x, x, y), width)
    source_y = _in_grid_units(_apply(to_y, x, y), height)
    # Planes beside one another: to interleave them would take as long as to sample from them.
    return torch.stack([source_x, source_y], dim=1).movedim(1, -1)


def _apply(
    row: Float[Tensor, "3 candidate 1 1"],
    x: Float[Tensor, "height width"],
    y: Float[Tensor, "height width"],
) -> Float[Tensor, "candidate height width"]:
    """One coordinate after each candidate's affine map, a row of whose matrix this is."""
    of_x, of_y, shift = row
    return (x * of_x).add_(y * of_y).add_(shift)


def _in_grid_units(
    pixels: Float[Tensor, "candidate height width"], size: int
) -> Float[Tensor, "candidate height width"]:
    """Turns pixel coordinates, in place, into those of `grid_sample`, which has the image from -1 to 1."""
    return pixels.mul_(2).add_(1).div_(size).sub_(1)


def warp_slice(
    image: Float[Tensor, "height width"],
    masks: Bool[Tensor, "way height width"],
    grids: Float[Tensor, "candidate height width 2"],
    fill: float | Float[Tensor, ""],
) -> tuple[Float[Tensor, "candidate height width"], Bool[Tensor, "candidate way height width"]]:
    """Image and masks on each grid, bilinear.

    Args:
        image: The slice.
        masks: The ways in it.
        grids: Where each output pixel comes from, as `warp_grids` says.
        fill: The intensity of what comes from outside the image, which is background.
    """
    planes = torch.cat([(image - fill)[None], masks.to(image.dtype)])
    for_each = planes.expand(len(grids), -1, -1, -1)
    warped = F.grid_sample(
        for_each, grids, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return warped[:, 0] + fill, warped[:, 1:] > 0.5


def _rotation(angle: float, centre: tuple[float, float]) -> Float[np.ndarray, "3 3"]:
    """Counter-clockwise as seen, because rows count downwards."""
    cos = math.cos(angle)
    sin = math.sin(angle)
    x, y = centre
    along_x = [cos, sin, (1 - cos) * x - sin * y]
    along_y = [-sin, cos, sin * x + (1 - cos) * y]
    return np.array([along_x, along_y, [0, 0, 1]])


def _translation(x: float, y: float) -> Float[np.ndarray, "3 3"]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _shear(angle: float) -> Float[np.ndarray, "3 3"]:
    return np.array([[1, -math.sin(angle), 0], [0, math.cos(angle), 0], [0, 0, 1.0]])


def _zoom(factor: float, centre: tuple[float, float]) -> Float[np.ndarray, "3 3"]:
    x, y = centre
    return np.array([[factor, 0, (1 - factor) * x], [0, factor, (1 - factor) * y], [0, 0, 1.0]])


@lru_cache(maxsize=8)
def _gaussian(sigma: float) -> tuple[float, ...]:
    """A Gaussian of 2 (2 sigma) + 1 taps that sum to one: 21 for the published sigma of 5."""
    half = max(1, round(2 * sigma))
    distances = torch.arange(-half, half + 1) / sigma
    taps = torch.exp(-0.5 * distances**2)
    return tuple((taps / taps.sum()).tolist())
