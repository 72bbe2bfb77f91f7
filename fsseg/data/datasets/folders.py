"""Datasets in folders of NIfTI files: the field's preprocessed benchmarks, and anybody's own scans."""

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from jaxtyping import Int32
from pydantic import BaseModel, Field

from fsseg.data.cache import content_key
from fsseg.data.datasets.channels import Found, find_scans, read_images
from fsseg.data.datasets.description import (
    FILE_NAME,
    Description,
    IntensityTable,
    Range,
    read_description,
)
from fsseg.data.datasets.finding import Files
from fsseg.data.datasets.nifti import read_nifti
from fsseg.data.datasets.scans import load_volume
from fsseg.data.folds import FoldScheme
from fsseg.data.grids import Axis, Orientation
from fsseg.data.volume import Volume
from fsseg.errors import DataError
from fsseg.plugins.options import component

Table = TypeVar("Table", bound=BaseModel)

Root = Annotated[str | None, Field(description="the dataset's folder; on the shell, --data")]
Statistics = Annotated[
    Literal["volume", "training"],
    Field(
        description="scale each volume by itself, or all by the mean and spread of the fold's training scans"
    ),
]

CHAOS_T2 = Description(
    name="chaos_t2",
    modality="MR",
    image="chaos_MR_T2_normalized/image_{case}.nii.gz",
    label="chaos_MR_T2_normalized/label_{case}.nii.gz",
    folds="hansen2022",
    axis=2,
    orientation="file",
    supervoxel_min_size=5000,
    classes={"liver": 1, "right_kidney": 2, "left_kidney": 3, "spleen": 4},
)
SABS = Description(
    name="sabs",
    modality="CT",
    image="sabs_CT_normalized/image_{case}.nii.gz",
    label="sabs_CT_normalized/label_{case}.nii.gz",
    folds="tpm_sabs",
    axis=2,
    orientation="file",
    other_labels="background",
    classes={"spleen": 1, "right_kidney": 2, "left_kidney": 3, "liver": 6},
)
CMR = Description(
    name="cmr",
    modality="MR",
    image="cmr_MR_normalized/image_{case}.nii.gz",
    label="cmr_MR_normalized/label_{case}.nii.gz",
    folds="hansen2022",
    axis=2,
    orientation="file",
    supervoxel_min_size=1000,
    classes={"lv_myocardium": 200, "lv_blood_pool": 500, "right_ventricle": 600},
)
PUBLISHED = {described.name: described for described in (CHAOS_T2, SABS, CMR)}
"""The published layouts, by the dataset that reads each."""


class ScanFolder:
    """A folder of image and label pairs, as described. Pairs are made by id, never by position in a listing.

    Args:
        root: The folder.
        described: Its description.
    """

    def __init__(self, root: Path, described: Description) -> None:
        self.root = root
        self.described = described
        if not root.is_dir():
            raise DataError(
                f"{root}: there is no such folder; expected a dataset's folder, give it with --data DIR"
            )
        self.name = described.name
        self.classes = {number: name for name, number in described.numbers.items()}
        self.supervoxel_min_size = described.supervoxel_min_size
        self.statistics = described.intensity.statistics

    @property
    def cases(self) -> list[str]:
        """The ids of all images, by number; raises DataError for an image or label without its partner."""
        images = self.images
        if not images:
            image = self.described.image_patterns[0]
            raise DataError(
                f"{self.root}: found no image, expected files named {image}; check the folder"
            )
        problems = self._found.partners
        if problems:
            raise DataError("\n".join(problems))
        return list(images)

    @property
    def folds(self) -> FoldScheme:
        """The folds of the description, or the usual ones for so many cases."""
        return self.described.fold_scheme(len(self.images))

    def load(self, case: str) -> Volume:
        """Returns the scan of this case; raises DataError listing everything that is wrong with its files."""
        *paths, label = self._files(case)
        images = read_images(paths, self.described)
        return load_volume(case, images, read_nifti(label), self.described)

    def fingerprint(self, case: str) -> str:
        """Returns what stands for the case's files (size, time and place on disk, links followed) and how they are read."""
        states = [_state(path) for path in self._files(case)]
        return content_key(type(self).__qualname__, states, self.described.model_dump())

    def _files(self, case: str) -> list[Path]:
        """The images of a case, then its labels."""
        if case not in self.images or case not in self.labels:
            known = ", ".join(self.cases)
            raise DataError(f"{self.root}: there is no case {case!r}; the cases are {known}")
        return [*self.images[case], self.labels[case]]

    @property
    def images(self) -> dict[str, list[Path]]:
        """The image files by case: one, or one for each channel."""
        return self._found.images

    @property
    def labels(self) -> Files:
        """The label files by case."""
        return self._found.labels

    @cached_property
    def _found(self) -> Found:
        found = find_scans(self.root, self.described)
        if found.problems:
            raise DataError("\n".join(found.problems))
        return found


@component
class ChaosT2(ScanFolder):
    """ABD-MRI: 20 T2-SPIR scans of the CHAOS challenge (Kavur et al., 2021), preprocessed as ALPNet, ADNet and TPM do.

    The folder holds `chaos_MR_T2_normalized/image_<id>.nii.gz` and `label_<id>.nii.gz`, as `fsseg prepare chaos` writes
    them, and may hold the published `supervoxels_5000/superpix-MIDDLE_<id>.nii.gz`.
    """

    def __init__(self, *, root: Root = None, statistics: Statistics = "volume") -> None:
        super().__init__(_folder(root, "chaos_t2"), _with_statistics(CHAOS_T2, statistics))

    def load_supervoxels(self, case: str) -> Int32[np.ndarray, "slice height width"]:
        """Returns the published supervoxels; their files carry no geometry of their own, the image's holds."""
        path = self.root / f"supervoxels_5000/superpix-MIDDLE_{case}.nii.gz"
        slices_first = read_nifti(path).voxels.T
        return np.ascontiguousarray(slices_first).astype(np.int32)


@component
class Sabs(ScanFolder):
    """ABD-CT: 30 scans of the BTCV / Synapse challenge (Landman et al., 2015), preprocessed as ALPNet does.

    The folder holds `sabs_CT_normalized/image_<0..29>.nii.gz` and `label_<0..29>.nii.gz`, as `fsseg prepare btcv` writes
    them. Files of the published geometry have an empty last row and column, which are left out. Folds are those of TPM
    (`tpm_sabs`); `rpt_sabs` are those of RPT, GMRD, CAT-Net and Q-Net.
    """

    def __init__(self, *, root: Root = None, statistics: Statistics = "volume") -> None:
        super().__init__(_folder(root, "sabs"), _with_statistics(SABS, statistics))

    def load(self, case: str) -> Volume:
        """Returns the scan of this case; raises DataError listing everything that is wrong with its files."""
        return _without_last_row(super().load(case))


@component
class Cmr(ScanFolder):
    """CMR: 35 bSSFP scans of the MS-CMRSeg challenge (Zhuang, 2019) with the labels 200, 500 and 600.

    The folder holds `cmr_MR_normalized/image_<id>.nii.gz` and `label_<id>.nii.gz`, as `fsseg prepare cmr` writes them.
    """

    def __init__(self, *, root: Root = None, statistics: Statistics = "volume") -> None:
        super().__init__(_folder(root, "cmr"), _with_statistics(CMR, statistics))


@component
class NiftiFolder(ScanFolder):
    """Any folder of NIfTI image and label pairs with a `dataset.toml`; the options below take the place of its keys.

    The least that the file says is which label value is which class; the rest has the defaults written here::

        name = "nifti"
        modality = ""                    # MR, CT: for people
        image = "image_{case}.nii.gz"    # {case} may repeat, * and **/ are wildcards
        label = "label_{case}.nii.gz"
        # channels = ["t1", "t2"]        # names along the images' fourth axis; files of their own are named in [channels]
        axis = "auto"                    # 0, 1 or 2: the files' axis along which slices are counted
        orientation = "canonical"        # all scans turned alike; "file" leaves them as stored
        other_labels = "error"           # "background": label values without a name are no class
        # folds: a scheme, or lists of cases with the support last; otherwise up to five disjoint folds
        # supervoxel_min_size: voxels; otherwise it follows from the size of the scan

        [intensity]
        # window = [-125, 275]           # clip CT to these values
        # percentiles = [0, 99.5]        # clip MR to these percentiles of the volume
        statistics = "volume"            # "training": all scans are scaled by the fold's training scans

        # [channels]                     # in place of image: the path of each channel's images by its name
        # t1 = "{case}_0000.nii.gz"
        # t2 = "{case}_0001.nii.gz"

        [classes]
        liver = 1
        kidneys = [2, 3]                 # several values, one class
    """

    def __init__(
        self,
        *,
        root: Root = None,
        axis: Annotated[Axis | None, Field(description="in place of dataset.toml's")] = None,
        orientation: Annotated[Orientation | None, Field(description="likewise")] = None,
        supervoxel_min_size: Annotated[int | None, Field(gt=0, description="likewise")] = None,
        window: Annotated[Range | None, Field(description="likewise, of [intensity]")] = None,
        percentiles: Annotated[Range | None, Field(description="likewise, of [intensity]")] = None,
        statistics: Annotated[
            Literal["volume", "training"] | None, Field(description="likewise")
        ] = None,
    ) -> None:
        folder = _folder(root, "nifti")
        described = read_description(folder)
        intensity = _with(
            described.intensity, window=window, percentiles=percentiles, statistics=statistics
        )
        changed = _with(
            described,
            axis=axis,
            orientation=orientation,
            supervoxel_min_size=supervoxel_min_size,
            intensity=intensity,
        )
        super().__init__(folder, changed)


def find_dataset(folder: str | Path) -> dict[str, Any]:
    """Returns the recipe's dataset table for a folder of scans.

    A folder with a `dataset.toml` is read by `nifti`, one of a published layout by its own dataset. Raises DataError for
    a folder that is neither.
    """
    folder = Path(folder).expanduser()
    if os.path.lexists(folder / FILE_NAME):  # one that cannot be read is told, not passed over
        return {"name": "nifti", "root": str(folder)}
    for name, described in PUBLISHED.items():
        if (folder / described.image).parent.is_dir():
            return {"name": name, "root": str(folder)}
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; expected a dataset's folder")
    folders = [Path(described.image).parts[0] for described in PUBLISHED.values()]
    published = ", ".join(f"{name}/" for name in folders)
    raise DataError(
        f"{folder}: is no dataset, expected a {FILE_NAME} or one of {published} in it; write {FILE_NAME} "
        "(see `fsseg list dataset/nifti`), or make a dataset of raw scans with `fsseg prepare`"
    )


def _folder(root: str | None, dataset: str) -> Path:
    if root is None:
        raise DataError(
            f"dataset {dataset}: it needs the folder with the scans; give it with --data DIR or dataset.root"
        )
    return Path(root).expanduser()


def _state(path: Path) -> tuple[int, int, int, int]:
    state = path.stat()
    return (state.st_size, state.st_mtime_ns, state.st_ino, state.st_dev)


def _with(table: Table, **options: Any) -> Table:
    """The table with the options that are given in place of its own."""
    given = {key: value for key, value in options.items() if value is not None}
    return table.model_copy(update=given)


def _with_statistics(described: Description, statistics: str) -> Description:
    return _with(described, intensity=IntensityTable(statistics=statistics))


def _without_last_row(volume: Volume) -> Volume:
    """Slices of 257 x 257, which resampling 448 pixels to 256 leaves, without the empty last row and column."""
    if volume.image.shape[1:] != (257, 257):
        return volume
    kept = np.s_[:, :256, :256]
    return replace(
        volume,
        image=np.ascontiguousarray(volume.image[kept]),
        labels=np.ascontiguousarray(volume.marked[kept]),
        grid=replace(volume.grid, size=volume.image.shape),
    )
