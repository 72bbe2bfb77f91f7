"""Datasets: where the scans of an experiment come from. No torch here."""

from fsseg.system.imports import on_first_use

__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "fsseg.data.datasets.folders": ["ChaosT2", "Cmr", "NiftiFolder", "Sabs", "find_dataset"],
        "fsseg.data.datasets.phantom.dataset": ["AbdomenPhantom"],
    },
)
