"""Resampling along a scan's own axes, by SimpleITK: cleanly, or exactly as the published preprocessing does."""

import math
from types import ModuleType
from typing import Any

import numpy as np

from fsseg.errors import DataError
from fsseg.prepare.scan import Scan

LPS = np.diag([-1.0, -1.0, 1.0])
"""Between the axes of NIfTI (right, front, top) and those of ITK and DICOM (left, back, top)."""

Spacing = tuple[float, float, float]


def itk() -> ModuleType:
    """Returns SimpleITK, without its own messages on standard error; raises DataError where it is not installed."""
    try:
        import SimpleITK
    except ImportError:
        raise DataError(
            "fsseg prepare: needs SimpleITK, which is not installed; install fsseg[prepare]"
        ) from None
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def resample(scan: Scan, spacing: Spacing, as_published: bool = False) -> Scan:
    """Returns the scan at another spacing (mm), linear, starting at the same first voxel.

    Args:
        scan: With axes at right angles (see refuse_shear).
        spacing: Along x, y, z, mm.
        as_published: One sample more than fits, 0 outside the volume, and integers truncated toward zero. Otherwise
            float64 samples, all of them inside the volume.
    """
    voxels = scan.voxels if as_published else scan.voxels.astype(np.float64)
    return _resampled(scan.with_voxels(voxels), spacing, as_published)


def resample_labels(scan: Scan, spacing: Spacing, as_published: bool = False) -> Scan:
    """Returns labels at another spacing: each is resampled as a mask, linear, and kept where it is above one half.

    A voxel that no label fills by more than half is 0, in the published files too.
    """
    labels: Scan | None = None
    for value in np.unique(scan.voxels):
        mask = (scan.voxels == value).astype(np.float32)
        share = _resampled(scan.with_voxels(mask), spacing, as_published)
        if labels is None:
            background = np.zeros(share.voxels.shape, dtype=scan.voxels.dtype)
            labels = share.with_voxels(background)
        labels.voxels[share.voxels > 0.5] = value
    assert labels is not None, "a scan has at least one value"
    return labels


def _resampled(scan: Scan, spacing: Spacing, as_published: bool) -> Scan:
    size_of = _published_size if as_published else _size_inside
    axes = zip(scan.voxels.shape, scan.spacing, spacing)
    sizes = [size_of(length, old, new) for length, old, new in axes]
    sitk = itk()
    image = _to_itk(scan)
    resampler = sitk.ResampleImageFilter()
    resampler.SetNumberOfThreads(1)  # cases run in parallel instead
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetOutputOrigin(image.GetOrigin())
    resampler.SetOutputDirection(image.GetDirection())
    resampler.SetOutputSpacing(spacing)
    resampler.SetSize(sizes)
    resampler.SetDefaultPixelValue(0.0)
    resampled = resampler.Execute(image)
    factors = [new / old for new, old in zip(spacing, scan.spacing)]
    affine = scan.affine @ np.diag([*factors, 1.0])
    return Scan(sitk.GetArrayFromImage(resampled).T, affine)


def _published_size(length: int, old: float, new: float) -> int:
    """Always at least one sample more than fits; the rounding keeps 448 / 1.75 from being 255.99999."""
    return int(round(length * old / new, 9) + 1)


def _size_inside(length: int, old: float, new: float) -> int:
    """Samples whose centre lies within the voxels of the volume; the last may lie in the outer half of the last one."""
    to_last_centre = length - 0.5 - 1e-6
    return max(1, math.ceil(to_last_centre * old / new))


def _to_itk(scan: Scan) -> Any:
    sitk = itk()
    image = sitk.GetImageFromArray(np.ascontiguousarray(scan.voxels.T))
    image.SetSpacing(scan.spacing)
    origin = LPS @ scan.affine[:3, 3]
    directions = LPS @ scan.directions
    image.SetOrigin(origin.tolist())
    image.SetDirection(directions.ravel().tolist())
    return image
