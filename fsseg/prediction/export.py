"""A trained variant as one file: for fsseg on another machine, or its backbone for other programs."""

from pathlib import Path
from typing import Any, cast

import torch

from fsseg.errors import FssegError
from fsseg.model.inputs import channels_of
from fsseg.prediction.trained import read_run
from fsseg.system.files import replacing
from fsseg.system.targets import require_file

SIZE = 256
"""Height and width of the images of an ONNX file whose recipe does not say."""


def export_predictor(
    run: str | Path,
    path: str | Path,
    *,
    variant: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
) -> Path:
    """Writes everything that prediction needs into one safetensors file, which is read without the run; no pickle.

    Args:
        run: The run directory.
        path: The file, which `fsseg.load_predictor` reads.
        variant: The variant; the first that is no oracle when omitted.
        fold: The fold whose training to take; the first when omitted.
        seed: The seed whose training to take; the first when omitted.

    Returns:
        The file's path.

    Raises:
        FssegError: As of `fsseg.load_predictor`.

    Example:
        fsseg.export_predictor("runs/table1-20261123-120000", "tpm.safetensors", variant="TPM 5, LinEst")
    """
    target = Path(path)
    require_file(target)
    read_run(run, variant, fold, seed).save(target)
    return target


def export_onnx(
    run: str | Path,
    path: str | Path,
    *,
    fold: int | None = None,
    seed: int | None = None,
) -> Path:
    """Writes the trained backbone as ONNX: "images" `slice 3 height width` (other numbers of
    channels where the backbone has `context` or `in_channels`) to "features" `slice channel h w`.

    Images are those after the backbone's intensity rule. The number of slices is free, their size is the working grid's or,
    where that follows from the scan, 256 x 256.

    Args:
        run: The run directory.
        path: The file.
        fold: The fold whose training to take; the first when omitted.
        seed: The seed whose training to take; the first when omitted.

    Returns:
        The file's path.

    Raises:
        FssegError: As of `fsseg.load_predictor`, or onnx and onnxscript are not installed.
    """
    target = Path(path)
    require_file(target)
    trained = read_run(run, None, fold, seed)
    backbone = trained.segmenter().backbone
    size = trained.recipe.grid.size or SIZE
    images = torch.zeros(2, channels_of(backbone), size, size)
    try:
        program: Any = torch.onnx.export(
            cast(torch.nn.Module, backbone),
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("slice")},),
        )
    except ImportError:
        raise FssegError("export: ONNX needs onnx and onnxscript; install fsseg[onnx]") from None
    with replacing(target) as unfinished:
        unfinished.write_bytes(program.model_proto.SerializeToString())
    return target
