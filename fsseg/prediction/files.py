"""Predictions from files to files, each on its scan's own grid."""

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from fsseg.data.datasets.nifti import ScanFile, image_problems, pair_problems, read_nifti
from fsseg.data.grids import find_grid
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.prediction.predictor import Fitted, Prediction, Predictor
from fsseg.system.files import replacing
from fsseg.system.progress import Progress, Silent

PLACE = (
    "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""The fields of a NIfTI header that say where its voxels are."""


def read_volume(image: str | Path, labels: str | Path | None = None) -> Volume:
    """A scan from NIfTI files, slices first along its most anisotropic axis; raises DataError if it cannot be used."""
    image = Path(image)
    scan, marked = read_nifti(image), read_nifti(Path(labels)) if labels else None
    problems = [*image_problems(scan), *(pair_problems(scan, marked) if marked else [])]
    if marked is not None and (marked.voxels != marked.voxels.round()).any():
        problems.append(
            f"{labels}: has values between whole numbers, expected label values; round or resample it"
        )
    if problems:
        raise DataError("\n".join(problems))
    grid = find_grid(scan.affine, scan.voxel_sizes)
    spacing = tuple(scan.voxel_sizes[axis] for axis in grid.axes)
    values = None if marked is None else grid.from_file(_whole(marked))
    return Volume(
        _stem(image), grid.from_file(scan.voxels.astype(np.float32)), values, spacing, grid
    )


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
        predictor: The predictor, as `fsseg.load_predictor` or `fsseg.Segmenter.load` gives it.
        support: A scan with labelled slices.
        support_labels: Its labels.
        scans: The scans to segment.
        out: The folder to write to.
        slices: Which slices of the support to use; the fullest when omitted.
        probabilities: Whether to write `<scan>_probability_<class>.nii.gz` as well, in float32.
        progress: Follows the scans.

    Returns:
        The files of labels, each with the number of voxels by class.

    Raises:
        DataError: A file cannot be used; all files are looked at before any is written.
    """
    progress, scans = progress or Silent(), [Path(path) for path in scans]
    names = [_stem(path) for path in scans]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(
            f"predict: two scans are called {twice[0]}, expected names of their own; rename one"
        )
    shown = read_volume(support, support_labels)
    fitted = predictor.fit(shown, slices=slices)
    for path in scans:
        _warn_of_range(read_volume(path), shown, path, progress)
    written = []
    for path in progress.track(scans, "scans", len(scans)):
        volume = read_volume(path)
        written.append(
            _write(fitted, path, volume, fitted.predict(volume), Path(out), probabilities)
        )
    return written


def _write(
    fitted: Fitted, scan: Path, volume: Volume, found: Prediction, out: Path, probabilities: bool
) -> tuple[Path, dict[str, int]]:
    target = out / f"{volume.case}_labels.nii.gz"
    _save(target, scan, volume.grid.to_file(found.labels))
    if probabilities:
        for value, name in fitted.classes.items():
            share = volume.grid.to_file(found.probability(value))
            _save(out / f"{volume.case}_probability_{name}.nii.gz", scan, share)
    return target, {
        name: int((found.labels == value).sum()) for value, name in fitted.classes.items()
    }


def _save(path: Path, scan: Path, voxels: np.ndarray) -> None:
    """Writes voxels that lie as those of a scan's file."""
    image = nibabel.Nifti1Image(voxels, *_place_of(scan), dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    with replacing(path) as unfinished:
        unfinished.write_bytes(b"")
        whole = unfinished.with_name(f"{unfinished.name}.nii.gz")
        nibabel.save(image, whole)
        whole.replace(unfinished)


def _place_of(scan: Path) -> tuple[np.ndarray | None, nibabel.Nifti1Header | None]:
    """Where a scan's voxels lie, in the words of its own file, since programs differ in which of them they read."""
    file = nibabel.load(scan)
    if not isinstance(file.header, nibabel.Nifti1Header):
        return file.affine, None
    header = nibabel.Nifti1Header()
    for name in PLACE:
        header[name] = file.header[name]
    return None, header


def _warn_of_range(query: Volume, support: Volume, path: Path, progress: Progress) -> None:
    """Intensities that have little in common suggest another modality, or other units."""
    (low, high), (first, last) = (
        np.percentile(volume.image, [1, 99]) for volume in (query, support)
    )
    shared = min(high, last) - max(low, first)
    if (
        shared < 0.1 * min(high - low, last - first)
        or not 0.1 < (high - low) / max(last - first, 1e-12) < 10
    ):
        progress.note(
            f"warning: {path}: its intensities go from {low:g} to {high:g}, those of the support from {first:g} to {last:g}; "
            "is it the same modality?"
        )


def _whole(file: ScanFile) -> np.ndarray:
    """Label values as whole numbers of the smallest type that holds them, if the file has others."""
    if np.issubdtype(file.voxels.dtype, np.integer):
        return file.voxels
    return file.voxels.astype(np.min_scalar_type(int(file.voxels.max(initial=0))))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
