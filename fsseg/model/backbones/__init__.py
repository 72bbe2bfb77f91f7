"""Backbones: networks that turn slices into features."""

from fsseg.system.imports import on_first_use

__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "fsseg.model.backbones.deeplab": ["DeepLabResNet101"],
        "fsseg.model.backbones.timm": ["TimmBackbone"],
    },
)
