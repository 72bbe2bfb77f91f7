"""Where the voxels of a file lie in space: whether an affine can be used, and whether two are the same place.

Reading, checking, running, predicting and preparing ask here, so that all of them answer alike.
"""

from itertools import product

import nibabel
import numpy as np
from jaxtyping import Float

from fsseg.errors import DataError

Affine = Float[np.ndarray, "4 4"]

SAME_PLACE = 0.25
"""Grids whose corners lie no further apart than this, in voxels, are one grid.

Headers that were rounded or written by another program differ by some hundredths; a shift by half a voxel, the mistake of
taking corners for centres, is found.
"""

SHEAR = 1e-3
"""Axes whose cosines differ from those of right angles by no more are at right angles."""

SHORTEST = 1e-6
"""Voxels are longer than this (mm): below a nanometre a header is wrong."""

LONGEST = 1e4
"""Voxels are shorter than this (mm): above ten metres a header is wrong."""


def distance_in_voxels(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """Returns how far apart two grids are at the corners of a volume, at most.

    Args:
        first: Voxel indices to a place in space.
        second: The same of the other grid.
        shape: Voxels along the three axes.

    Returns:
        The largest distance along an axis of the first grid, in its voxels; NaN where an affine has no finite numbers.
    """
    ends = [(0, count - 1) for count in shape]
    corners = np.array([(*corner, 1) for corner in product(*ends)], dtype=np.float64)
    apart = corners @ (second - first).T
    in_voxels = np.linalg.solve(first[:3, :3], apart[:, :3].T)
    return float(np.abs(in_voxels).max())


def voxel_sizes(affine: Affine) -> Float[np.ndarray, "3"]:
    """Returns the distance of neighbouring voxels along each axis."""
    with np.errstate(over="ignore"):  # a header may hold any number
        return np.linalg.norm(affine[:3, :3], axis=0)


def directions(affine: Affine) -> Float[np.ndarray, "3 3"]:
    """Returns unit vectors of the axes, one a column."""
    return affine[:3, :3] / voxel_sizes(affine)


def is_sheared(affine: Affine) -> bool:
    """Returns True where the axes are not at right angles, as in scans of a tilted gantry."""
    unit_vectors = directions(affine)
    cosines = unit_vectors.T @ unit_vectors
    return bool(np.abs(cosines - np.eye(3)).max() > SHEAR)


def check_affine(where: object, affine: Affine) -> None:
    """Raises DataError for an affine that has no inverse, or voxels of an impossible size; `where` is named in the message."""
    if not np.isfinite(affine).all() or not voxel_sizes(affine).all():
        raise DataError(
            f"{where}: its affine maps voxels to no place in space, expected an invertible one; repair the header"
        )
    sizes = voxel_sizes(affine)
    if sizes.min() < SHORTEST or sizes.max() > LONGEST:
        raise DataError(
            f"{where}: its voxels are {millimetres(sizes)} mm by the affine, expected sizes from {SHORTEST:g} to "
            f"{LONGEST:g} mm; repair the header"
        )
    if abs(np.linalg.det(directions(affine))) < SHEAR:
        raise DataError(
            f"{where}: its affine maps voxels to no place in space, expected axes of three directions; repair the header"
        )


def axis_codes(affine: Affine) -> str:
    """Returns where the axes of a file run, as in "LPS"; "?" for one that runs nowhere."""
    return "".join(code or "?" for code in nibabel.aff2axcodes(affine))


def millimetres(sizes: "np.ndarray | tuple[float, ...]") -> str:
    """Returns lengths for people, as in "1.5 x 1.5 x 6"."""
    return " x ".join(f"{size:.3g}" for size in sizes)
