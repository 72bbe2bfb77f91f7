"""ALPNet for fsseg. Hooks live here, apart from the code, so that listing components imports no torch."""

from fsseg import hookimpl


@hookimpl
def register_prototypes(register):
    """Registers the extractor as `alp`."""
    register("alp", "fsseg_alpnet.alpnet:LocalPrototypes")


@hookimpl
def register_heads(register):
    """Registers the head as `alpnet`."""
    register("alpnet", "fsseg_alpnet.alpnet:SoftMaximum")
