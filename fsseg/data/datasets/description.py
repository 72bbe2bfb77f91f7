"""What a folder of scans says of itself: its `dataset.toml`."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Num
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fsseg.data.class_names import problems_of_names
from fsseg.data.datasets.patterns import pattern_problem
from fsseg.data.folds import FOLD_SCHEMES, FoldScheme, disjoint_folds, listed_folds
from fsseg.data.grids import Axis, Orientation
from fsseg.errors import DataError
from fsseg.plugins.numbers import within_bounds
from fsseg.plugins.options import explain
from fsseg.system.names import problem_of, told
from fsseg.system.text import read_toml

FILE_NAME = "dataset.toml"

ChannelName = Annotated[str, Field(min_length=1, max_length=64)]
LabelValue = Annotated[int, Field(ge=1, le=65535)]
Range = Annotated[tuple[float, float], AfterValidator(within_bounds)]

MOST_IN_A_BYTE = 255
"""The largest number of a class in fsseg, and how many classes there may be."""

MOST_VOXELS = 2**31 - 1
"""The least size of a supervoxel is no larger."""

EXAMPLE = """\
name = "my_scans"
image = "image_{case}.nii.gz"
label = "label_{case}.nii.gz"

[classes]
liver = 1"""


class IntensityTable(BaseModel):
    """The table `[intensity]` of a `dataset.toml`: what is done to stored intensities before anything else."""

    model_config = ConfigDict(extra="forbid")
    window: Range | None = Field(
        None, description="clip to these values, for example [-125, 275] in CT"
    )
    percentiles: Range | None = Field(
        None, description="clip to these percentiles of the volume, as [0, 99.5] in MR"
    )
    statistics: Literal["volume", "training"] = Field(
        "volume", description="scale each volume by itself, or all by the fold's training scans"
    )

    def clip(
        self, image: Num[np.ndarray, "slice height width"]
    ) -> Float[np.ndarray, "slice height width"]:
        """Returns the image within the window or the percentiles, in single precision."""
        if self.window is not None:
            image = np.clip(image, *self.window)
        if self.percentiles is not None:
            low, high = np.percentile(image, self.percentiles)
            image = np.clip(image, low, high)
        return image.astype(np.float32)


class Description(BaseModel):
    """The keys of a `dataset.toml`."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field("nifti", min_length=1, description="what tables call the dataset")
    modality: str = Field("", description="MR, CT or other: for people")
    image: str = Field(
        "image_{case}.nii.gz", description="the images' path, {case} stands for the id"
    )
    label: str = Field("label_{case}.nii.gz", description="the labels' path, likewise")
    channels: list[ChannelName] | dict[ChannelName, str] | None = Field(
        None,
        min_length=1,
        description="names of the channels along the images' fourth axis, or the path of each channel's images by its name, "
        "in place of image",
    )
    # The names of the schemes as a type: what a checker of types cannot follow, pydantic can.
    folds: Literal[tuple(FOLD_SCHEMES)] | list[list[str]] | None = Field(  # type: ignore[valid-type]
        None,
        description="a scheme, or the cases of each fold with the support last; otherwise up to five disjoint folds",
    )
    axis: Axis = Field(
        "auto", description="the files' axis along which slices are counted; auto: most anisotropic"
    )
    orientation: Orientation = Field(
        "canonical", description="canonical turns all scans alike, file leaves them"
    )
    supervoxel_min_size: int | None = Field(
        None,
        gt=0,
        le=MOST_VOXELS,
        description="voxels of a supervoxel at least; otherwise it follows from the size of the scan",
    )
    other_labels: Literal["error", "background"] = Field(
        "error", description="what label values without a name are"
    )
    intensity: IntensityTable = IntensityTable()
    classes: dict[str, LabelValue | Annotated[list[LabelValue], Field(min_length=1)]] = Field(
        min_length=1, description="name = value, or name = [values] for a class of several"
    )

    @property
    def image_patterns(self) -> list[str]:
        """The paths of images: one, or one for each channel."""
        return list(self.channels.values()) if isinstance(self.channels, dict) else [self.image]

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names of the channels; none where nothing is said of them."""
        return tuple(self.channels or ())

    def fold_scheme(self, cases: int) -> FoldScheme:
        """Returns how this many cases are divided into folds."""
        if isinstance(self.folds, list):
            return listed_folds(self.folds)
        if self.folds is not None:
            return FOLD_SCHEMES[self.folds]
        return disjoint_folds(cases)

    @property
    def class_values(self) -> dict[str, list[int]]:
        """The label values of each class, in order of the first of them."""
        values = {
            name: value if isinstance(value, list) else [value]
            for name, value in self.classes.items()
        }
        return {name: values[name] for name in sorted(values, key=lambda name: values[name][0])}

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each class in fsseg: its first label value, or its rank where values exceed 255."""
        first = {name: values[0] for name, values in self.class_values.items()}
        if max(first.values()) <= MOST_IN_A_BYTE:
            return first
        return {name: rank for rank, name in enumerate(first, start=1)}


def read_description(folder: Path) -> Description:
    """Returns the `dataset.toml` of a folder; raises DataError listing everything that is wrong with it."""
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder; expected a dataset's folder, give it with --data DIR"
        )
    if not os.path.lexists(path):
        raise DataError(f"{path}: is missing; write it with the classes, for example\n{EXAMPLE}")
    tables = read_toml(path, DataError)
    try:
        described = Description.model_validate_json(json.dumps(tables, default=str), strict=True)
    except ValidationError as error:
        problems = [f"{key}: {text}" for key, text in explain(error, _valid_keys)]
    else:
        problems = list(_problems(described))
        if not problems:
            return described
    raise DataError("\n".join(f"{path}: {problem}" for problem in problems))


def _valid_keys(location: tuple[int | str, ...]) -> list[str]:
    table = IntensityTable if location == ("intensity",) else Description
    return list(table.model_fields)


def _problems(described: Description) -> Iterator[str]:
    """What is wrong that the types of the keys do not say."""
    patterns = {"image": described.image, "label": described.label}
    if isinstance(described.channels, dict):
        patterns |= {f"channels.{name}": path for name, path in described.channels.items()}
    for key, pattern in patterns.items():
        problem = pattern_problem(pattern)
        if problem is not None:
            yield f"{key}: {pattern!r} {problem}"
    yield from _channel_problems(described)
    if described.image == described.label:
        yield f"image and label: are both {described.image!r}, expected a pattern for each"
    problem = problem_of(described.name)
    if problem is not None:
        yield f"name: {told(described.name)} {problem}; rename the dataset"
    for problem in problems_of_names(described.classes):
        yield f"classes: {problem}"
    if len(described.classes) > MOST_IN_A_BYTE:
        yield (
            f"classes: names {len(described.classes)} classes, expected at most {MOST_IN_A_BYTE}; join some, as in "
            "name = [1, 2]"
        )
    counts = Counter(chain.from_iterable(described.class_values.values()))
    for value in sorted(value for value, count in counts.items() if count > 1):
        yield f"classes: value {value} stands for two classes, expected one; give each class values of its own"
    intensity = described.intensity
    for key, bounds in (("window", intensity.window), ("percentiles", intensity.percentiles)):
        if bounds is not None and bounds[0] >= bounds[1]:
            yield f"intensity.{key}: is {list(bounds)}, expected [low, high] with low below high"
    low, high = intensity.percentiles or (0, 100)
    if low < 0 or high > 100:
        yield f"intensity.percentiles: is {[low, high]}, expected numbers from 0 to 100"
    if isinstance(described.folds, list) and len(described.folds) < 2:
        yield "folds: lists one fold, expected at least two; the cases of the others train"


def _channel_problems(described: Description) -> Iterator[str]:
    """What is wrong with the channels, besides their patterns."""
    counts = Counter([*described.channel_names])
    for name, count in counts.items():
        if count > 1:
            yield f"channels: names {name} twice, expected a name for each channel"
        problem = problem_of(name)
        if problem is not None:
            yield f"channels: {told(name)} {problem}; rename the channel"
    if isinstance(described.channels, dict):
        paths = Counter([*described.image_patterns, described.label])
        for path, count in paths.items():
            if count > 1:
                yield f"channels: {path!r} stands for two of channels and label, expected a pattern for each"
        if "image" in described.model_fields_set:
            yield "image: is given beside [channels], expected one of them; leave image out"
