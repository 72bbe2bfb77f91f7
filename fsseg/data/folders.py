"""Datasets in folders of NIfTI files: the preprocessed CHAOS benchmark, and anybody's own scans."""

import re
import tomllib
import zlib
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
from jaxtyping import Int32
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsseg.errors import DataError
from fsseg.interfaces import Dataset, StoredSupervoxels
from fsseg.options import explain
from fsseg.types import Volume

Root = Annotated[str | None, Field(description="the dataset's folder; on the shell, --data")]


class PairedFiles:
    """Image and label files that are paired by the case's id, never by their position in a listing.

    Args:
        root: The dataset's folder.
        image: The images' path below root, with `{case}` for the id.
        label: The labels' path below root, likewise.
    """

    def __init__(self, root: Path, image: str, label: str) -> None:
        self.root, self.image, self.label = root, image, label
        if not root.is_dir():
            raise DataError(f"{root}: there is no such folder; expected a dataset's folder, give it with --data DIR")

    def cases(self) -> list[str]:
        """Ids of all images, by number where they are numbers; raises DataError for an image or label without its partner."""
        images, labels = self._ids(self.image), self._ids(self.label)
        if not images:
            raise DataError(f"{self.root}: found no image, expected files named {self.image}; check the folder")
        for missing, of, pattern in [(images - labels, "image", self.label), (labels - images, "label", self.image)]:
            if missing:
                names = ", ".join(sorted(missing, key=_by_number)[:5])
                raise DataError(
                    f"{self.root}: {of} without its partner for {len(missing)} case(s): {names}; "
                    f"expected {pattern} for each, add the file or remove the {of}"
                )
        return sorted(images, key=_by_number)

    def load(self, case: str, classes: dict[int, str]) -> Volume:
        """Image and labels of a case, checked against each other and the classes."""
        image_path, label_path = (self.root / pattern.format(case=case) for pattern in (self.image, self.label))
        image, affine, spacing = read_nifti(image_path)
        labels, label_affine, _ = read_nifti(label_path)
        _check_image(image, image_path)
        _check_labels(labels, label_path, classes)
        if labels.shape != image.shape:
            raise DataError(
                f"{label_path}: has shape {_shape(labels)} (width, height, slices), expected {_shape(image)} "
                f"as {image_path.name}; resample the labels to the image's grid"
            )
        if not np.allclose(label_affine, affine, atol=1e-2):
            raise DataError(
                f"{label_path}: its affine differs from that of {image_path.name}, expected the same grid; "
                "resample the labels to the image or copy the image's header"
            )
        return Volume(case, image.astype(np.float32), labels.astype(np.uint8), spacing, affine)

    def _ids(self, pattern: str) -> set[str]:
        before, after = pattern.split("{case}")
        found = (path.relative_to(self.root).as_posix() for path in self.root.glob(f"{before}*{after}"))
        return {name[len(before) : len(name) - len(after)] for name in found}


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Voxels slices first, affine, and spacing in mm along (slice, height, width).

    Raises DataError for a file that is missing, truncated, not NIfTI or not three-dimensional.
    """
    try:
        file = nibabel.load(path)
        voxels = np.asanyarray(file.dataobj)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; expected a NIfTI image") from None
    except (nibabel.filebasedimages.ImageFileError, EOFError, OSError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({error}); it is damaged or cut off, copy it again") from None
    if voxels.ndim != 3:
        raise DataError(f"{path}: has {voxels.ndim} dimensions, expected 3 (width, height, slices); split it first")
    width, height, slices = (float(size) for size in file.header.get_zooms()[:3])
    return np.ascontiguousarray(voxels.T), np.asarray(file.affine, dtype=np.float64), (slices, height, width)


def _check_image(image: np.ndarray, path: Path) -> None:
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        raise DataError(f"{path}: {count} voxels are NaN or infinite, expected finite intensities; repair the image")
    if image.min() == image.max():
        raise DataError(f"{path}: every voxel is {image.flat[0]:g}, expected an image; repair or remove the case")


def _check_labels(labels: np.ndarray, path: Path, classes: dict[int, str]) -> None:
    strange = [value for value in np.unique(labels).tolist() if value not in {0, *classes}]
    if strange:
        known = ", ".join(f"{value} {name}" for value, name in classes.items())
        values = ", ".join(f"{value:g}" for value in strange[:5])
        raise DataError(f"{path}: has labels {values}, expected 0 and {known}; name the classes or correct the file")


def _shape(array: np.ndarray) -> str:
    return " x ".join(str(size) for size in array.shape[::-1])


def _by_number(case: str) -> tuple[int, int | str]:
    return (0, int(case)) if re.fullmatch(r"\d+", case) else (1, case)


class ChaosT2:
    """ABD-MRI: 20 T2-SPIR scans of the CHAOS challenge (Kavur et al., 2021), preprocessed as ALPNet, ADNet and TPM do.

    The folder holds `chaos_MR_T2_normalized/image_<id>.nii.gz` and `label_<id>.nii.gz`, and may hold the published
    `supervoxels_5000/superpix-MIDDLE_<id>.nii.gz`.
    """

    classes = {1: "liver", 2: "right_kidney", 3: "left_kidney", 4: "spleen"}
    supervoxel_min_size = 5000

    def __init__(self, *, root: Root = None) -> None:
        self.files = PairedFiles(
            _folder(root, "chaos_t2"),
            "chaos_MR_T2_normalized/image_{case}.nii.gz",
            "chaos_MR_T2_normalized/label_{case}.nii.gz",
        )

    @property
    def cases(self) -> list[str]:
        """Ids in ascending order."""
        return self.files.cases()

    def load(self, case: str) -> Volume:
        """The scan of this case."""
        return self.files.load(case, self.classes)

    def load_supervoxels(self, case: str) -> Int32[np.ndarray, "slice height width"]:
        """The published supervoxels; their files carry no geometry of their own, the image's holds."""
        path = self.files.root / f"supervoxels_5000/superpix-MIDDLE_{case}.nii.gz"
        return read_nifti(path)[0].astype(np.int32)


class DatasetFile(BaseModel):
    """The `dataset.toml` of a folder of scans."""

    model_config = ConfigDict(extra="forbid")
    image: str = "image_{case}.nii.gz"
    label: str = "label_{case}.nii.gz"
    supervoxel_min_size: int = Field(5000, gt=0)
    classes: dict[str, Annotated[int, Field(ge=1, le=255)]] = Field(min_length=1)


class NiftiFolder:
    """Any folder of NIfTI image and label pairs with a `dataset.toml` that names the classes.

    The slice axis is the files' third; nothing is resampled. The TOML reads, with the defaults of the optional keys::

        image = "image_{case}.nii.gz"
        label = "label_{case}.nii.gz"
        supervoxel_min_size = 5000

        [classes]
        liver = 1
        spleen = 4
    """

    def __init__(self, *, root: Root = None) -> None:
        folder = _folder(root, "nifti")
        described = _read_description(folder / "dataset.toml")
        self.files = PairedFiles(folder, described.image, described.label)
        self.classes = {value: name for name, value in sorted(described.classes.items(), key=lambda item: item[1])}
        self.supervoxel_min_size = described.supervoxel_min_size

    @property
    def cases(self) -> list[str]:
        """Ids in ascending order."""
        return self.files.cases()

    def load(self, case: str) -> Volume:
        """The scan of this case."""
        return self.files.load(case, self.classes)


class Stored:
    """The supervoxels that a dataset comes with, for datasets that do (chaos_t2)."""

    def __init__(self) -> None:
        pass

    def __call__(self, volume: Volume, dataset: Dataset) -> Int32[np.ndarray, "slice height width"]:
        if not isinstance(dataset, StoredSupervoxels):
            raise DataError(
                f'supervoxels stored: {type(dataset).__name__} has none of its own; use supervoxels = "felzenszwalb"'
            )
        regions = dataset.load_supervoxels(volume.case)
        if regions.shape != volume.image.shape:
            raise DataError(
                f"supervoxels of case {volume.case}: shape {_shape(regions)}, expected {_shape(volume.image)} as the image; "
                'compute them with supervoxels = "felzenszwalb"'
            )
        return regions


def _folder(root: str | None, dataset: str) -> Path:
    if root is None:
        raise DataError(
            f"dataset {dataset}: it needs the folder with the scans; give it with --data DIR or dataset.root"
        )
    return Path(root).expanduser()


def _read_description(path: Path) -> DatasetFile:
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: there is no such folder; expected a dataset's folder, give it with --data DIR")
    if not path.is_file():
        raise DataError(f"{path}: is missing; write it with the classes, for example\n[classes]\nliver = 1")
    try:
        described = DatasetFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid TOML: {error}; correct the file") from None
    except ValidationError as error:
        problems = explain(error, lambda _: list(DatasetFile.model_fields))
        raise DataError("\n".join(f"{path}: {key}: {sentence}" for key, sentence in problems)) from None
    for key in ("image", "label"):
        if getattr(described, key).count("{case}") != 1:
            raise DataError(
                f'{path}: {key} is {getattr(described, key)!r}, expected one {{case}} in it, as in "{key}_{{case}}.nii.gz"'
            )
    return described
