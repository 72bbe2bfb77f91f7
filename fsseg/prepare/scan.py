"""A scan while it is being prepared: voxels in the order of a NIfTI file, and where they are. No torch, no SimpleITK."""

import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Num

from fsseg.data.geometry import axis_codes, directions, is_sheared, voxel_sizes
from fsseg.errors import DataError

TOP = 99.5
"""The percentile at which MR intensities are clipped."""

Voxels = Num[np.ndarray, "x y z *channel"]
Affine = Float[np.ndarray, "4 4"]


@dataclass(frozen=True)
class Scan:
    """Voxels and their place in the scanner.

    Attributes:
        voxels: In the order of a NIfTI file: x fastest in the scanner's raster, then rows, then slices; then channels, where
            there are several.
        affine: Maps voxel indices to mm, axes to the right, front and top (RAS), as in NIfTI.
    """

    voxels: Voxels
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel sizes along the axes of the file, mm."""
        x, y, z = voxel_sizes(self.affine)
        return float(x), float(y), float(z)

    @property
    def directions(self) -> Float[np.ndarray, "3 3"]:
        """Unit vectors of the axes, one a column."""
        return directions(self.affine)

    @property
    def is_sheared(self) -> bool:
        """True where the axes are not at right angles."""
        return is_sheared(self.affine)

    def with_voxels(self, voxels: Voxels) -> "Scan":
        """Returns other voxels at the same place."""
        return replace(self, voxels=voxels)

    def flip_rows(self) -> "Scan":
        """Returns the rows in the opposite order; every voxel stays where it is in the scanner."""
        turn = np.diag([1.0, -1.0, 1.0, 1.0])
        turn[1, 3] = self.voxels.shape[1] - 1
        turned = self.voxels[:, ::-1]
        return Scan(turned, self.affine @ turn)

    def geometry(self) -> dict[str, Any]:
        """Returns shape, spacing (mm) and axis codes, for a manifest."""
        return {
            "shape": list(self.voxels.shape[:3]),
            "spacing": [round(mm, 5) for mm in self.spacing],
            "axes": axis_codes(self.affine),
        }


def clip_top(scan: Scan, as_published: bool = False) -> tuple[Scan, float]:
    """Returns the scan with intensities above the 99.5th percentile of the volume set to it, and that percentile.

    As published, integers stay integers and the percentile is truncated. Otherwise voxels come as float64.
    """
    limit = float(np.percentile(scan.voxels, TOP))
    if as_published and scan.voxels.dtype.kind in "iu":
        limit = int(limit)
        same_type = scan.voxels.dtype.type(limit)
        clipped = np.minimum(scan.voxels, same_type)
    else:
        voxels = scan.voxels.astype(np.float64)
        clipped = np.minimum(voxels, limit)
    return scan.with_voxels(clipped), float(limit)


def as_integers(voxels: Voxels) -> Voxels:
    """Returns rounded intensities, as int16 where they fit and as int32 elsewhere."""
    rounded = np.rint(voxels)
    small = np.iinfo(np.int16)
    low = rounded.min()
    high = rounded.max()
    fits = small.min <= low and high <= small.max
    return rounded.astype(np.int16 if fits else np.int32)


def crop_or_pad(scan: Scan, size: int, fill: float, keep_origin: bool = False) -> Scan:
    """Returns the middle of each slice.

    Args:
        scan: The scan; the centre of a slice is voxel N // 2.
        size: Width and height of the result.
        fill: Value of voxels beyond the scan.
        keep_origin: Leave the affine alone, as the published files do: a quirk, their origin is that of the uncropped
            scan.
    """
    width, height, slices = scan.voxels.shape
    start_x = width // 2 - size // 2
    start_y = height // 2 - size // 2
    columns = slice(max(0, start_x), start_x + size)
    rows = slice(max(0, start_y), start_y + size)
    kept = scan.voxels[columns, rows]
    kept_width, kept_height, _ = kept.shape
    left = max(0, -start_x)
    top = max(0, -start_y)
    shape = (size, size, slices)
    result = np.full(shape, fill, dtype=scan.voxels.dtype)
    result[left : left + kept_width, top : top + kept_height] = kept
    if keep_origin:
        return scan.with_voxels(result)
    return Scan(result, shift(scan.affine, (start_x, start_y, 0)))


def shift(affine: Affine, start: tuple[int, int, int]) -> Affine:
    """Returns the affine of a scan whose first voxel is this voxel of another."""
    steps = affine[:3, :3]
    moved = affine.copy()
    moved[:3, 3] = steps @ np.array(start) + affine[:3, 3]
    return moved


def refuse_shear(scan: Scan, where: object) -> None:
    """Raises DataError for axes that are not at right angles, which cannot be resampled to square pixels."""
    if scan.is_sheared:
        raise DataError(
            f"{where}: its axes are not at right angles (a sheared affine, for example of a tilted gantry), expected "
            "right angles; SimpleITK refuses such directions, resample the scan to a rectangular grid first"
        )


def write_nifti(path: Path, scan: Scan) -> None:
    """Writes a compressed NIfTI file whose bytes depend on nothing but the scan."""
    voxels = scan.voxels
    image = nibabel.Nifti1Image(voxels, scan.affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(scan.affine, code=1)
    if scan.is_sheared:  # a quaternion holds no shear; such a file has the affine only
        image.set_qform(None, code=0)
    else:
        image.set_qform(scan.affine, code=1)
    content = image.to_bytes()
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed,
    ):
        packed.write(content)
