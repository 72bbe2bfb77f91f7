"""A picture of a dataset: one labelled slice of every scan, with the outlines of its classes."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from fsseg.data.datasets.check import Checked, CheckedCase
from fsseg.errors import FssegError
from fsseg.system.files import replacing

MOST_SCANS = 100
"""A larger sheet would be too large to look at."""


def write_contact_sheet(checked: Checked, path: Path) -> None:
    """Draws the middle labelled slice of every scan with its classes' outlines into a PNG file, all or nothing.

    Raises FssegError where matplotlib is not installed or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError:
        raise FssegError(
            "the contact sheet needs matplotlib; install fsseg[prepare], or pass --no-sheet"
        ) from None
    shown = checked.cases[:MOST_SCANS]
    columns = max(1, math.ceil(math.sqrt(1.4 * len(shown))))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(2 * columns, 2.15 * rows + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = dict(zip(checked.classes.values(), _colours(len(checked.classes))))
    for place, ax in enumerate(axes):
        ax.axis("off")
        if place < len(shown):
            _draw(ax, shown[place], colours)
    handles = [
        Line2D([], [], color=colours[number], label=name)
        for name, number in checked.classes.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False
    )
    figure.suptitle(
        f"{checked.name}: middle labelled slices of {len(shown)} of {len(checked.cases)} scans"
    )
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png")


def _draw(ax: Any, checked: CheckedCase, colours: dict[int, str]) -> None:
    snapshot = checked.snapshot
    low, high = np.percentile(snapshot.image, [1, 99.5])
    ax.imshow(
        snapshot.image,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        aspect=snapshot.pixel[0] / snapshot.pixel[1],
    )
    for number, colour in colours.items():
        if (snapshot.labels == number).any():
            ax.contour(snapshot.labels == number, levels=[0.5], colors=[colour], linewidths=1)
    ax.set_title(checked.case, fontsize=8)


def _colours(count: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    listed = colormaps["tab10" if count <= 10 else "tab20"].colors
    return [to_hex(listed[place % len(listed)]) for place in range(count)]
