"""Predictions from files to files, each on its scan's own grid."""

import gzip
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import nibabel
import numpy as np

from fsseg.data.datasets.labels import as_whole_numbers, value_problems
from fsseg.data.datasets.nifti import ScanFile, read_channels, read_header_of, read_nifti
from fsseg.data.datasets.scans import header_warnings, image_problems, pair_problems
from fsseg.data.grids import find_grid
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.model.inputs import scan_channels_of
from fsseg.prediction.predictor import Predictor
from fsseg.system.files import replacing
from fsseg.system.names import file_name, first_alike, within
from fsseg.system.progress import Progress, Silent

PLACE = (
    "pixdim",
    "qform_code",
    "sform_code",
    *("quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""The fields of a NIfTI header that say where its voxels are."""

LENGTHS_ONLY = 7
"""The bits of a header's units that say how long its lengths are; the others are those of time."""


def read_volume(
    image: str | Path | Sequence[str | Path],
    labels: str | Path | None = None,
    *,
    channels: int = 1,
) -> Volume:
    """Reads a scan from NIfTI files, slices first along its most anisotropic axis.

    Args:
        image: The file of its image; of a scan with several channels also the files of them all, in order.
        labels: The file of its labels, if it has some.
        channels: Channels along the fourth axis of the image, where one file has several.

    Raises:
        DataError: A file cannot be used, with all that is wrong with it.

    Example:
        support = fsseg.read_volume("a.nii.gz", "a_labels.nii.gz")
    """
    volume, _ = _read(files_of(image), Path(labels) if labels else None, channels)
    return volume


def files_of(scan: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of a scan: several in a list, or joined by commas as the shell has them."""
    if not isinstance(scan, str | Path):
        return [Path(file) for file in scan]
    if "," in str(scan) and not Path(scan).exists():
        return [Path(file.strip()) for file in str(scan).split(",")]
    return [Path(scan)]


def predict_files(
    predictor: Predictor,
    support: str | Path,
    support_labels: str | Path,
    scans: Sequence[str | Path],
    out: str | Path,
    *,
    slices: Sequence[int] | None = None,
    probabilities: bool = False,
    progress: Progress | None = None,
) -> list[tuple[Path, dict[str, int]]]:
    """Segments scans and writes their label maps as `<scan>_labels.nii.gz`.

    Args:
        predictor: The predictor, as `fsseg.Predictor.load` gives it.
        support: A scan with labelled slices. Of a scan with several channels, one file with a fourth axis, or the files of
            the channels joined by commas.
        support_labels: Its labels.
        scans: The scans to segment, likewise; of several files the first gives its name.
        out: The folder to write to.
        slices: Which slices of the support to use; the fullest when omitted.
        probabilities: Whether to write `<scan>_probability_<class>.nii.gz` as well, in float32.
        progress: Follows the scans.

    Returns:
        The files of labels, each with the number of voxels by class.

    Raises:
        DataError: A file cannot be used; all files are looked at before any is written.
    """
    progress = progress or Silent()
    channels_of_scans = [files_of(scan) for scan in scans]
    files = [paths[0] for paths in channels_of_scans]
    folder = Path(out)
    read = [*files_of(support), Path(support_labels), *chain.from_iterable(channels_of_scans)]
    _require_own_files(files, folder, read)
    channels = scan_channels_of(predictor.segmenter.backbone)
    shown, warnings = _read(files_of(support), Path(support_labels), channels)
    fitted = predictor.fit(shown, slices=slices)
    for file, paths in zip(files, channels_of_scans):
        volume, of_file = _read(paths, None, channels)
        predictor.require_channels(volume)
        warnings += [*of_file, *_range_warnings(volume, shown, file)]
    for sentence in warnings:
        progress.note(f"warning: {sentence}")
    written = []
    for paths in progress.track(channels_of_scans, "scans", len(files)):
        file = paths[0]
        volume = read_volume(paths, channels=channels)
        prediction = fitted.predict(volume)
        target = _labels_file(folder, file)
        _save(target, file, volume.grid.to_file(prediction.labels))
        counts = {}
        for value, name in fitted.classes.items():
            counts[name] = int((prediction.labels == value).sum())
            if probabilities:
                beside = within(folder, f"{volume.case}_probability_{file_name(name)}.nii.gz")
                _save(beside, file, volume.grid.to_file(prediction.probability(value)))
        written.append((target, counts))
    return written


def _require_own_files(scans: Sequence[Path], folder: Path, files: Sequence[Path]) -> None:
    """Checks that every scan has a label map of its own, and that none takes the place of what is read.

    Raises DataError otherwise, or where the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder}: is a file, expected a folder to write to; choose another with --out"
        )
    pair = first_alike(_stem(scan) for scan in scans)
    if pair is not None:
        first, second = pair
        called = first if first == second else f"{first} and {second}"
        raise DataError(
            f"predict: two scans are called {called}, expected names of their own; rename one"
        )
    read = {path.resolve() for path in files}
    for scan in scans:
        target = _labels_file(folder, scan)
        if target.resolve() in read:
            raise DataError(
                f"{target}: is read, and would be the label map of {scan}; expected another place for it, choose a "
                "folder with --out"
            )


def _labels_file(folder: Path, scan: Path) -> Path:
    return folder / f"{_stem(scan)}_labels.nii.gz"


def _read(images: list[Path], labels: Path | None, channels: int) -> tuple[Volume, list[str]]:
    """A scan, and a sentence for what is strange in its files but can be used."""
    image = images[0]
    scan, *others = _channels_in(images, channels)
    problems = list(image_problems(scan))
    for other in others:
        problems += image_problems(other)
        if other.path != scan.path:
            problems += pair_problems(scan, other, "channel")
    warnings = [f"{image}: {sentence}" for sentence in header_warnings(scan)]
    marked = None
    if labels is not None:
        marked = read_nifti(labels)
        problems += [*pair_problems(scan, marked), *value_problems(marked)]
    if problems:
        raise DataError("\n".join(problems))
    grid = find_grid(scan.affine, scan.voxel_sizes)
    slices, height, width = (scan.voxel_sizes[axis] for axis in grid.axes)
    spacing = (slices, height, width)
    each = [grid.from_file(file.voxels.astype(np.float32)) for file in (scan, *others)]
    voxels = np.stack(each, axis=1) if others else each[0]
    values = None if marked is None else grid.from_file(as_whole_numbers(marked))
    return Volume(_stem(image), voxels, values, spacing, grid), warnings


def _channels_in(images: list[Path], channels: int) -> list[ScanFile]:
    """The image of each channel, from a file of each or from one with all of them."""
    if len(images) == 1 and channels > 1:
        return read_channels(
            images[0],
            [str(number) for number in range(channels)],
            "give a file with all of them, or the files of the channels joined by commas",
        )
    return [read_nifti(path) for path in images]


def _save(
    path: Path,
    scan: Path,
    voxels: np.ndarray,
) -> None:
    """Writes voxels that lie as those of a scan's file, all or nothing."""
    image = nibabel.Nifti1Image(
        voxels,
        *_place_of(scan),
        dtype=voxels.dtype,
    )
    if not image.header["xyzt_units"]:
        image.header.set_xyzt_units("mm")
    with (
        replacing(path) as unfinished,
        unfinished.open("wb") as file,
        # Without the name of the unfinished file and the time, so that equal maps are equal files.
        gzip.GzipFile("", "wb", 1, file, mtime=0) as packed,
    ):
        image.to_stream(packed)


def _place_of(scan: Path) -> tuple[np.ndarray | None, nibabel.Nifti1Header | None]:
    """Affine or header that say where a scan's voxels lie as its own file does: programs differ in what they read of it."""
    stored = read_header_of(scan)
    if stored is None:
        return read_nifti(scan).affine, None
    header = nibabel.Nifti1Header()
    for name in PLACE:
        header[name] = stored[name]
    header["xyzt_units"] = stored["xyzt_units"] & LENGTHS_ONLY
    return None, header


def _range_warnings(query: Volume, support: Volume, path: Path) -> Iterator[str]:
    """Says so where intensities have little in common, which suggests another modality, or other units."""
    low, high = np.percentile(query.image, [1, 99])
    first, last = np.percentile(support.image, [1, 99])
    shared = min(high, last) - max(low, first)
    apart = shared < 0.1 * min(high - low, last - first)
    ratio = (high - low) / max(last - first, 1e-12)
    if apart or not 0.1 < ratio < 10:
        yield (
            f"{path}: its intensities go from {low:g} to {high:g}, those of the support "
            f"from {first:g} to {last:g}; is it the same modality?"
        )


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
