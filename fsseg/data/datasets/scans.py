"""The scan of a case: its image and labels together, and everything that can be wrong with them."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from fsseg.data.datasets.description import Description
from fsseg.data.datasets.header import shape_in_words
from fsseg.data.datasets.labels import label_problems
from fsseg.data.datasets.nifti import ScanFile
from fsseg.data.geometry import (
    SAME_PLACE,
    axis_codes,
    distance_in_voxels,
    is_sheared,
    millimetres,
    voxel_sizes,
)
from fsseg.data.grids import find_grid
from fsseg.data.volume import Volume
from fsseg.errors import DataError

LARGEST_INTENSITY = float(np.finfo(np.float32).max)
"""Intensities are computed with in single precision."""

USUAL_SIZES = (0.001, 100.0)
"""Voxels outside these sizes (mm) are rather those of a header with another unit."""

SAME_SIZE = 0.01
"""The share by which voxel sizes of a header and of its affine may differ."""


def image_problems(image: ScanFile) -> Iterator[str]:
    """Yields a sentence for what makes an image unusable."""
    voxels = image.voxels
    low = float(voxels.min())
    high = float(voxels.max())
    if not np.isfinite([low, high]).all():
        count = int((~np.isfinite(voxels)).sum())
        yield f"{image.where}: {count} voxels are NaN or infinite, expected finite intensities; repair the image"
    elif max(-low, high) > LARGEST_INTENSITY:
        yield (
            f"{image.where}: its intensities go from {low:g} to {high:g}, expected single precision (up to "
            f"{LARGEST_INTENSITY:.2g}); repair the image"
        )
    elif low == high:
        yield f"{image.where}: every voxel is {low:g}, expected an image; repair or remove the case"


def pair_problems(image: ScanFile, labels: ScanFile, what: str = "labels") -> Iterator[str]:
    """Yields a sentence for what keeps a label map, or another channel, from lying on its image."""
    shape = image.voxels.shape
    if labels.voxels.shape != shape:
        yield (
            f"{labels.path}: has shape {shape_in_words(labels.voxels.shape)}, expected {shape_in_words(shape)} as "
            f"{image.path.name}; resample the {what} to the image's grid"
        )
        return
    distance = distance_in_voxels(image.affine, labels.affine, shape)
    if distance <= SAME_PLACE:
        return
    codes = axis_codes(labels.affine)
    expected = axis_codes(image.affine)
    if codes != expected:
        yield (
            f"{labels.path}: its axes run towards {codes}, expected {expected} as those of {image.path.name}; "
            f"turn the {what} as the image, or copy the image's header if only the header is wrong"
        )
    else:
        yield (
            f"{labels.path}: its affine differs from that of {image.path.name}, expected the same grid within "
            f"{SAME_PLACE:g} voxels, got {distance:.3g} at the corners; resample the {what} to the image or copy the image's "
            "header"
        )


def scan_problems(
    images: Sequence[ScanFile], labels: ScanFile, described: Description
) -> list[str]:
    """Returns a sentence for everything that makes a scan unusable; there is an image for each channel."""
    first, *others = images
    problems: list[str] = []
    for image in images:
        problems += image_problems(image)
    for other in others:
        if other.path != first.path:
            problems += pair_problems(first, other, f"channel {other.channel}")
    return [*problems, *label_problems(labels, described), *pair_problems(first, labels)]


def header_warnings(file: ScanFile) -> Iterator[str]:
    """Yields a sentence, without the file's name, for what is strange in a header but can be used."""
    yield from file.remarks
    by_affine = voxel_sizes(file.affine)
    stored = millimetres(file.voxel_sizes)
    if not USUAL_SIZES[0] <= min(file.voxel_sizes) <= max(file.voxel_sizes) <= USUAL_SIZES[1]:
        yield f"its voxels are {stored} mm; is the unit of length in its header right?"
    if not np.allclose(by_affine, file.voxel_sizes, rtol=SAME_SIZE):
        yield (
            f"its header says voxels of {stored} mm and its affine {millimetres(by_affine)} mm; "
            "the header's are used"
        )
    elif is_sheared(file.affine):
        yield (
            "its axes are not at right angles (a sheared affine, as of a tilted gantry); they are taken as if they were, so "
            "volumes and distances are wrong: resample it to a rectangular grid"
        )
    elif file.other_affine is not None:
        distance = distance_in_voxels(file.affine, file.other_affine, file.voxels.shape)
        if not distance <= SAME_PLACE:
            yield (
                f"its qform puts it {distance:.3g} voxels from where its sform does; the sform is used, other programs take "
                "the qform: make them the same"
            )


def pair_warnings(image: ScanFile, labels: ScanFile) -> Iterator[str]:
    """Yields a sentence for what is strange in the headers of a pair; labels made of an image share its strangeness."""
    of_image = list(header_warnings(image))
    for sentence in of_image:
        yield f"{image.path}: {sentence}"
    for sentence in header_warnings(labels):
        if sentence not in of_image:
            yield f"{labels.path}: {sentence}"


def make_volume(
    case: str, images: Sequence[ScanFile], labels: ScanFile, described: Description
) -> Volume:
    """Returns the scan, slices first, each channel clipped, and with the classes' numbers for labels.

    Raises:
        DataError: Nothing of the image is left once it is clipped.
    """
    first = images[0]
    grid = find_grid(
        first.affine, first.voxel_sizes, axis=described.axis, orientation=described.orientation
    )
    across, row, column = (first.voxel_sizes[axis] for axis in grid.axes)
    channels = []
    for image in images:
        clipped = described.intensity.clip(grid.from_file(image.voxels))
        _require_contrast(image, clipped, described)
        channels.append(clipped)
    numbered = _number_classes(labels.voxels, described)
    several = len(images) > 1
    return Volume(
        case,
        image=np.stack(channels, axis=1) if several else channels[0],
        labels=grid.from_file(numbered),
        spacing=(across, row, column),
        grid=grid,
        channels=described.channel_names if several else (),
    )


def load_volume(
    case: str, images: Sequence[ScanFile], labels: ScanFile, described: Description
) -> Volume:
    """Returns the scan of a case; raises DataError listing everything that is wrong with its files."""
    problems = scan_problems(images, labels, described)
    if problems:
        raise DataError("\n".join(problems))
    return make_volume(case, images, labels, described)


def _require_contrast(
    image: ScanFile, clipped: Float[np.ndarray, "slice height width"], described: Description
) -> None:
    if clipped.min() < clipped.max():
        return
    rules = described.intensity
    rule = f"window {list(rules.window)}" if rules.window else f"percentiles {rules.percentiles}"
    raise DataError(
        f"{image.where}: every voxel is {clipped.flat[0]:g} once clipped to the {rule}, expected an image; its intensities "
        f"go from {image.voxels.min():g} to {image.voxels.max():g}, correct [intensity] in the description"
    )


def _number_classes(labels: np.ndarray, described: Description) -> UInt8[np.ndarray, "x y z"]:
    numbers = described.numbers
    numbered = np.zeros(labels.shape, dtype=np.uint8)
    for name, values in described.class_values.items():
        numbered[np.isin(labels, values)] = numbers[name]
    return numbered
