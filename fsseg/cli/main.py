"""The shell: `fsseg run`, `fsseg bench`, and where the other commands are."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fsseg.cli.compare import compare_command
from fsseg.cli.console import (
    Device,
    JobTable,
    LeftOut,
    PluginFiles,
    Said,
    follow,
    parse_change,
    plain,
    wide_console,
)
from fsseg.cli.data import check_command, supervoxels_command
from fsseg.cli.jobs import Launch, change_launcher, job_command, status_command
from fsseg.cli.plugins import list_command, plugin_app
from fsseg.cli.predict import export_command, predict_command
from fsseg.cli.prepare import prepare_app
from fsseg.cli.recipe import Changes, RecipeFile, explain_command, schema_command
from fsseg.cli.report import report_command
from fsseg.cli.reproduce import reproduce_command
from fsseg.errors import FssegError
from fsseg.system.signals import Stopped

if TYPE_CHECKING:
    from fsseg.recipe.tables import Recipe
    from fsseg.runs.results import Results

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

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # reflows the paragraphs of docstrings
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Prototype-based few-shot medical image segmentation, from a recipe to a table.",
)


def main() -> None:
    """Runs the command line; a user's mistake is one message and exit code 2, a bug keeps its traceback."""
    try:
        app()
    except FssegError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]Error:[/] {plain(error)}"
        )
        sys.exit(2)
    except Stopped as stop:
        Console(stderr=True, highlight=False, soft_wrap=True).print(plain(stop))
        sys.exit(128 + stop.number)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fsseg {version('fsseg')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command("run")
def run_command(
    recipe: RecipeFile,
    changes: Changes = None,
    data: DataFolder = None,
    fold: FoldNumber = None,
    seed: Seeds = None,
    runs_dir: RunsFolder = Path("runs"),
    device: Device = "auto",
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", metavar="N", min=1, help="So many seeds, from the recipe's own upwards."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", metavar="N", min=1, help="Trainings at a time, each in a process of its own."
        ),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option("--launcher", metavar="local|slurm", help="Where these run (launcher.name)."),
    ] = None,
    launch: Launch = None,
    part: Annotated[Path | None, typer.Option("--part", hidden=True)] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Start over: take nothing from earlier runs of this recipe."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the table as JSON; progress goes to standard error."),
    ] = False,
) -> None:
    """Train, calibrate and evaluate a recipe, and print its table.

    Nothing is needed besides the recipe: recipes/tpm_mp5_linest.toml trains on a synthetic dataset that is made on
    the spot. Point it at real scans with --data DIR: a folder with a dataset.toml, one of a published layout, or what
    fsseg prepare made.

    A run that was stopped or killed goes on where it was when the same command is given again. Several folds and seeds
    run side by side with --jobs N, or on a cluster with --launcher slurm; see docs/scaling.md.
    """
    loaded = _load(recipe, changes, data, fold, seed)
    if seeds is not None:
        loaded.seed = (
            [loaded.seeds[0] + number for number in range(seeds)] if seeds > 1 else loaded.seeds[0]
        )
    change_launcher(loaded.launcher, launcher, jobs, launch)
    asked = {"name": recipe.stem, "runs_dir": runs_dir, "device": device, "fresh": fresh}
    if part is not None:
        from fsseg.runs.run import run_part

        with follow() as bars:
            run_part(loaded, part, **asked, progress=bars)
        return
    if loaded.launcher.name == "slurm" or (loaded.launcher.jobs or 1) > 1:
        from fsseg.jobs.run import run_as_jobs

        with JobTable() as table:
            results = run_as_jobs(loaded, **asked, progress=Said(), show=table.show)
    else:
        from fsseg.runs.run import run

        with follow() as bars:
            results = run(loaded, **asked, progress=bars, estimated=True)
    if as_json:
        print(json.dumps(results.dumps(), indent=2))
    else:
        print_results(results)


@app.command("bench")
def bench_command(
    recipe: RecipeFile,
    changes: Changes = None,
    data: DataFolder = None,
    fold: FoldNumber = None,
    seed: Seeds = None,
    runs_dir: RunsFolder = Path("runs"),
    device: Device = "auto",
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure how fast this machine is at a recipe, and how long the recipe will take.

    A few steps, slices, episodes and decisions on made-up slices of the scans' size; nothing is trained or written but
    what is kept of the scans. What is finished already is left out of the estimate.
    """
    loaded = _load(recipe, changes, data, fold, seed)
    from fsseg.runs.estimate import estimate
    from fsseg.runs.run import plan_folds
    from fsseg.system.devices import pick_device

    with follow() as bars:
        found = estimate(plan_folds(loaded, runs_dir, pick_device(device), bars))
    if as_json:
        print(json.dumps(found.dumps(), indent=2))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.rows():
        table.add_row(name, value)
    wide_console().print(table)


def _load(
    recipe: Path, changes: list[str] | None, data: Path | None, fold: str | None, seed: str | None
) -> "Recipe":
    """The recipe with what the command line changes about it."""
    overrides = dict(parse_change(change) for change in changes or [])
    if data is not None:
        overrides = _data_overrides(data, recipe, overrides) | overrides
    if fold is not None:
        overrides["protocol.fold"] = int(fold) if fold.lstrip("-").isdigit() else fold
    if seed is not None:
        seeds = [int(part) if part.strip().isdigit() else part for part in seed.split(",")]
        overrides["seed"] = seeds if len(seeds) > 1 else seeds[0]
    from fsseg.recipe.reading import load_recipe

    return load_recipe(recipe, overrides)


def _data_overrides(folder: Path, recipe: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """The changes to a recipe that put a folder in place of its dataset."""
    from fsseg.data.datasets.folders import find_dataset
    from fsseg.plugins.manager import registry
    from fsseg.plugins.options import schema
    from fsseg.recipe.reading import load_recipe

    if (
        "dataset.name" in overrides or "dataset" in overrides
    ):  # a dataset that is named has the last word
        named = overrides.pop("dataset.name", None) or overrides.pop("dataset")
        return {"dataset.name": named, "dataset.root": str(folder)}
    try:
        found = find_dataset(folder)
    except FssegError:
        dataset = load_recipe(recipe).dataset.name
        if "root" not in schema(registry().find("dataset", dataset).load()).model_fields:
            raise
        found = {"name": dataset, "root": str(folder)}  # which may know a layout of its own
    return {f"dataset.{key}": value for key, value in found.items()}


app.command("status")(status_command)
app.command("job", hidden=True)(job_command)
app.command("reproduce")(reproduce_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("predict")(predict_command)
app.command("export")(export_command)
app.command("list")(list_command)
app.command("explain")(explain_command)
app.command("schema")(schema_command)
app.add_typer(plugin_app, name="plugin")
app.add_typer(prepare_app, name="prepare")
app.command("check")(check_command)
app.command("supervoxels")(supervoxels_command)


def print_results(results: "Results") -> None:
    """Prints the table of means as people read it."""
    console, about = wide_console(), results.about
    folds, seeds = (", ".join(str(number) for number in about[key]) for key in ("folds", "seeds"))
    protocol = about["protocol"] + (f" ({', '.join(about['options'])})" if about["options"] else "")
    title = (
        f"{about['dataset']}, protocol {protocol} {about['protocol_hash']}, folds {about['fold_scheme']} "
        f"({folds}), seed{'s' if len(about['seeds']) > 1 else ''} {seeds}: 3-D Dice in percent, mean of {results.cases} cases"
    )
    console.print(f"\n{title}\n", soft_wrap=True)
    console.print(_table_of_means(results, "dice"))
    for metric in results.metrics:
        unit = results.unit(metric)
        console.print(
            f"\n{metric}{' in percent' if unit == '%' else f', {unit}' if unit else ''}\n"
        )
        console.print(_table_of_means(results, metric))
    if about["uses_truth"]:
        console.print(
            f"\nProtocol {about['protocol']} chooses the query's slices by its ground truth"
        )
    if results.oracles:
        console.print("\n* uses the ground truth of the query")
    console.print(f"\nRun directory: {results.path}", soft_wrap=True)


def _table_of_means(results: "Results", metric: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variant")
    means = results.table(metric)
    for column in means.columns:
        table.add_column(column.replace("sd_", "± over ").replace("_", " "), justify="right")
    for name, row in means.iterrows():
        mark = " *" if name in results.oracles else ""
        table.add_row(
            f"{plain(name)}{mark}", *["–" if value != value else f"{value:.1f}" for value in row]
        )
    return table
