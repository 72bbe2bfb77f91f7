"""PPNet for fsseg. Hooks live here, apart from the code, so that listing components imports no torch."""

from fsseg import hookimpl


@hookimpl
def register_prototypes(register):
    """Registers the extractor as `kmeans_parts`."""
    register("kmeans_parts", "fsseg_ppnet.ppnet:Parts")


@hookimpl
def register_heads(register):
    """Registers the head as `ppnet`."""
    register("ppnet", "fsseg_ppnet.ppnet:NearestPart")
