"""The hooks of a plugin: one per kind of component.

A plugin is a module that an installed distribution names in the entry-point group `fsseg`. It implements any of the
hooks below and calls `register(name, target)` for each component, with the target as an import string, so that listing
components imports none of them::

    from fsseg import hookimpl

    @hookimpl
    def register_thresholds(register):
        register("otsu", "fsseg_otsu.otsu:Otsu")
"""

from collections.abc import Callable

import pluggy

hookspec = pluggy.HookspecMarker("fsseg")
hookimpl = pluggy.HookimplMarker("fsseg")

Register = Callable[[str, str], None]
"""Takes a component's name and its import string `"package.module:Class"`."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register datasets (`fsseg.volumes.Dataset`)."""


@hookspec
def register_supervoxels(register: Register) -> None:
    """Register supervoxel methods (`fsseg.volumes.Supervoxels`)."""


@hookspec
def register_backbones(register: Register) -> None:
    """Register backbones (`fsseg.interfaces.Backbone`)."""


@hookspec
def register_prototypes(register: Register) -> None:
    """Register prototype extractors (`fsseg.interfaces.PrototypeExtractor`)."""


@hookspec
def register_heads(register: Register) -> None:
    """Register class heads (`fsseg.interfaces.Head`)."""


@hookspec
def register_thresholds(register: Register) -> None:
    """Register threshold policies (`fsseg.interfaces.Threshold`)."""
