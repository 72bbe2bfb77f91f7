"""PANet for fsseg. Hooks live here, apart from the code, so that listing components imports no torch."""

from fsseg import hookimpl


@hookimpl
def register_prototypes(register):
    """Registers the extractor as `panet`."""
    register("panet", "fsseg_panet.panet:BothSides")


@hookimpl
def register_heads(register):
    """Registers the head as `panet`."""
    register("panet", "fsseg_panet.panet:CosineSoftmax")
