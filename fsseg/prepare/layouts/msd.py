"""Datasets with a dataset.json: the Medical Segmentation Decathlon's, and those in nnU-Net's two formats."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fsseg.data.datasets.patterns import by_number
from fsseg.errors import DataError
from fsseg.prepare.layouts.resaved import IMAGE, LABEL, Classes, described, make
from fsseg.prepare.plan import CasePlan, Plan, check_source, file_ids, identifier, pair_up
from fsseg.prepare.read import NIFTI, OTHER, stored_with

EXPECTED = "the folder with dataset.json, imagesTr and labelsTr"


@dataclass(frozen=True)
class Contents:
    """What a dataset.json says, whichever format it is in.

    Attributes:
        path: The file.
        name: The dataset's.
        channels: Names by number.
        classes: Classes and their values.
        ignore: Label values that mark voxels to be ignored.
        known: Names by label value.
        notes: What the user should know.
    """

    path: Path
    name: str
    channels: dict[int, str]
    classes: Classes
    ignore: list[int]
    known: dict[int, str]
    notes: tuple[str, ...]


def plan(source: Path, channel: str | None = None) -> Plan:
    """The labelled scans of a dataset.

    Args:
        source: The folder with dataset.json.
        channel: Number or name of the channel to keep, where there are several.

    Raises:
        DataError: dataset.json is missing or malformed, a scan lacks its labels, or a channel must be chosen.
    """
    check_source(source, EXPECTED)
    table = _read_json(source / "dataset.json")
    contents = _contents(source, table)
    number = choose_channel(contents, channel)
    images, in_one_file = find_images(source, table, number)
    labels = find_labels(source, table)
    if not labels:
        raise DataError(
            f"{source}: found no label map in labelsTr, expected {EXPECTED}; check the copy"
        )
    pairs = pair_up(
        source, images, labels, f"imagesTr/{{case}} of channel {number}", "labelsTr/{case}"
    )
    options: dict[str, Any] = {
        "ignore": contents.ignore,
        "known": {str(v): n for v, n in contents.known.items()},
    }
    options["channel"] = number if in_one_file and len(contents.channels) > 1 else None
    ids = file_ids(pairs, source)
    cases = tuple(
        CasePlan(ids[case], stored_with(a), stored_with(b), options)
        for case, (a, b) in pairs.items()
    )
    modality = modality_of(contents.channels.get(number, ""))
    describing = partial(
        describe, name=identifier(contents.name), modality=modality, classes=contents.classes
    )
    return Plan("msd", source, IMAGE, LABEL, cases, make, describing, contents.notes)


def describe(
    cases: int, values: list[int], *, name: str, modality: str, classes: Classes
) -> tuple[dict[str, Any], list[str]]:
    """The dataset.toml."""
    return described(name, modality, classes), []


def choose_channel(contents: Contents, channel: str | None) -> int:
    """The channel's number; raises DataError listing the channels where none or an unknown one is given."""
    listed = ", ".join(f"{number} {name}" for number, name in contents.channels.items())
    if channel is None:
        if len(contents.channels) == 1:
            return next(iter(contents.channels))
        raise DataError(
            f"{contents.path}: has several channels ({listed}), expected one; choose it with --channel"
        )
    for number, name in contents.channels.items():
        if channel.strip().lower() in (str(number), name.lower()):
            return number
    raise DataError(
        f"--channel {channel}: there is no such channel, expected one of {listed}; choose one of these"
    )


def find_images(source: Path, table: dict[str, Any], channel: int) -> tuple[dict[str, Path], bool]:
    """Image files by case, and whether a file holds all channels."""
    ending = _ending(source, table)
    listed = _listed(source, table, "image")
    if listed and all(path.is_file() for path in listed.values()):
        return listed, True
    # nnU-Net: a file a channel. Its first format lists CASE.nii.gz and has CASE_0000.nii.gz.
    suffix = f"_{channel:04d}{ending}"
    found = {path.name.removesuffix(suffix): path for path in _files(source / "imagesTr", suffix)}
    if listed:
        missing = sorted(set(listed) - set(found), key=by_number)
        if missing:
            names = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            raise DataError(
                f"{source}: dataset.json lists images that are not there: {names}; copy them to imagesTr, or remove them "
                "from its training list"
            )
        found = {case: path for case, path in found.items() if case in listed}
    if not found:
        raise DataError(
            f"{source}: found no image in imagesTr, expected CASE{suffix} as nnU-Net has; check the copy"
        )
    return dict(sorted(found.items(), key=lambda item: by_number(item[0]))), False


def find_labels(source: Path, table: dict[str, Any]) -> dict[str, Path]:
    """Label files by case."""
    listed = _listed(source, table, "label")
    if listed:
        return {case: path for case, path in listed.items() if path.is_file()}
    ending = _ending(source, table)
    return {path.name.removesuffix(ending): path for path in _files(source / "labelsTr", ending)}


def modality_of(channel: str) -> str:
    """CT or MR from a channel's name, which is the modality of these formats; another name as it is."""
    words = channel.upper()
    if words.startswith("CT"):
        return "CT"
    return (
        "MR"
        if words.startswith(("MR", "T1", "T2", "FLAIR", "ADC", "DWI", "PD", "CINE"))
        else channel
    )


def read_classes(
    path: Path, labels: dict[str, Any]
) -> tuple[Classes, list[int], dict[int, str], list[str]]:
    """Classes, values to ignore, names of all values, and notes; from either way of writing `labels`."""
    entries = _label_entries(path, labels)
    ignore = [value for name, values in entries for value in values if name.lower() == "ignore"]
    regions = [
        (name, values) for name, values in entries if name.lower() != "ignore" and values != [0]
    ]
    notes = (
        [f"{path}: voxels labelled {', '.join(map(str, ignore))} (ignore) become background"]
        if ignore
        else []
    )
    classes: Classes = {}
    for name, values in regions:
        if identifier(name) in classes:
            raise DataError(f"{path}: two labels are called {identifier(name)}; rename one of them")
        classes[identifier(name)] = values[0] if len(values) == 1 else values
    listed = [value for _, values in regions for value in values]
    if len(set(listed)) != len(listed):
        # Regions within regions: a voxel has one class, so each value is one, under its own name if it has one.
        single = {values[0]: name for name, values in reversed(regions) if len(values) == 1}
        classes = {
            identifier(single.get(value, f"label_{value}")): value for value in sorted(set(listed))
        }
        notes.append(
            f"{path}: its regions overlap, expected one class a voxel; label values became the classes "
            f"{', '.join(classes)}, rename them in dataset.toml"
        )
    if not classes:
        raise DataError(
            f"{path}: labels names no class besides the background, expected at least one; complete it"
        )
    known = {value: name for name, values in regions for value in values} | dict.fromkeys(
        ignore, "ignore"
    )
    return classes, ignore, dict(sorted(known.items())), notes


def _contents(source: Path, table: dict[str, Any]) -> Contents:
    path = source / "dataset.json"
    channels = table.get("channel_names", table.get("modality"))
    if (
        not isinstance(channels, dict)
        or not channels
        or not all(str(key).isdecimal() for key in channels)
    ):
        raise DataError(
            f'{path}: lacks the channels, expected "modality": {{"0": "MRI"}} (MSD) or "channel_names" (nnU-Net); add them'
        )
    if not isinstance(table.get("labels"), dict):
        raise DataError(
            f'{path}: lacks the labels, expected "labels": {{"0": "background", "1": "liver"}}; add them'
        )
    classes, ignore, known, notes = read_classes(path, table["labels"])
    return Contents(
        path=path,
        name=str(table.get("name") or source.resolve().name),
        channels={int(number): str(name) for number, name in channels.items()},
        classes=classes,
        ignore=ignore,
        known=known,
        notes=tuple(notes),
    )


def _label_entries(path: Path, labels: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """(name, values) pairs from `{"1": "liver"}` or from `{"liver": 1}`."""
    try:
        if all(str(key).isdecimal() for key in labels):
            return [(str(name), [int(value)]) for value, name in labels.items()]
        return [
            (name, [int(v) for v in (value if isinstance(value, list) else [value])])
            for name, value in labels.items()
        ]
    except (TypeError, ValueError):
        raise DataError(
            f'{path}: its labels cannot be read, expected {{"1": "liver"}} (MSD) or {{"liver": 1}} (nnU-Net); correct them'
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file; expected {EXPECTED}, give that folder with --source"
        ) from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); correct the file") from None
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
    try:
        return {_case_of(entry["label"]): source / entry[what] for entry in entries}
    except (TypeError, KeyError):
        raise DataError(
            f'{source / "dataset.json"}: its training list cannot be read, expected entries like {{"image": '
            '"./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}; correct it'
        ) from None


def _case_of(label: str) -> str:
    name = Path(label).name
    return next(
        (
            name.removesuffix(ending)
            for ending in (".nii.gz", *NIFTI, *OTHER)
            if name.endswith(ending)
        ),
        name,
    )


def _ending(source: Path, table: dict[str, Any]) -> str:
    ending = table.get("file_ending", ".nii.gz")
    if ending not in NIFTI + OTHER:
        raise DataError(
            f"{source / 'dataset.json'}: has the file ending {ending}, expected one of {', '.join(NIFTI + OTHER)}; "
            "two-dimensional pictures are no volumes, convert the data"
        )
    return ending


def _files(folder: Path, suffix: str) -> list[Path]:
    found = folder.glob("*") if folder.is_dir() else ()
    return sorted(
        path for path in found if path.name.endswith(suffix) and not path.name.startswith(".")
    )
