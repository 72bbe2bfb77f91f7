"""Networks of timm, cut after their last needed stage, and what sizes of slices they take."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fsseg.errors import FssegError

ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
)
"""What makes timm's transformers take slices of any size, where they can; the first that a network knows is used."""

EDGE = 32
"""Slices whose edges are multiples of this are tried where a network refuses others."""

Size = tuple[int, int]
"""Height and width."""

Images = Float[Tensor, "slice input height width"]


def make_network(
    model: str, strides: list[int], output_stride: int | None, image_size: Size | None
) -> tuple[Any, list[int], int]:
    """Makes a network that ends with its last needed stage.

    Args:
        model: timm's name of the network.
        strides: Strides of the wanted stages.
        output_stride: Dilates instead of striding beyond this.
        image_size: The only size of slices, for networks that are made for one.

    Returns:
        The network, the places of the wanted stages among its outputs, and the number that the edges of its images
        have to be a multiple of.

    Raises:
        FssegError: timm has no such network, cannot make it so, or it has no such stages.
    """
    _require_model(model)
    options = _options(model, output_stride, image_size)
    whole = _create(model, options)
    offered = whole.feature_info.reduction()
    missing = [stride for stride in strides if stride not in offered]
    if missing:
        raise FssegError(
            f"backbone timm: {model} has stages of stride {offered}, expected {missing} among them; change strides"
        )
    wanted = sorted(_deepest(stride, offered) for stride in strides)
    # By timm's own numbers of them: those of a transformer are its last blocks, and some networks begin at 1.
    numbers = tuple(whole.feature_info.out_indices[: wanted[-1] + 1])
    network = _create(model, options | {"out_indices": numbers})
    _leave_out_later_blocks(network)
    is_padded = "dynamic_img_pad" in options or not options.keys() & {
        "dynamic_img_size",
        "strict_img_size",
    }
    return network, wanted, 1 if is_padded else min(offered)


def _leave_out_later_blocks(network: Any) -> None:
    """Cuts an EfficientNet, which would run every block, also those after the last wanted stage."""
    from timm.models.efficientnet import EfficientNetFeatures

    if isinstance(network, EfficientNetFeatures):
        last = max(info["stage"] for info in network.feature_info.get_dicts())
        network.blocks = network.blocks[:last]


def _options(model: str, output_stride: int | None, image_size: Size | None) -> dict[str, Any]:
    """The options that timm makes the network with."""
    options: dict[str, Any] = {"features_only": True}
    if output_stride is not None:
        options["output_stride"] = output_stride
    if image_size is not None:
        return options | {"img_size": image_size}
    for further in ANY_SIZE:
        if _is_made_with(model, options | further):
            return options | further
    return options


def _is_made_with(model: str, options: dict[str, Any]) -> bool:
    """True where timm makes the network with these options; draws nothing from the generators."""
    import timm

    with torch.random.fork_rng(devices=[]):
        try:
            timm.create_model(model, **options)
        except TypeError:  # an option that it does not know
            return False
        except Exception:  # one that it does not make at all, which `_create` says
            return False
    return True


def _create(model: str, options: dict[str, Any]) -> Any:
    """The network; timm's classes refuse in many ways what they cannot be made with."""
    import timm

    try:
        return timm.create_model(model, **options)
    except Exception as error:
        asked = {
            "output_stride": options.get("output_stride"),
            "image_size": options.get("img_size"),
        }
        given = {name: value for name, value in asked.items() if value is not None}
        words = "".join(f" with {name} = {value}" for name, value in given.items())
        remedy = f"leave {' and '.join(given)} out, or choose" if given else "choose"
        raise FssegError(
            f"backbone timm: timm cannot make {model} as a features_only network{words} "
            f"({type(error).__name__}: {_first_line(error)}); {remedy} another model"
        ) from error


def _require_model(model: str) -> None:
    """Raises FssegError for a network that timm does not have."""
    import timm

    if timm.is_model(model):
        return
    close = timm.list_models(f"*{model.split('_')[0]}*")[:3]
    remedy = f"; did you mean one of {', '.join(close)}?" if close else "; see timm.list_models()"
    raise FssegError(
        f"backbone timm: there is no model {model!r} in timm {timm.__version__}{remedy}"
    )


def _deepest(stride: int, offered: list[int]) -> int:
    """The last stage of this stride: a dilated network has several."""
    return max(stage for stage, reduction in enumerate(offered) if reduction == stride)


def stages_of(network: Any, images: Images, multiple: int, known: set[Size]) -> list[Tensor]:
    """All outputs of a network, channels before height and width.

    Args:
        network: The network.
        images: Its images, which are filled up on the right and below.
        multiple: What their edges have to be a multiple of.
        known: Sizes that the network has taken; that of the images is added.

    Raises:
        FssegError: The network takes no images of this size; the message names one that it takes.
    """
    height, width = images.shape[-2:]
    filling = (0, -width % multiple, 0, -height % multiple)
    filled = F.pad(images, filling, mode="replicate") if any(filling) else images
    try:
        outputs = network(filled)
    except Exception as error:
        if (height, width) in known or _takes(
            network, (height + filling[3], width + filling[1]), images
        ):
            raise  # for another reason, such as a device without memory
        raise FssegError(_refusal(network, (height, width), images, error)) from error
    known.add((height, width))
    if str(getattr(network, "output_fmt", None)).endswith("NHWC"):
        return [output.movedim(-1, 1) for output in outputs]
    return outputs


@torch.no_grad()
def _takes(network: nn.Module, size: Size, like: Images) -> bool:
    """True for a size that the network has features for."""
    was_training = network.training
    try:
        network.eval()(like.new_zeros(1, like.shape[1], *size))
    except Exception:
        return False
    finally:
        network.train(was_training)
    return True


def _refusal(network: Any, size: Size, images: Images, error: Exception) -> str:
    """The sentence for a size that a network does not take, with what was found to help."""
    height, width = size
    about = getattr(network, "pretrained_cfg", None) or {}
    larger = -(-max(size) // EDGE) * EDGE
    _, usual, _ = about.get("input_size", (3, larger, larger))
    remedies = []
    for edge in dict.fromkeys((larger, usual, 2 * usual)):
        if _takes(network, (edge, edge), images):
            remedies.append(f"set grid.size to {edge}")
            break
    if _is_made_for(str(about.get("architecture", "")), size, images):
        remedies.append(f"set backbone.image_size to [{height}, {width}]")
    remedies.append("choose another model")
    return (
        f"backbone timm: the network takes no slices of {height} x {width} ({type(error).__name__}: {_first_line(error)}); "
        + ", or ".join(remedies)
    )


def _is_made_for(model: str, size: Size, like: Images) -> bool:
    """True where timm can make the network for slices of this size."""
    import timm

    with torch.random.fork_rng(devices=[]):
        try:
            network = timm.create_model(model, features_only=True, img_size=size)
        except Exception:
            return False
        return _takes(network.to(like.device), size, like.new_zeros(1, 3, 1, 1))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
