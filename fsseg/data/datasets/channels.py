"""The files of scans whose images have several channels: in one file each, or in a file of each channel."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fsseg.data.datasets.description import Description
from fsseg.data.datasets.finding import Files, match_pairs, unpaired
from fsseg.data.datasets.nifti import ScanFile, first_few, read_channels, read_nifti


@dataclass(frozen=True)
class Found:
    """What the patterns of a description find in a folder.

    Attributes:
        images: By case, the image files: one, or one for each channel.
        labels: The label map of each case.
        problems: A sentence for everything that is wrong besides missing partners.
        partners: A sentence for every image or label map without its partner.
    """

    images: dict[str, list[Path]]
    labels: Files
    problems: list[str]
    partners: list[str]


def find_scans(root: Path, described: Description) -> Found:
    """Returns the files of a folder, as described; cases that lack a channel are told and left out."""
    label = described.label
    patterns = described.image_patterns
    pairs = [match_pairs(root, image, label) for image in patterns]
    by_channel = [pair.images for pair in pairs]
    # What a channel's pattern finds as well is no label map: `{case}.nii.gz` beside `{case}_0000.nii.gz`.
    first, *others = pairs
    labels = {}
    for case, path in first.labels.items():
        if all(case in other.labels for other in others):
            labels[case] = path
    problems = dict.fromkeys(problem for pair in pairs for problem in pair.problems)
    images = {}
    for case in by_channel[0]:
        if all(case in files for files in by_channel):
            images[case] = [files[case] for files in by_channel]
    lacking = list(_lacking(root, described, by_channel))
    of_first = by_channel[0] if lacking else {case: paths[0] for case, paths in images.items()}
    partners = unpaired(root, of_first, labels, patterns[0], label)
    return Found(images, labels, [*problems, *lacking], partners)


def _lacking(root: Path, described: Description, by_channel: list[Files]) -> Iterator[str]:
    """A sentence for each channel that some cases lack and others have."""
    every = dict.fromkeys(case for files in by_channel for case in files)
    for name, pattern, files in zip(
        described.channel_names, described.image_patterns, by_channel, strict=False
    ):
        lacking = [case for case in every if case not in files]
        if lacking:
            yield (
                f"{root}: channel {name} is missing for {len(lacking)} case(s): {first_few(lacking)}; expected {pattern} "
                "for each case that has another channel, add the files or remove these cases"
            )


def read_images(paths: list[Path], described: Description) -> list[ScanFile]:
    """Returns the images of a case, one for each channel.

    Args:
        paths: Its files: one for each channel, or one with all of them.
        described: The description, which names the channels.

    Raises:
        DataError: A file cannot be read, or has other channels than the description says.
    """
    names = described.channel_names
    if isinstance(described.channels, list):
        [path] = paths
        files = read_channels(path, names)
    else:
        files = [read_nifti(path) for path in paths]
    if len(files) == 1:
        return files
    return [replace(file, channel=name) for file, name in zip(files, names, strict=True)]
