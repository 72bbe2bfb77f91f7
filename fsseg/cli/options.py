"""Arguments and options that several commands share."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from fsseg.errors import FssegError


def parse_changes(changes: list[str] | None) -> dict[str, Any]:
    """What was given with `--set`: values by dotted key."""
    return dict(parse_change(change) for change in changes or [])


def parse_change(change: str) -> tuple[str, Any]:
    """The key and the value of `table.key=value`, as in TOML; a word that is no TOML value is a string.

    Example:
        >>> parse_change("training.steps=500"), parse_change("head=tpm")
        (('training.steps', 500), ('head', 'tpm'))

    Raises:
        FssegError: It has another form.
    """
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise FssegError(
            f"--set {change}: expected table.key=value, for example training.steps=500"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # also of numbers with thousands of digits
        value = text
    return key.strip(), value


def _choose_files(files: list[Path] | None) -> list[Path] | None:
    from fsseg.plugins.manager import choose_plugins

    choose_plugins(files=files or [])
    return files


def _choose_left_out(names: list[str] | None) -> list[str] | None:
    from fsseg.plugins.manager import choose_plugins

    choose_plugins(without=names or [])
    return names


RecipeFile = Annotated[
    Path,
    typer.Argument(help="A recipe, for example recipes/tpm_mp5_linest.toml.", metavar="RECIPE"),
]
RunDirectory = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
DatasetFolder = Annotated[Path, typer.Argument(help="A dataset's folder.", metavar="DIR")]

Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="TABLE.KEY=VALUE", help="Change a value of the recipe; may be given again."
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="A folder of scans, in place of the recipe's dataset."
    ),
]
FoldNumber = Annotated[
    str | None,
    typer.Option("--fold", metavar="N|all", help="The fold to run, or all (protocol.fold)."),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seed", metavar="N[,N...]", help="The run's seed, or several to run with each (seed)."
    ),
]
RunsFolder = Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="Where runs are kept.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")]

VariantName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The row of the run [default: the first that is no oracle]."),
]
SeedOfTraining = Annotated[int | None, typer.Option(metavar="N", help="Likewise.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

Launch = Annotated[
    list[str] | None,
    typer.Option(
        "--launch",
        metavar="KEY=VALUE",
        help="A key of [launcher], such as partition=gpu, time=240, gpus=1, memory=32G; may be given again.",
    ),
]
Launcher = Annotated[
    str | None,
    typer.Option(
        "--launcher",
        metavar="local|slurm",
        help="Do it in processes of their own, here or on a cluster.",
    ),
]

PluginFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        callback=_choose_files,
        help="A plugin in a single file; may be given again.",
    ),
]
"""Takes effect as it is read, as `LeftOut` does: for every command that looks for components."""

LeftOut = Annotated[
    list[str] | None,
    typer.Option(
        "--no-plugin",
        metavar="NAME",
        callback=_choose_left_out,
        help="Leave out an installed plugin; may be given again.",
    ),
]
