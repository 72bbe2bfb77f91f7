"""Augmentations: changes of training slices, whose numbers are drawn first and applied on the device."""

from fsseg.system.imports import on_first_use

__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "fsseg.training.augmentations.intensity": ["BiasField", "Gamma", "Noise", "RandomCurve"],
        "fsseg.training.augmentations.network": ["RandomNetwork"],
        "fsseg.training.augmentations.spatial": ["AffineWarp", "ElasticWarp", "Flip", "Warp"],
    },
)
