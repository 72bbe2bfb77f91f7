"""A doctor for a folder of scans: everything that is wrong with it at once, and what is in it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from fsseg.data.datasets.channels import find_scans, read_images
from fsseg.data.datasets.description import FILE_NAME, Description
from fsseg.data.datasets.finding import match_files
from fsseg.data.datasets.folders import PUBLISHED, NiftiFolder, find_dataset
from fsseg.data.datasets.nifti import first_few, read_nifti
from fsseg.data.datasets.patterns import by_number
from fsseg.data.datasets.scans import make_volume, pair_warnings, scan_problems
from fsseg.data.datasets.summary import CheckedCase, summarise
from fsseg.data.folds import make_fold
from fsseg.errors import DataError, FssegError
from fsseg.system.progress import Progress, Silent

Read = TypeVar("Read")

SMALL = 8
"""Networks halve slices three times at least; smaller ones come of a wrong axis."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a folder of scans.

    Attributes:
        severity: "problem" for what would stop a run, "warning" for what might spoil it.
        text: A sentence: where, what is there, what was expected, what to do.
    """

    severity: Literal["problem", "warning"]
    text: str


@dataclass(frozen=True)
class Checked:
    """A folder that was looked at.

    Attributes:
        name: The dataset's name.
        classes: Its classes, with their numbers in snapshots.
        cases: Its readable scans.
        findings: Everything that is wrong.
    """

    name: str
    classes: dict[str, int]
    cases: list[CheckedCase] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """True where nothing would stop a run."""
        return all(finding.severity != "problem" for finding in self.findings)

    def table(self) -> list[dict[str, Any]]:
        """Returns a row per class: cases that show it, their median number of slices, and volumes in ml."""
        return [self._row(name) for name in self.classes]

    def _row(self, class_name: str) -> dict[str, Any]:
        shown = [case for case in self.cases if case.voxels[class_name]]
        row: dict[str, Any] = {"class": class_name, "cases": len(shown)}
        if shown:
            volumes = [case.volume(class_name) for case in shown]
            slices = [case.slices[class_name] for case in shown]
            row["slices"] = float(np.median(slices))
            row["ml"] = float(np.median(volumes))
            row["ml_min"] = min(volumes)
            row["ml_max"] = max(volumes)
        return row


def check_folder(folder: Path, progress: Progress | None = None) -> Checked:
    """Looks at every file of a dataset's folder.

    Args:
        folder: The folder.
        progress: Follows the scans; silent when omitted.

    Raises:
        DataError: The folder is no dataset at all.
    """
    table = find_dataset(folder)
    root = Path(table["root"])
    if table["name"] in PUBLISHED:
        described = PUBLISHED[table["name"]]
    else:
        try:
            described = NiftiFolder(root=table["root"]).described
        except DataError as error:  # nothing else can be read without it
            findings = [Finding("problem", line) for line in _lines(error)]
            return Checked(root.name, {}, findings=findings)
    return _Checkup(root, described, progress or Silent()).result


class _Checkup:
    """The findings of a folder, as they come together."""

    def __init__(self, root: Path, described: Description, progress: Progress) -> None:
        self.root = root
        self.described = described
        self.result = Checked(described.name, described.numbers)
        found = find_scans(root, described)
        images = found.images
        labels = found.labels
        self._problems(found.problems)
        self._problems(found.partners)
        if not images:
            image = described.image_patterns[0]
            self._problems(
                [f"{root}: found no image, expected files named {image}; check the folder"]
            )
        both = [case for case in images if case in labels]
        for case in progress.track(both, "checking", len(both)):
            self._check_case(case, images[case], labels[case])
        self._warnings(_ids_that_look_alike(root, list(images)))
        self._warnings(_repeated(root, self.result.cases))
        self._warnings(_thin(root, self.result.cases))
        if described.orientation == "file":
            self._warnings(_turned(root, self.result.cases))
        self._problems(self._fold_problems(list(images)))
        for folder in sorted(root.glob("supervoxels_*")):
            self._check_supervoxels(folder, list(images))

    def _problems(self, texts: Iterable[str]) -> None:
        self.result.findings.extend(Finding("problem", text) for text in texts)

    def _warnings(self, texts: Iterable[str]) -> None:
        self.result.findings.extend(Finding("warning", text) for text in texts)

    def _check_case(self, case: str, image_paths: list[Path], label_path: Path) -> None:
        images = self._read(partial(read_images, image_paths, self.described))
        labels = self._read(partial(read_nifti, label_path))
        if images is None or labels is None:
            return
        problems = scan_problems(images, labels, self.described)
        self._problems(problems)
        self._warnings(pair_warnings(images[0], labels))
        if problems:
            return
        try:
            volume = make_volume(case, images, labels, self.described)
        except DataError as error:
            self._problems(_lines(error))
            return
        checked = summarise(volume, images[0], self.described)
        self.result.cases.append(checked)
        absent = _absent(checked)
        if absent:
            self._warnings(
                [f"{label_path}: shows no {absent}; its Dice is undefined or 0, as predicted"]
            )

    def _read(self, read: Callable[[], Read]) -> Read | None:
        try:
            return read()
        except DataError as error:
            self._problems(_lines(error))
            return None

    def _fold_problems(self, cases: list[str]) -> Iterator[str]:
        """What keeps cases from being divided, or a fold's support from showing every class."""
        scheme = self.described.fold_scheme(len(cases))
        by_case = {checked.case: checked for checked in self.result.cases}
        for index in range(scheme.folds):
            try:
                fold = make_fold(scheme, cases, index)
            except FssegError as error:
                yield f"{self.root}: {error}"
                return
            training = [by_case[case] for case in fold.training if case in by_case]
            if training and max(checked.shape[0] for checked in training) == 1:
                yield (
                    f"{self.root}: the scans that fold {index} of {scheme.name} trains on have one slice each, expected "
                    f"neighbouring slices, of which episodes are made; correct axis in {FILE_NAME}, or stack a scan's "
                    "slices in one file"
                )
                return
            if fold.support not in by_case:
                continue
            absent = _absent(by_case[fold.support])
            if absent:
                yield (
                    f"{self.root}: case {fold.support} is the support of fold {index} of {scheme.name} but shows no "
                    f"{absent}, expected every class; list folds in {FILE_NAME} with another support "
                    "last, or leave the class out"
                )

    def _check_supervoxels(self, folder: Path, cases: list[str]) -> None:
        """Published supervoxels have no geometry of their own: they are paired by id and compared by shape alone."""
        files, problems = match_files(folder, "superpix-MIDDLE_{case}.nii.gz")
        self._warnings(problems)
        missing = [case for case in cases if case not in files]
        if missing:
            some = ", ".join(missing[:5])
            self._warnings(
                [
                    f"{folder}: has no superpix-MIDDLE_<id>.nii.gz for {some}; "
                    'supervoxels = "stored" stops there, "felzenszwalb" computes them'
                ]
            )
        for checked in self.result.cases:
            if checked.case in files:
                self._problems(_supervoxel_problems(files[checked.case], checked))


def _absent(checked: CheckedCase) -> str:
    """The classes that a scan does not show, as in "liver, no spleen"; empty if it shows all."""
    absent = [name for name, count in checked.voxels.items() if not count]
    return ", no ".join(absent)


def _thin(root: Path, cases: list[CheckedCase]) -> Iterator[str]:
    """Scans that cannot be trained on, beside others that can, and slices too small to be pictures."""
    of_one_slice = [checked.case for checked in cases if checked.shape[0] == 1]
    if of_one_slice and len(of_one_slice) < len(cases):
        yield (
            f"{root}: {len(of_one_slice)} scan(s) of one slice: {first_few(of_one_slice)}; they are not trained on, which "
            "takes neighbouring slices"
        )
    small = [checked.case for checked in cases if min(checked.shape[1:]) < SMALL]
    if small:
        yield (
            f"{root}: slices of less than {SMALL} pixels in {len(small)} scan(s): {first_few(small)}; too few for most "
            f"networks, is axis right in {FILE_NAME}?"
        )


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
        parts: list[str] = []
        for axes, alike in groups.items():
            parts.append(f"{axes}: {', '.join(alike[:5])}")
        listed = "; ".join(parts)
        yield f'{root}: files are turned differently ({listed}); orientation = "canonical" in {FILE_NAME} turns them alike'


def _supervoxel_problems(path: Path, checked: CheckedCase) -> Iterator[str]:
    try:
        shape = read_nifti(path).voxels.shape[::-1]
    except DataError as error:
        yield from _lines(error)
        return
    if shape != checked.shape:
        yield (
            f"{path}: has {_voxels(shape)} voxels (slices, height, width), expected {_voxels(checked.shape)} as the image; "
            "compute it again"
        )


def _voxels(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _lines(error: DataError) -> list[str]:
    return str(error).splitlines()
