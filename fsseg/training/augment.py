"""Augmentation of training slices: parameters are drawn first, then applied, so an episode can be drawn again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Matrix = Float[np.ndarray, "3 3"]
"""A map of pixel coordinates (x, y, 1)."""

Point = tuple[float, float]
"""Pixel coordinates (x, y)."""

SOFTENING = 1e-5
"""Added to intensities and their range before the power, as published."""


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
    rng: np.random.Generator,
    *,
    angle: float,
    shift: float,
    shear: float,
    zoom: tuple[float, float],
) -> Affine:
    """Draws every parameter of an affine map uniformly.

    Args:
        rng: The generator.
        angle: The largest rotation to either side, degrees.
        shift: The largest translation to either side, pixels.
        shear: The largest shear to either side, degrees.
        zoom: The range of the magnification.
    """
    rotation = rng.uniform(-angle, angle)
    along_width = rng.uniform(-shift, shift)
    along_height = rng.uniform(-shift, shift)
    return Affine(
        angle=rotation,
        shift=(along_width, along_height),
        shear=rng.uniform(-shear, shear),
        zoom=rng.uniform(*zoom),
    )


def draw_noise(seed: int, size: tuple[int, int]) -> Float[Tensor, "2 height width"]:
    """Uniform noise between -1 and 1 for `elastic_field`; on the CPU, so that a seed means the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, *size, generator=generator)
    return 2 * noise - 1


def change_gamma(
    image: Float[Tensor, "*channel height width"],
    gamma: float | Float[Tensor, ""],
) -> Float[Tensor, "*channel height width"]:
    """Raises intensities, scaled to the image's own range, to the power gamma.

    For an image v with minimum m: `r ((v - m + 1e-5) / r)^gamma + m`, where r is the range, also
    with 1e-5 added. Each channel has its own range.
    """
    low, high = own_range(image)
    span = high - low + SOFTENING
    scaled = (image - low + SOFTENING) / span
    return span * scaled**gamma + low


def own_range(
    image: Float[Tensor, "*channel height width"],
) -> tuple[Float[Tensor, "*channel 1 1"], Float[Tensor, "*channel 1 1"]]:
    """The least and the largest intensity of an image, of each channel by itself."""
    places = (-2, -1)
    return image.amin(places, keepdim=True), image.amax(places, keepdim=True)


def affine_matrix(affine: Affine, size: tuple[int, int]) -> Matrix:
    """The forward map of pixel coordinates (x, y, 1): rotate, translate, shear, then zoom.

    Args:
        affine: The parameters.
        size: Height and width of the slice.
    """
    [matrix] = affine_matrices([affine], size)
    return matrix


def affine_matrices(
    affines: Sequence[Affine],
    size: tuple[int, int],
) -> Float[np.ndarray, "candidate 3 3"]:
    """The matrices of several affine maps: see `affine_matrix`."""
    height, width = size
    turned_about = (height / 2, float(width // 2))  # as published, also where they differ
    centre = (width / 2, height / 2)
    rotations = [_rotation(math.radians(affine.angle), turned_about) for affine in affines]
    translations = [_translation(*affine.shift) for affine in affines]
    shears = [_shear(math.radians(affine.shear)) for affine in affines]
    zooms = [_zoom(affine.zoom, centre) for affine in affines]
    # As one product of stacks: of matrix by matrix most of the time is numpy's own.
    return np.array(zooms) @ np.array(shears) @ np.array(translations) @ np.array(rotations)


def inverse_maps(
    affines: Sequence[Affine],
    size: tuple[int, int],
) -> Float[np.ndarray, "candidate 2 3"]:
    """The first two rows of each map's inverse, which say where an output pixel comes from."""
    inverses = np.linalg.inv(affine_matrices(affines, size))
    return inverses[:, :2]


def elastic_field(
    noise: Float[Tensor, "2 height width"],
    strength: float,
    sigma: float,
) -> Float[Tensor, "2 height width"]:
    """Displacements along (width, height) in pixels.

    Args:
        noise: Uniform noise, as `draw_noise` makes it.
        strength: Factor on the smoothed noise.
        sigma: The Gaussian that smooths it, in pixels.
    """
    height, width = noise.shape[-2:]
    taps = _gaussian(sigma)
    border = len(taps) // 2
    padded = _reflected(noise, border)
    along_width = _smooth(padded, taps, axis=2, size=width)
    along_both = _smooth(along_width, taps, axis=1, size=height)
    return strength * along_both


def _reflected(planes: Tensor, border: int) -> Tensor:
    """Planes with a border of their mirror images, as often as a narrow plane needs."""
    height, width = planes.shape[-2:]
    if border < min(height, width):
        [padded] = F.pad(planes[None], [border] * 4, mode="reflect")
        return padded
    rows = _mirrored(height, border, planes.device)
    columns = _mirrored(width, border, planes.device)
    return planes[:, rows][:, :, columns]


def _mirrored(size: int, border: int, device: torch.device) -> Int[Tensor, "padded"]:
    """The places of a line and of a border on both sides, counted back and forth along the line."""
    places = torch.arange(-border, size + border, device=device)
    turns = max(1, 2 * (size - 1))
    along = places.remainder(turns)
    return torch.minimum(along, turns - along)


def _smooth(
    planes: Tensor,
    taps: tuple[float, ...],
    axis: int,
    size: int,
) -> Tensor:
    """Filters along an axis by a sum of shifted planes.

    For one channel that is several times faster on a CPU than a convolution.
    """
    smooth = planes.narrow(axis, 0, size) * taps[0]
    for offset, tap in enumerate(taps[1:], start=1):
        shifted = planes.narrow(axis, offset, size)
        smooth.add_(shifted, alpha=tap)
    return smooth


@lru_cache(maxsize=8)
def _gaussian(sigma: float) -> tuple[float, ...]:
    """A Gaussian of 2 (2 sigma) + 1 taps that sum to one: 21 for the published sigma of 5."""
    half = max(1, round(2 * sigma))
    distances = torch.arange(-half, half + 1) / sigma
    taps = torch.exp(-0.5 * distances**2)
    normalised = taps / taps.sum()
    return tuple(normalised.tolist())


def warp_grids(
    field: Float[Tensor, "2 height width"],
    inverses: Float[Tensor, "candidate 2 3"],
) -> Float[Tensor, "candidate height width 2"]:
    """For every output pixel, where it comes from, as `grid_sample` wants it (align_corners=False).

    Affine map and elastic deformation are one interpolation here; the published code interpolates
    twice.

    Args:
        field: The elastic deformation, which all candidates share.
        inverses: The first two rows of each candidate's inverse affine matrix.
    """
    height, width = field.shape[-2:]
    columns = _count(width, field)
    rows = _count(height, field)
    x = columns + field[0]
    y = rows[:, None] + field[1]
    for_planes = inverses[..., None, None]
    source_x = _apply(for_planes[:, 0], x, y)
    source_y = _apply(for_planes[:, 1], x, y)
    _to_grid_units(source_x, width)
    _to_grid_units(source_y, height)
    # Planes beside one another: to interleave them would take as long as to sample from them.
    planes = torch.stack([source_x, source_y], dim=1)
    return planes.movedim(1, -1)


def _count(size: int, like: Tensor) -> Float[Tensor, "size"]:
    """Counts from 0, on the device of a tensor."""
    return torch.arange(size, device=like.device, dtype=like.dtype)


def _apply(
    row: Float[Tensor, "candidate 3 1 1"],
    x: Float[Tensor, "height width"],
    y: Float[Tensor, "height width"],
) -> Float[Tensor, "candidate height width"]:
    """One coordinate after each candidate's affine map, whose row of the matrix this is."""
    coordinate = x * row[:, 0]
    coordinate += y * row[:, 1]
    coordinate += row[:, 2]
    return coordinate


def _to_grid_units(
    pixels: Float[Tensor, "candidate height width"],
    size: int,
) -> None:
    """Turns pixel coordinates, in place, into those of `grid_sample`: the image is from -1 to 1."""
    pixels *= 2
    pixels += 1
    pixels /= size
    pixels -= 1


def warp_slice(
    image: Float[Tensor, "*channel height width"],
    masks: Bool[Tensor, "way height width"],
    grids: Float[Tensor, "candidate height width 2"],
    fill: float | Float[Tensor, ""],
) -> tuple[
    Float[Tensor, "candidate *channel height width"],
    Bool[Tensor, "candidate way height width"],
]:
    """Image and masks on each grid, bilinear.

    Args:
        image: The slice.
        masks: The ways in it.
        grids: Where each output pixel comes from, as `warp_grids` says.
        fill: The intensity of what comes from outside the image, which is background.
    """
    height, width = image.shape[-2:]
    above_fill = (image - fill).reshape(-1, height, width)
    as_numbers = masks.to(image.dtype)
    planes = torch.cat([above_fill, as_numbers])
    for_each_grid = planes.expand(len(grids), -1, -1, -1)
    warped = F.grid_sample(
        for_each_grid,
        grids,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    channels = len(above_fill)
    images = warped[:, :channels] + fill
    return images.reshape(-1, *image.shape), warped[:, channels:] > 0.5


Rows = list[list[float]]
"""A matrix row by row."""


def _rotation(angle: float, centre: Point) -> Rows:
    """Counter-clockwise as seen, because rows count downwards."""
    cos = math.cos(angle)
    sin = math.sin(angle)
    x, y = centre
    stays = 1 - cos
    return [
        [cos, sin, stays * x - sin * y],
        [-sin, cos, sin * x + stays * y],
        [0, 0, 1],
    ]


def _translation(x: float, y: float) -> Rows:
    return [
        [1, 0, x],
        [0, 1, y],
        [0, 0, 1.0],
    ]


def _shear(angle: float) -> Rows:
    return [
        [1, -math.sin(angle), 0],
        [0, math.cos(angle), 0],
        [0, 0, 1.0],
    ]


def _zoom(factor: float, centre: Point) -> Rows:
    x, y = centre
    stays = 1 - factor
    return [
        [factor, 0, stays * x],
        [0, factor, stays * y],
        [0, 0, 1.0],
    ]
