"""Supervoxels: the regions of a scan that serve as pseudo-classes in training. No torch here."""

from fsseg.system.imports import on_first_use

__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "fsseg.data.supervoxels.felzenszwalb": ["Felzenszwalb"],
        "fsseg.data.supervoxels.slic": ["Slic"],
        "fsseg.data.supervoxels.stored": ["Stored"],
    },
)
