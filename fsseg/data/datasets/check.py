"""A doctor for a folder of scans: everything that is wrong with it at once, and what is in it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np

from fsseg.data.datasets.description import FILE_NAME, Description
from fsseg.data.datasets.folders import PUBLISHED, NiftiFolder, find_dataset, unpaired
from fsseg.data.datasets.nifti import (
    ScanFile,
    image_problems,
    label_problems,
    make_volume,
    pair_problems,
    read_nifti,
)
from fsseg.data.datasets.patterns import by_number, match_files
from fsseg.data.folds import FoldScheme, make_fold
from fsseg.data.volume import Volume
from fsseg.errors import DataError, FssegError
from fsseg.system.progress import Progress, Silent


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a problem would stop a run, a warning might spoil it."""

    severity: Literal["problem", "warning"]
    text: str


@dataclass(frozen=True)
class Snapshot:
    """The middle one of a scan's labelled slices, for the contact sheet."""

    image: np.ndarray
    labels: np.ndarray
    pixel: tuple[float, float]


@dataclass(frozen=True)
class CheckedCase:
    """What a scan holds.

    Attributes:
        case: Its id.
        shape: Slices, height and width.
        spacing: Along the same, mm.
        axes: Where the file's axes run, as in "LPS".
        content: A hash of the image's voxels.
        voxels: Voxels of each class.
        slices: Slices that show each class.
        snapshot: A slice to look at.
    """

    case: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    axes: str
    content: str
    voxels: dict[str, int]
    slices: dict[str, int]
    snapshot: Snapshot

    def volume(self, class_name: str) -> float:
        """Volume of a class, ml."""
        return self.voxels[class_name] * float(np.prod(self.spacing)) / 1000


@dataclass(frozen=True)
class Checked:
    """A folder's findings, its classes with their numbers in snapshots, and its readable scans."""

    name: str
    classes: dict[str, int]
    cases: list[CheckedCase] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether nothing would stop a run."""
        return all(finding.severity != "problem" for finding in self.findings)

    def table(self) -> list[dict[str, Any]]:
        """A row per class: cases that show it, their median number of slices, and volumes in ml."""
        rows = []
        for name in self.classes:
            shown = [case for case in self.cases if case.voxels[name]]
            volumes = [case.volume(name) for case in shown]
            row: dict[str, Any] = {"class": name, "cases": len(shown)}
            if shown:
                row |= {"slices": float(np.median([case.slices[name] for case in shown]))}
                row |= {
                    "ml": float(np.median(volumes)),
                    "ml_min": min(volumes),
                    "ml_max": max(volumes),
                }
            rows.append(row)
        return rows


def check_folder(folder: Path, progress: Progress | None = None) -> Checked:
    """Looks at every file of a dataset's folder; raises DataError only for a folder that is no dataset at all."""
    table = find_dataset(folder)
    if table["name"] != "nifti":
        described = PUBLISHED[table["name"]]
    else:
        try:
            described = NiftiFolder(root=table["root"]).described
        except DataError as error:  # nothing else can be read without it
            return Checked(
                Path(table["root"]).name, {}, findings=[_problem(line) for line in _lines(error)]
            )
    return _Checkup(Path(table["root"]), described, progress or Silent()).result


class _Checkup:
    """The findings of a folder, as they come together."""

    def __init__(self, root: Path, described: Description, progress: Progress) -> None:
        self.root, self.described = root, described
        self.result = Checked(described.name, described.numbers)
        images, labels = (self._files(pattern) for pattern in (described.image, described.label))
        self.add("problem", unpaired(root, described, images, labels))
        if not images:
            self.add(
                "problem",
                [
                    f"{root}: found no image, expected files named {described.image}; check the folder"
                ],
            )
        both = [case for case in images if case in labels]
        for case in progress.track(both, "checking", len(both)):
            self._check_case(case, images[case], labels[case])
        self.add("warning", _ids_that_look_alike(root, list(images)))
        self.add("warning", _repeated(root, self.result.cases))
        if described.orientation == "file":
            self.add("warning", _turned(root, self.result.cases))
        self._check_folds(described.fold_scheme(len(images)), list(images))
        self._check_supervoxels(list(images))

    def add(self, severity: Literal["problem", "warning"], texts: Iterable[str]) -> None:
        self.result.findings.extend(Finding(severity, text) for text in texts)

    def _files(self, pattern: str) -> dict[str, Path]:
        files, problems = match_files(self.root, pattern)
        self.add("problem", problems)
        return files

    def _check_case(self, case: str, image_path: Path, label_path: Path) -> None:
        files: list[ScanFile] = []
        for path in (image_path, label_path):
            try:
                files.append(read_nifti(path))
            except DataError as error:
                self.add("problem", _lines(error))
        if len(files) < 2:
            return
        image, labels = files
        problems = [
            *image_problems(image),
            *label_problems(labels, self.described),
            *pair_problems(image, labels),
        ]
        self.add("problem", problems)
        self.add("warning", list(_header_warnings(image)))
        if not problems:
            checked = _summarise(
                make_volume(case, image, labels, self.described), image, self.described
            )
            self.result.cases.append(checked)
            absent = [name for name, count in checked.voxels.items() if not count]
            if absent:
                self.add(
                    "warning",
                    [
                        f"{label_path}: shows no {', no '.join(absent)}; its Dice is undefined or 0, as predicted"
                    ],
                )

    def _check_folds(self, scheme: FoldScheme, cases: list[str]) -> None:
        """Whether cases can be divided, and every fold's support shows every class."""
        by_case = {checked.case: checked for checked in self.result.cases}
        for index in range(scheme.folds):
            try:
                fold = make_fold(scheme, cases, index)
            except FssegError as error:
                self.add("problem", [f"{self.root}: {error}"])
                return
            support = by_case.get(fold.support)
            lacking = (
                []
                if support is None
                else [name for name, count in support.voxels.items() if not count]
            )
            if lacking:
                self.add(
                    "problem",
                    [
                        f"{self.root}: case {fold.support} is the support of fold {index} of {scheme.name} but shows no "
                        f"{', no '.join(lacking)}, expected every class; list folds in {FILE_NAME} with another support "
                        "last, or leave the class out"
                    ],
                )

    def _check_supervoxels(self, cases: list[str]) -> None:
        """Published supervoxels have no geometry of their own: they are paired by id and compared by shape alone."""
        for folder in sorted(self.root.glob("supervoxels_*")):
            files, _ = match_files(folder, "superpix-MIDDLE_{case}.nii.gz")
            missing = [case for case in cases if case not in files]
            if missing:
                self.add(
                    "warning",
                    [
                        f"{folder}: has no superpix-MIDDLE_<id>.nii.gz for {', '.join(missing[:5])}; "
                        'supervoxels = "stored" stops there, "felzenszwalb" computes them'
                    ],
                )
            for checked in self.result.cases:
                if checked.case in files:
                    self.add("problem", list(_supervoxel_problems(files[checked.case], checked)))


def _summarise(volume: Volume, image: ScanFile, described: Description) -> CheckedCase:
    counts = {
        name: (volume.labels == number).sum(axis=(1, 2))
        for name, number in described.numbers.items()
    }
    labelled = np.flatnonzero(volume.labels.any(axis=(1, 2)))
    middle = int(labelled[len(labelled) // 2]) if len(labelled) else len(volume.image) // 2
    return CheckedCase(
        case=volume.case,
        shape=tuple(int(length) for length in volume.image.shape),
        spacing=volume.spacing,
        axes="".join(nibabel.aff2axcodes(image.affine)),
        content=hashlib.sha256(np.ascontiguousarray(volume.image).data).hexdigest(),
        voxels={name: int(count.sum()) for name, count in counts.items()},
        slices={name: int((count > 0).sum()) for name, count in counts.items()},
        snapshot=Snapshot(
            volume.image[middle].copy(), volume.labels[middle].copy(), volume.spacing[1:]
        ),
    )


def _header_warnings(image: ScanFile) -> Iterator[str]:
    by_affine = nibabel.affines.voxel_sizes(image.affine)
    if not np.allclose(by_affine, image.voxel_sizes, rtol=0.01):
        told = [
            " x ".join(f"{size:.3g}" for size in sizes) for sizes in (image.voxel_sizes, by_affine)
        ]
        yield f"{image.path}: its header says voxels of {told[0]} mm and its affine {told[1]} mm; the header's are used"


def _ids_that_look_alike(root: Path, cases: list[str]) -> Iterator[str]:
    for first, second in zip(cases, cases[1:]):
        if by_number(first) == by_number(second):
            yield f"{root}: ids {first} and {second} are the same number; is one a copy of the other?"


def _repeated(root: Path, cases: list[CheckedCase]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for checked in cases:
        first = seen.setdefault(checked.content, checked.case)
        if first != checked.case:
            yield f"{root}: cases {first} and {checked.case} have the same image; a copy in training gives test scans away"


def _turned(root: Path, cases: list[CheckedCase]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for checked in cases:
        groups.setdefault(checked.axes, []).append(checked.case)
    if len(groups) > 1:
        told = "; ".join(f"{axes}: {', '.join(of[:5])}" for axes, of in groups.items())
        yield f'{root}: files are turned differently ({told}); orientation = "canonical" in {FILE_NAME} turns them alike'


def _supervoxel_problems(path: Path, checked: CheckedCase) -> Iterator[str]:
    try:
        shape = read_nifti(path).voxels.shape[::-1]
    except DataError as error:
        yield from _lines(error)
        return
    if shape != checked.shape:
        sizes = [" x ".join(map(str, size)) for size in (shape, checked.shape)]
        yield f"{path}: has {sizes[0]} voxels (slices, height, width), expected {sizes[1]} as the image; compute it again"


def _problem(text: str) -> Finding:
    return Finding("problem", text)


def _lines(error: DataError) -> list[str]:
    return str(error).splitlines()
