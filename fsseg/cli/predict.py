"""The commands that use a finished run: `fsseg predict`, `fsseg export`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fsseg.cli.console import follow, print_size, wide_console
from fsseg.cli.options import (
    Device,
    LeftOut,
    PluginFiles,
    RunDirectory,
    SeedOfTraining,
    VariantName,
)
from fsseg.errors import FssegError

RunOrExport = Annotated[
    Path, typer.Argument(help="A run directory, or a file that fsseg export wrote.", metavar="RUN")
]
FurtherScans = Annotated[
    list[Path] | None, typer.Argument(help="Further scans to segment.", metavar="[SCAN...]")
]
SupportFile = Annotated[
    Path, typer.Option(metavar="FILE", help="A scan with labelled slices, NIfTI.")
]
SupportLabels = Annotated[
    Path, typer.Option(metavar="FILE", help="Its labels, 0 where nothing is labelled.")
]
QueryFiles = Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A scan to segment.")]
OutFolder = Annotated[Path, typer.Option(metavar="DIR", help="Where to write label maps.")]
SliceNumbers = Annotated[
    list[int] | None,
    typer.Option(
        "--slice", metavar="N", help="A labelled slice to use, from 0; the fullest when omitted."
    ),
]
FoldToUse = Annotated[
    int | None, typer.Option(metavar="N", help="Whose training to use [default: the first].")
]
Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="Write the probability of each class as well.")
]
ExportFile = Annotated[
    Path,
    typer.Argument(
        help="FILE.safetensors for fsseg predict, or FILE.onnx: the backbone alone.",
        metavar="FILE",
    ),
]
FoldToTake = Annotated[
    int | None, typer.Option(metavar="N", help="Whose training to take [default: the first].")
]


def predict_command(
    run: RunOrExport,
    more: FurtherScans = None,
    *,
    support: SupportFile,
    support_labels: SupportLabels,
    query: QueryFiles = None,
    out: OutFolder,
    slices: SliceNumbers = None,
    variant: VariantName = None,
    fold: FoldToUse = None,
    seed: SeedOfTraining = None,
    probabilities: Probabilities = False,
    device: Device = "auto",
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
) -> None:
    """Segment new scans from one labelled slice of another, with a finished run.

    The organ need not be one that was trained or evaluated. Label maps lie on each scan's own grid, with the support's
    label values; the threshold policy is the row's, as calibrated.
    """
    scans = [*(query or []), *(more or [])]
    if not scans:
        raise FssegError("predict: got no scan to segment, expected --query FILE")
    from fsseg.prediction.files import predict_files
    from fsseg.prediction.predictor import load_predictor

    predictor = load_predictor(run, variant=variant, fold=fold, seed=seed, device=device)
    with follow() as bars:
        how: dict[str, Any] = {"slices": slices, "probabilities": probabilities, "progress": bars}
        written = predict_files(predictor, support, support_labels, scans, out, **how)
    console = wide_console()
    for path, voxels in written:
        counts = ", ".join(f"{name} {count} voxels" for name, count in voxels.items())
        console.print(f"{path}: {counts}", soft_wrap=True)


def export_command(
    run: RunDirectory,
    out: ExportFile,
    variant: VariantName = None,
    fold: FoldToTake = None,
    seed: SeedOfTraining = None,
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
) -> None:
    """Put all that prediction needs into one file, which works on a machine without the run.

    Give the file to fsseg predict in place of the run directory. A name that ends with .onnx gets the trained backbone for
    other programs.
    """
    from fsseg.prediction.export import export_onnx, export_predictor

    if out.suffix == ".safetensors":
        export_predictor(run, out, variant=variant, fold=fold, seed=seed)
    elif out.suffix != ".onnx":
        raise FssegError(f"export: got {out}, expected a name that ends with .safetensors or .onnx")
    elif variant is not None:
        raise FssegError(
            "export: got --variant for ONNX, which holds the backbone alone; leave it out"
        )
    else:
        export_onnx(run, out, fold=fold, seed=seed)
    print_size(out)
