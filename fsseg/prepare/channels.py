"""Which channels of a dataset with several are prepared."""

from pathlib import Path

from fsseg.data.datasets.nifti import first_few
from fsseg.data.datasets.patterns import by_number
from fsseg.errors import DataError

ALL = "all"
"""The channel that stands for all of them."""

Channels = dict[int, str]
"""Names of channels by their number."""


def require_all_channels(source: Path, images: list[dict[str, Path]], names: list[str]) -> None:
    """Raises DataError where a case lacks one of the channels."""
    every = {case for files in images for case in files}
    for files, name in zip(images, names, strict=True):
        missing = sorted(every - files.keys(), key=by_number)
        if missing:
            raise DataError(
                f"{source}: channel {name} is missing for {first_few(missing, 10)}, expected every channel of every case; copy "
                "the files to imagesTr, or keep one channel with --channel"
            )


def choose_channels(path: Path, channels: Channels, channel: str | None) -> list[int]:
    """Returns the numbers of the channels to keep, which are all for "all"; see `choose_channel`."""
    if channel is not None and channel.strip().lower() == ALL:
        return sorted(channels)
    return [choose_channel(path, channels, channel)]


def choose_channel(path: Path, channels: Channels, channel: str | None) -> int:
    """Returns the channel's number; raises DataError listing the channels where none or an unknown one is given."""
    listed = ", ".join(f"{number} {name}" for number, name in channels.items())
    if channel is None:
        if len(channels) == 1:
            return next(iter(channels))
        raise DataError(
            f"{path}: has several channels ({listed}), expected one; choose it with --channel, or keep them "
            f"with --channel {ALL}"
        )
    wanted = channel.strip().lower()
    for number, name in channels.items():
        if wanted in (str(number), name.lower()):
            return number
    raise DataError(
        f"--channel {channel}: there is no such channel, expected one of {listed}; choose one of these"
    )
