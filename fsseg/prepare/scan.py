"""A scan while it is being prepared: voxels in the order of a NIfTI file, and where they are. No torch, no SimpleITK."""

from dataclasses import dataclass, replace
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Num

from fsseg.errors import DataError

SHEAR = 1e-3
"""Axes whose cosines differ from those of right angles by no more are at right angles."""

TOP = 99.5
"""The percentile at which MR intensities are clipped."""


@dataclass(frozen=True)
class Scan:
    """Voxels and their place.

    Attributes:
        voxels: In the order of a NIfTI file: x fastest in the scanner's raster, then rows, then slices.
        affine: Maps voxel indices to mm, axes to the right, front and top (RAS), as in NIfTI.
    """

    voxels: Num[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel sizes along the axes of the file, mm."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def directions(self) -> Float[np.ndarray, "3 3"]:
        """Unit vectors of the axes, one a column."""
        return self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not at right angles."""
        return bool(np.abs(self.directions.T @ self.directions - np.eye(3)).max() > SHEAR)

    def with_voxels(self, voxels: Num[np.ndarray, "x y z"]) -> "Scan":
        """Other voxels at the same place."""
        return replace(self, voxels=voxels)

    def flip_rows(self) -> "Scan":
        """The rows in the opposite order; every voxel stays where it is in the scanner."""
        turn = np.diag([1.0, -1.0, 1.0, 1.0])
        turn[1, 3] = self.voxels.shape[1] - 1
        return Scan(self.voxels[:, ::-1], self.affine @ turn)

    def geometry(self) -> dict[str, Any]:
        """Shape, spacing (mm) and axis codes, for a manifest."""
        codes = "".join(code or "?" for code in nibabel.aff2axcodes(self.affine))
        return {
            "shape": list(self.voxels.shape),
            "spacing": [round(mm, 5) for mm in self.spacing],
            "axes": codes,
        }


def clip_top(scan: Scan, as_published: bool = False) -> tuple[Scan, float]:
    """Intensities above the 99.5th percentile of the volume set to it, and that percentile.

    As published, integers stay integers and the percentile is truncated. Otherwise voxels come as float64.
    """
    limit = float(np.percentile(scan.voxels, TOP))
    if as_published and scan.voxels.dtype.kind in "iu":
        limit = int(limit)
        return scan.with_voxels(np.minimum(scan.voxels, scan.voxels.dtype.type(limit))), float(
            limit
        )
    return scan.with_voxels(np.minimum(scan.voxels.astype(np.float64), limit)), limit


def as_integers(voxels: Num[np.ndarray, "x y z"]) -> Num[np.ndarray, "x y z"]:
    """Rounded intensities, as int16 where they fit and as int32 elsewhere."""
    rounded = np.rint(voxels)
    small = np.iinfo(np.int16).min <= rounded.min() and rounded.max() <= np.iinfo(np.int16).max
    return rounded.astype(np.int16 if small else np.int32)


def crop_or_pad(scan: Scan, size: int, fill: float, keep_origin: bool = False) -> Scan:
    """The middle of each slice, `size` voxels wide and high; voxels beyond the scan are `fill`.

    The centre is voxel N // 2. `keep_origin` leaves the affine alone, as the published files do: a quirk, their
    origin is that of the uncropped scan.
    """
    starts = [length // 2 - size // 2 for length in scan.voxels.shape[:2]]
    result = np.full((size, size, scan.voxels.shape[2]), fill, dtype=scan.voxels.dtype)
    kept = scan.voxels[tuple(slice(max(0, start), start + size) for start in starts)]
    left, top = (max(0, -start) for start in starts)
    result[left : left + kept.shape[0], top : top + kept.shape[1]] = kept
    if keep_origin:
        return scan.with_voxels(result)
    return Scan(result, shift(scan.affine, (*starts, 0)))


def shift(
    affine: Float[np.ndarray, "4 4"], start: tuple[int, int, int]
) -> Float[np.ndarray, "4 4"]:
    """The affine of a scan whose first voxel is this voxel of another."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.array(start) + affine[:3, 3]
    return moved


def refuse_shear(scan: Scan, where: object) -> None:
    """Raises DataError for axes that are not at right angles, which cannot be resampled to square pixels."""
    if scan.is_sheared:
        raise DataError(
            f"{where}: its axes are not at right angles (a sheared affine, for example of a tilted gantry), expected "
            "right angles; SimpleITK refuses such directions, resample the scan to a rectangular grid first"
        )
