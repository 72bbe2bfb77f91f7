"""Medical Segmentation Decathlon (Antonelli et al., 2022) and nnU-Net: what their dataset.json describes."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fsseg.data.prepare.pairs import make_pair
from fsseg.data.prepare.plan import CasePlan, Plan, check_source, file_ids, identifier
from fsseg.errors import DataError

FILE_NAME = "dataset.json"
EXPECTED = f"a Decathlon task or an nnU-Net dataset with {FILE_NAME}, imagesTr and labelsTr"


@dataclass(frozen=True)
class Described:
    """What a dataset.json says, in either dialect.

    Attributes:
        name: The dataset's name.
        channels: Names of the channels, in order.
        classes: Label values of each class.
        ending: How files end.
        listed: Image and label of each case as the file lists them; None where folders have to tell (nnU-Net).
    """

    name: str
    channels: list[str]
    classes: dict[str, list[int]]
    ending: str
    listed: list[tuple[str, str]] | None

    @property
    def modality(self) -> str:
        """CT or MR, as far as the first channel's name tells."""
        return "CT" if self.channels[0].strip().lower() == "ct" else "MR"


def plan(source: Path, channel: str | None = None) -> Plan:
    """The training cases.

    Args:
        source: The dataset's folder.
        channel: Of several channels, the one to take: its number, or its name in dataset.json.

    Raises:
        DataError: The folder or its dataset.json is not as expected, or a channel has to be chosen.
    """
    check_source(source, EXPECTED)
    described = read_description(source / FILE_NAME)
    number = _choose(described, channel, source / FILE_NAME)
    pairs = _listed(source, described) if described.listed is not None else _in_folders(source, described, number)
    if not pairs:
        raise DataError(f"{source}: lists no training case, expected {EXPECTED}; check that the copy is complete")
    ids = file_ids(pairs, source)
    # A Decathlon file holds all its channels along a fourth axis; nnU-Net keeps them apart.
    inside = number if described.listed is not None and len(described.channels) > 1 else None
    cases = tuple(
        CasePlan(ids[case], (image,), (label,), {"channel": inside}) for case, (image, label) in pairs.items()
    )
    return Plan(
        layout="msd",
        source=source,
        image="image_{case}.nii.gz",
        label="label_{case}.nii.gz",
        cases=cases,
        make=make_pair,
        describe=partial(_describe, described),
    )


def read_description(path: Path) -> Described:
    """Reads a dataset.json of the Decathlon or of nnU-Net; raises DataError for anything else."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        channels = stored.get("channel_names", stored.get("modality", {"0": "MRI"}))
        labels = stored["labels"]
        listed = stored.get("training")
        return Described(
            name=identifier(str(stored.get("name") or path.parent.name)),
            channels=[str(channels[number]) for number in sorted(channels, key=int)],
            classes=_classes(labels),
            ending=stored.get("file_ending", ".nii.gz"),
            listed=None if listed is None else [(pair["image"], pair["label"]) for pair in listed],
        )
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; expected {EXPECTED}, give that folder with --source") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is no dataset.json of the Decathlon or nnU-Net ({type(error).__name__}: {error}), expected labels, "
            "and modality or channel_names in it; correct the file"
        ) from None


def _classes(labels: dict[str, Any]) -> dict[str, list[int]]:
    """Values by class. The Decathlon maps values to names, nnU-Net names to values, or to lists for regions."""
    if all(key.isdigit() for key in labels):
        labels = {str(name): int(value) for value, name in labels.items()}
    values = {identifier(name): value if isinstance(value, list) else [value] for name, value in labels.items()}
    return {
        name: [int(v) for v in of] for name, of in values.items() if name not in ("background", "ignore") and of != [0]
    }


def _describe(described: Described, cases: int, values: list[int]) -> tuple[dict[str, Any], list[str]]:
    """The dataset.toml; regions that overlap become the values that are theirs alone, since classes cannot overlap."""
    notes, classes, taken = [], {}, set[int]()
    # The smallest regions first: a larger one that contains them keeps the rest.
    for name, of in sorted(described.classes.items(), key=lambda item: len(item[1])):
        own = [value for value in of if value not in taken and value != 0]
        taken.update(own)
        if own != of:
            notes.append(
                f"class {name} overlaps with others; it keeps the values {own} of {of}"
                if own
                else f"class {name} is left out: its values are other classes'"
            )
        if own:
            classes[name] = own[0] if len(own) == 1 else own
    others = [value for value in values if value not in taken]
    if others:
        notes.append(f"label values {', '.join(map(str, others))} have no name in {FILE_NAME}; they belong to no class")
    description = {
        "name": described.name,
        "modality": described.modality,
        "image": "image_{case}.nii.gz",
        "label": "label_{case}.nii.gz",
        **({"other_labels": "background"} if others else {}),
        "intensity": {"window": [-125, 275]} if described.modality == "CT" else {"percentiles": [0, 99.5]},
        "classes": dict(
            sorted(classes.items(), key=lambda item: min(item[1]) if isinstance(item[1], list) else item[1])
        ),
    }
    return description, notes


def _choose(described: Described, channel: str | None, path: Path) -> int:
    """The number of the wanted channel."""
    names = [name.strip().lower() for name in described.channels]
    if channel is None and len(names) == 1:
        return 0
    if channel is not None and channel.strip().lower() in names:
        return names.index(channel.strip().lower())
    if channel is not None and channel.isdigit() and int(channel) < len(names):
        return int(channel)
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(described.channels))
    got = "none was chosen" if channel is None else f"got {channel!r}"
    raise DataError(f"{path}: has the channels {listed}, {got}; choose one with --channel NUMBER or NAME")


def _listed(source: Path, described: Described) -> dict[str, tuple[Path, Path]]:
    """Image and label by case, as dataset.json lists them; raises DataError for files that are not there."""
    pairs = {}
    for image, label in described.listed:
        paths = (source / image, source / label)
        for path in paths:
            if not path.is_file():
                raise DataError(f"{path}: is missing, expected it as {FILE_NAME} lists it; copy the file")
        pairs[_without_ending(paths[0].name, described.ending)] = paths
    return pairs


def _in_folders(source: Path, described: Described, channel: int) -> dict[str, tuple[Path, Path]]:
    """Image and label by case, from nnU-Net's names: CASE_0000 for the first channel, CASE for the labels."""
    pairs = {}
    for label in sorted((source / "labelsTr").glob(f"*{described.ending}")):
        if label.name.startswith("._"):  # left by macOS
            continue
        case = _without_ending(label.name, described.ending)
        image = source / "imagesTr" / f"{case}_{channel:04d}{described.ending}"
        if not image.is_file():
            raise DataError(f"{image}: is missing, expected it beside {label.name}; copy the file or remove the label")
        pairs[case] = (image, label)
    return pairs


def _without_ending(name: str, ending: str) -> str:
    for known in (ending, ".nii.gz", ".nii"):
        if name.endswith(known):
            return name[: -len(known)]
    return name
