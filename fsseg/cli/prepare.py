"""The commands `fsseg prepare`: raw scans to a dataset, one command per layout."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fsseg.cli.console import follow, new_table, wide_console
from fsseg.cli.jobs import launch_this
from fsseg.cli.options import Launch, Launcher

if TYPE_CHECKING:
    from fsseg.prepare.engine import Outcome
    from fsseg.prepare.plan import Plan

prepare_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a dataset of raw scans: published benchmarks and common formats.",
)

Source = Annotated[Path, typer.Option(metavar="DIR", help="The folder with the raw scans.")]
Out = Annotated[
    Path, typer.Option(metavar="DIR", help="The dataset's folder; made if it is not there.")
]
Jobs = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Cases at a time; one per processor when omitted."),
]
AsPublished = Annotated[
    bool,
    typer.Option(
        "--as-published",
        help="Reproduce the published files with their quirks, to compare numbers.",
    ),
]

Channel = Annotated[
    str | None,
    typer.Option(metavar="NAME|N", help="Of several channels, the one to take; all keeps them."),
]
ImagePattern = Annotated[
    str, typer.Option(metavar="PATTERN", help="The images' path below the source, with {case}.")
]
LabelPattern = Annotated[str, typer.Option(metavar="PATTERN", help="The labels' path, likewise.")]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME=VALUE",
        help="A class and its label value (or values: a=1,2); repeat.",
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="What tables call the dataset; the folder's name when omitted."
    ),
]
Modality = Annotated[
    Literal["MR", "CT"] | None,
    typer.Option(
        help="Decides how intensities are clipped when scans are read; not at all when omitted."
    ),
]


@prepare_app.command()
def chaos(
    source: Source,
    out: Out,
    as_published: AsPublished = False,
    jobs: Jobs = None,
    launcher: Launcher = None,
    launch: Launch = None,
) -> None:
    """CHAOS (abdominal T2-SPIR MR): DICOM series and PNG ground truth to the dataset chaos_t2.

    Clipped at the 99.5th percentile, 1.25 x 1.25 x 7.7 mm, 256 x 256. Organs are told by the ranges of their grey
    values.

    fsseg prepare chaos --source CHAOS_Train_Sets --out DIR
    """
    from fsseg.prepare.layouts.chaos import plan

    _prepare(lambda: plan(source, as_published), out, jobs, launcher, launch)


@prepare_app.command()
def btcv(
    source: Source,
    out: Out,
    as_published: AsPublished = False,
    jobs: Jobs = None,
    launcher: Launcher = None,
    launch: Launch = None,
) -> None:
    """BTCV / Synapse (abdominal CT): img and label folders to the dataset sabs.

    Window -125 to 275 HU, 256 x 256; slices stay as they are. Cases are numbered anew from 0, as published.

    fsseg prepare btcv --source RawData/Training --out DIR
    """
    from fsseg.prepare.layouts.btcv import plan

    _prepare(lambda: plan(source, as_published), out, jobs, launcher, launch)


@prepare_app.command()
def cmr(
    source: Source, out: Out, jobs: Jobs = None, launcher: Launcher = None, launch: Launch = None
) -> None:
    """MS-CMRSeg (cardiac bSSFP MR): patientK_C0 and its manual labels to the dataset cmr.

    Clipped at the 99.5th percentile, 1.25 x 1.25 mm, 256 x 256; slices stay as they are. This is our choice: the
    preprocessing behind published numbers is unknown.

    fsseg prepare cmr --source MSCMRSeg --out DIR
    """
    from fsseg.prepare.layouts.cmr import plan

    _prepare(lambda: plan(source), out, jobs, launcher, launch)


@prepare_app.command()
def msd(
    source: Source,
    out: Out,
    channel: Channel = None,
    jobs: Jobs = None,
    launcher: Launcher = None,
    launch: Launch = None,
) -> None:
    """Medical Segmentation Decathlon or nnU-Net: what dataset.json describes, on the scans' own grids.

    fsseg prepare msd --source Task09_Spleen --out DIR
    """
    from fsseg.prepare.layouts.msd import plan

    _prepare(lambda: plan(source, channel), out, jobs, launcher, launch)


@prepare_app.command()
def nifti(
    source: Source,
    out: Out,
    image: ImagePattern,
    label: LabelPattern,
    classes: Classes = None,
    name: DatasetName = None,
    modality: Modality = None,
    jobs: Jobs = None,
    launcher: Launcher = None,
    launch: Launch = None,
) -> None:
    """Any pairs of images and labels that two patterns find: NIfTI, NRRD or MetaImage, on their own grids.

    {case} stands for the id and may repeat; * and **/ are wildcards. Without --class, every label value is a class.

    fsseg prepare nifti --source SCANS --out DIR --image "{case}.nii.gz" --label "{case}_seg.nii.gz" --class liver=1
    """
    from fsseg.prepare.layouts.nifti import parse_classes, plan

    def make_plan() -> "Plan":
        return plan(source, image, label, parse_classes(classes or []), name, modality)

    _prepare(make_plan, out, jobs, launcher, launch)


def _prepare(
    make_plan: Callable[[], "Plan"],
    out: Path,
    jobs: int | None,
    launcher: str | None,
    launch: list[str] | None,
) -> None:
    if launcher is not None:
        launch_this("prepare", launcher, launch)
        return
    from fsseg.prepare.engine import prepare

    with follow() as bars:
        outcome = prepare(make_plan(), out, jobs=jobs, progress=bars)
    _print_outcome(outcome)
    outcome.raise_problems()


def _print_outcome(outcome: "Outcome") -> None:
    """Prints what was done, the voxels of each class, and what to do next."""
    console = wide_console()
    console.print(
        f"{len(outcome.made)} cases prepared, {len(outcome.skipped)} there already, "
        f"{len(outcome.problems)} failed"
    )
    records = [outcome.manifest.cases[case] for case in (*outcome.made, *outcome.skipped)]
    if not records:
        return
    table = new_table("class", numbers=["cases", "voxels"])
    for name, values in outcome.manifest.classes.items():
        wanted = [str(value) for value in (values if isinstance(values, list) else [values])]
        voxels = []
        for record in records:
            voxels.append(sum(record["voxels"].get(value, 0) for value in wanted))
        cases = sum(count > 0 for count in voxels)
        table.add_row(name, f"{cases}", f"{sum(voxels)}")
    console.print()
    console.print(table)
    console.print(f"\nDataset: {outcome.out}", soft_wrap=True)
    console.print(f"Next: fsseg check {outcome.out}", soft_wrap=True)
    console.print(
        f"      fsseg run recipes/tpm_mp5_linest.toml --data {outcome.out}", soft_wrap=True
    )
