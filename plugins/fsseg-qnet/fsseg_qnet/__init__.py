"""Q-Net for fsseg. Hooks live here, apart from the code, so that listing components imports no torch."""

from fsseg import hookimpl


@hookimpl
def register_backbones(register):
    """Registers a small backbone with two scales, and the paper's."""
    register("two_scales", "fsseg_qnet.backbones:TwoScales")
    register("qnet_resnet101", "fsseg_qnet.backbones:QNetResNet101")


@hookimpl
def register_prototypes(register):
    """Registers the extractor as `qnet`."""
    register("qnet", "fsseg_qnet.qnet:PrototypeOfEachScale")


@hookimpl
def register_heads(register):
    """Registers the head as `qnet`."""
    register("qnet", "fsseg_qnet.qnet:QueryInformed")
