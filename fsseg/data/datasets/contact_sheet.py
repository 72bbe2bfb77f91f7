"""A picture of a dataset: one labelled slice of every scan, with the outlines of its classes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from fsseg.data.datasets.check import Checked
from fsseg.data.datasets.summary import CheckedCase
from fsseg.errors import FssegError
from fsseg.system.pictures import drawn, require_picture, save_picture

MOST_SCANS = 100
"""A larger sheet would be too large to look at."""


def write_contact_sheet(checked: Checked, path: Path) -> None:
    """Draws the middle labelled slice of every scan with its classes' outlines into a file, all or nothing.

    Raises FssegError where matplotlib is not installed or the file cannot be written, or is of no format of pictures.
    """
    require_picture(path)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError:
        raise FssegError(
            "the contact sheet needs matplotlib; install fsseg[prepare], or pass --no-sheet"
        ) from None
    shown = checked.cases[:MOST_SCANS]
    count = max(1, len(shown))
    columns = math.ceil(math.sqrt(1.4 * count))
    rows = math.ceil(count / columns)
    size = (2 * columns, 2.15 * rows + 0.5)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    palette = _palette(len(checked.classes))
    colours = dict(zip(checked.classes.values(), palette))
    for ax, case in zip(axes, shown):
        _draw(ax, case, colours)
    handles = []
    for name, colour in zip(checked.classes, palette):
        handles.append(Line2D([], [], color=colour, label=drawn(name)))
    columns_of_legend = min(6, len(handles))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns_of_legend, frameon=False
    )
    figure.suptitle(
        f"{drawn(checked.name)}: middle labelled slices of {len(shown)} of {len(checked.cases)} scans"
    )
    save_picture(figure, path)


def _draw(ax: Any, checked: CheckedCase, colours: dict[int, str]) -> None:
    """Draws a scan's slice with the outlines of the classes in it, by their number."""
    snapshot = checked.snapshot
    height, width = snapshot.pixel
    image = snapshot.image
    channels = [image] if image.ndim == 2 else list(image)
    side_by_side = np.concatenate([_grey(channel) for channel in channels], axis=1)
    ax.imshow(side_by_side, cmap="gray", vmin=0, vmax=1, aspect=height / width)
    labels = np.tile(snapshot.labels, (1, len(channels)))
    for number, colour in colours.items():
        mask = labels == number
        if mask.any():
            ax.contour(mask, levels=[0.5], colors=[colour], linewidths=1)
    ax.set_title(drawn(checked.case), fontsize=8)


def _grey(image: Num[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """A channel of a slice with its 1st percentile at 0 and its 99.5th at 1."""
    low, high = np.percentile(image, [1, 99.5])
    return (image - low) / max(high - low, 1e-6)


def _palette(count: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    palette: Any = colormaps["tab10" if count <= 10 else "tab20"]
    colours = palette.colors
    return [to_hex(colours[place % len(colours)]) for place in range(count)]
