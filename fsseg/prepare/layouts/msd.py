"""Datasets with a dataset.json: the Medical Segmentation Decathlon's, and those in nnU-Net's two formats."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fsseg.data.datasets.finding import find_files
from fsseg.data.datasets.nifti import first_few
from fsseg.data.datasets.patterns import by_number, composed
from fsseg.errors import DataError
from fsseg.prepare.channels import choose_channels, require_all_channels
from fsseg.prepare.layouts.resaved import IMAGE, LABEL, UNNAMED, described, make
from fsseg.prepare.plan import (
    CasePlan,
    Classes,
    Plan,
    check_source,
    file_ids,
    identifier,
    name_classes,
    pair_up,
)
from fsseg.prepare.read import NIFTI, OTHER, stored_with
from fsseg.system.text import read_json_text

EXPECTED = "the folder with dataset.json, imagesTr and labelsTr"

MR_NAMES = ("MR", "T1", "T2", "FLAIR", "ADC", "DWI", "PD", "CINE")
"""Beginnings of the names of channels that are MR."""

Region = tuple[str, list[int]]
"""A label's name and its values."""


@dataclass(frozen=True)
class Contents:
    """A dataset.json, whichever format it is in.

    Attributes:
        path: The file.
        name: The dataset's name.
        channels: Names of channels by their number.
        labels: Classes and label values.
    """

    path: Path
    name: str
    channels: dict[int, str]
    labels: "Labels"


@dataclass(frozen=True)
class Labels:
    """The labels of a dataset.json, whichever way they are written.

    Attributes:
        classes: Classes and their values.
        ignore: Label values that mark voxels to be ignored.
        known: Names of all values that may occur.
        notes: Sentences for the user.
    """

    classes: Classes
    ignore: list[int]
    known: dict[int, str]
    notes: tuple[str, ...]


def plan(source: Path, channel: str | None = None) -> Plan:
    """Plans the labelled scans of a dataset.

    Args:
        source: The folder with dataset.json.
        channel: Number or name of the channel to keep, where there are several; "all" keeps them all.

    Raises:
        DataError: dataset.json is missing or malformed, a scan lacks its labels, or a channel must be chosen.
    """
    check_source(source, EXPECTED)
    table = _read_json(source / "dataset.json")
    contents = _contents(source, table)
    numbers = choose_channels(contents.path, contents.channels, channel)
    number = numbers[0]
    by_channel = [find_images(source, table, each) for each in numbers]
    images, in_one_file = by_channel[0]
    labels = find_labels(source, table)
    if not labels:
        raise DataError(
            f"{source}: found no label map in labelsTr, expected {EXPECTED}; check the copy"
        )
    image_name = f"imagesTr/{{case}} of channel {number}"
    pairs = pair_up(source, images, labels, image_name, "labelsTr/{case}")
    known = {str(value): name for value, name in contents.labels.known.items()}
    has_several = in_one_file and len(contents.channels) > 1
    kept = [contents.channels[each] for each in numbers] if len(numbers) > 1 else []
    options: dict[str, Any] = {
        "ignore": contents.labels.ignore,
        "known": known,
        "channel": number if has_several and not kept else None,
    }
    if kept:
        options["channels"] = kept
        require_all_channels(source, [files for files, _ in by_channel], kept)
    ids = file_ids(pairs, source)
    cases: list[CasePlan] = []
    for case, (image, label) in pairs.items():
        paths = [image] if in_one_file else [files[case] for files, _ in by_channel]
        planned = CasePlan(
            ids[case],
            image=tuple(paths) if kept else stored_with(image),
            label=stored_with(label),
            options=options,
        )
        cases.append(planned)
    describing = partial(
        describe,
        name=identifier(contents.name) or UNNAMED,
        modality=modality_of(contents.channels.get(number, "")),
        classes=contents.labels.classes,
        channels=kept,
    )
    notes = contents.labels.notes
    return Plan("msd", source, IMAGE, LABEL, tuple(cases), make, describing, notes)


def describe(
    cases: int,
    values: list[int],
    *,
    name: str,
    modality: str,
    classes: Classes,
    channels: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Returns the contents of dataset.toml, and notes for the user."""
    return described(name, modality, classes, channels), []


def find_images(source: Path, table: dict[str, Any], channel: int) -> tuple[dict[str, Path], bool]:
    """Returns image files by case, and whether a file holds all channels."""
    ending = _ending(source, table)
    listed = _listed(source, table, "image")
    if listed and all(map(os.path.isfile, listed.values())):
        return listed, True
    # nnU-Net: a file a channel. Its first format lists CASE.nii.gz and has CASE_0000.nii.gz.
    suffix = f"_{channel:04d}{ending}"
    files = _files(source / "imagesTr", suffix)
    if listed:
        missing = sorted(listed.keys() - files.keys(), key=by_number)
        if missing:
            raise DataError(
                f"{source}: dataset.json lists images that are not there: {first_few(missing, 10)}; copy them to "
                "imagesTr, or remove them from its training list"
            )
        files = {case: path for case, path in files.items() if case in listed}
    if not files:
        raise DataError(
            f"{source}: found no image in imagesTr, expected CASE{suffix} as nnU-Net has; check the copy"
        )
    return {case: files[case] for case in sorted(files, key=by_number)}, False


def find_labels(source: Path, table: dict[str, Any]) -> dict[str, Path]:
    """Returns label files by case."""
    listed = _listed(source, table, "label")
    if listed:
        return {case: path for case, path in listed.items() if os.path.isfile(path)}
    ending = _ending(source, table)
    return _files(source / "labelsTr", ending)


def modality_of(channel: str) -> str:
    """Returns CT or MR from a channel's name, which is the modality of these formats; another name as it is."""
    name = channel.upper()
    if name.startswith("CT"):
        return "CT"
    if name.startswith(MR_NAMES):
        return "MR"
    return channel


def read_labels(path: Path, labels: dict[str, Any]) -> Labels:
    """Returns classes and label values, from either way of writing `labels`."""
    ignore: list[int] = []
    regions: list[Region] = []
    for name, values in _label_entries(path, labels):
        if name.lower() == "ignore":
            ignore += values
        elif values != [0]:
            regions.append((name, values))
    notes: list[str] = []
    if ignore:
        listed = ", ".join(map(str, ignore))
        notes.append(f"{path}: voxels labelled {listed} (ignore) become background")
    values = [value for _, values in regions for value in values]
    overlap = len(set(values)) != len(values)
    classes = name_classes(path, _by_value(regions) if overlap else regions)
    if overlap:
        names = ", ".join(classes)
        notes.append(
            f"{path}: its regions overlap, expected one class a voxel; label values became the classes "
            f"{names}, rename them in dataset.toml"
        )
    if not classes:
        raise DataError(
            f"{path}: labels names no class besides the background, expected at least one; complete it"
        )
    known: dict[int, str] = {}
    for name, values in regions:
        known |= dict.fromkeys(values, name)
    known |= dict.fromkeys(ignore, "ignore")
    return Labels(
        classes,
        ignore,
        known=dict(sorted(known.items())),
        notes=tuple(notes),
    )


def _by_value(regions: list[Region]) -> list[Region]:
    """Of regions within regions: a voxel has one class, so each value is one, under its own name if it has one."""
    names: dict[int, str] = {}
    listed: set[int] = set()
    for name, values in regions:
        listed |= set(values)
        if len(values) == 1:
            names.setdefault(values[0], name)
    return [(names.get(value, f"label_{value}"), [value]) for value in sorted(listed)]


def _contents(source: Path, table: dict[str, Any]) -> Contents:
    path = source / "dataset.json"
    channels: Any = table.get("channel_names", table.get("modality"))
    is_table = isinstance(channels, dict) and bool(channels)
    if not is_table or not all(map(_is_channel, channels)):
        raise DataError(
            f'{path}: lacks the channels, expected "modality": {{"0": "MRI"}} (MSD) or "channel_names" (nnU-Net); add them'
        )
    if not isinstance(table.get("labels"), dict):
        raise DataError(
            f'{path}: lacks the labels, expected "labels": {{"0": "background", "1": "liver"}}; add them'
        )
    return Contents(
        path=path,
        name=str(table.get("name") or source.resolve().name),
        channels={int(number): str(name) for number, name in channels.items()},
        labels=read_labels(path, table["labels"]),
    )


def _label_entries(path: Path, labels: dict[str, Any]) -> list[Region]:
    """Names and values from `{"1": "liver"}` or from `{"liver": 1}`."""
    is_by_value = all(str(key).isdecimal() for key in labels)
    entries: list[Region] = []
    try:
        for key, entry in labels.items():
            name, values = (entry, key) if is_by_value else (key, entry)
            listed = values if isinstance(values, list) else [values]
            if not isinstance(name, str) or not listed:
                raise ValueError(name)
            entries.append((name, [_label_value(value) for value in listed]))
    except ValueError:
        raise DataError(
            f'{path}: its labels cannot be read, expected {{"1": "liver"}} (MSD) or {{"liver": 1}} (nnU-Net) '
            "with whole numbers from 0 to 65535; correct them"
        ) from None
    return entries


def _is_channel(number: str) -> bool:
    return number.isdecimal() and len(number) <= 4


def _label_value(value: Any) -> int:
    """The number that a value is; raises ValueError for what is no label value."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    is_text = isinstance(value, str) and value.isdecimal() and len(value) <= 5
    if not (is_number or is_text) or not 0 <= int(value) <= 65535:
        raise ValueError(value)
    return int(value)


def _read_json(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        raise DataError(
            f"{path}: there is no such file; expected {EXPECTED}, give that folder with --source"
        )
    table = read_json_text(path, DataError)
    if not isinstance(table, dict):
        raise DataError(
            f"{path}: is a {type(table).__name__}, expected a table with labels and channels; correct it"
        )
    return table


def _listed(source: Path, table: dict[str, Any], what: str) -> dict[str, Path]:
    """The files of the MSD's `training` list, by the name of the label file, which is the case's."""
    entries = table.get("training")
    if not isinstance(entries, list) or not entries:
        return {}
    path = source / "dataset.json"
    files: dict[str, Path] = {}
    for entry in entries:
        names = entry if isinstance(entry, dict) else {}
        file, label = names.get(what), names.get("label")
        if not isinstance(file, str) or not isinstance(label, str):
            raise DataError(
                f'{path}: its training list cannot be read, expected entries like {{"image": "./imagesTr/a.nii.gz", '
                '"label": "./labelsTr/a.nii.gz"}; correct it'
            )
        case = _case_of(label)
        if case in files:
            raise DataError(
                f"{path}: its training list has two entries whose label is called {case!r}, expected one a case; "
                "correct it"
            )
        files[case] = source / file
    return files


def _case_of(label: str) -> str:
    name = composed(Path(label).name)
    for ending in (".nii.gz", *NIFTI, *OTHER):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def _ending(source: Path, table: dict[str, Any]) -> str:
    ending = table.get("file_ending", ".nii.gz")
    known = NIFTI + OTHER
    if ending not in known:
        raise DataError(
            f"{source / 'dataset.json'}: has the file ending {ending}, expected one of {', '.join(known)}; "
            "two-dimensional pictures are no volumes, convert the data"
        )
    return ending


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """The files of a folder whose names end so, by what is before that."""
    files = find_files(folder, f"{{case}}{suffix}")
    return {case: path for case, path in files.items() if not case.startswith(".")}
