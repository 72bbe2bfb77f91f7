"""The commands that run a recipe: `fsseg run`, and `fsseg bench`, which tells how long that will take."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fsseg.analysis.tables import number, starred
from fsseg.cli.console import JobTable, Said, follow, new_table, wide_console
from fsseg.cli.jobs import change_launcher
from fsseg.cli.options import (
    Changes,
    DataFolder,
    Device,
    FoldNumber,
    Launch,
    LeftOut,
    PluginFiles,
    RecipeFile,
    RunsFolder,
    Seeds,
    parse_changes,
)
from fsseg.errors import FssegError

if TYPE_CHECKING:
    from fsseg.recipe.tables import Recipe
    from fsseg.runs.results import Results

SeedCount = Annotated[
    int | None,
    typer.Option(
        "--seeds", metavar="N", min=1, help="So many seeds, from the recipe's own upwards."
    ),
]
JobsAtOnce = Annotated[
    int | None,
    typer.Option(
        "--jobs", metavar="N", min=1, help="Trainings at a time, each in a process of its own."
    ),
]
LauncherName = Annotated[
    str | None,
    typer.Option("--launcher", metavar="local|slurm", help="Where these run (launcher.name)."),
]
PartFile = Annotated[Path | None, typer.Option("--part", hidden=True)]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over: take nothing from earlier runs of this recipe.")
]
TableAsJson = Annotated[
    bool, typer.Option("--json", help="Print the table as JSON; progress goes to standard error.")
]
FiguresAsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


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
    seeds: SeedCount = None,
    jobs: JobsAtOnce = None,
    launcher: LauncherName = None,
    launch: Launch = None,
    part: PartFile = None,
    fresh: Fresh = False,
    as_json: TableAsJson = False,
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
        first = loaded.seeds[0]
        loaded.seed = list(range(first, first + seeds)) if seeds > 1 else first
    change_launcher(loaded.launcher, launcher, jobs, launch)
    how: dict[str, Any] = {
        "name": recipe.stem,
        "runs_dir": runs_dir,
        "device": device,
        "fresh": fresh,
    }
    if part is not None:
        from fsseg.runs.run import run_part

        with follow() as bars:
            run_part(loaded, part, **how, progress=bars)
        return
    results = _run(loaded, how)
    if as_json:
        print(json.dumps(results.dumps(), indent=2))
    else:
        print_results(results)


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
    as_json: FiguresAsJson = False,
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
        estimated = estimate(plan_folds(loaded, runs_dir, pick_device(device), bars))
    if as_json:
        print(json.dumps(estimated.dumps(), indent=2))
        return
    table = new_table()
    table.show_header = False
    for name, value in estimated.rows():
        table.add_row(name, value)
    wide_console().print(table)


def _run(recipe: "Recipe", how: dict[str, Any]) -> "Results":
    """Runs a recipe, in jobs if its [launcher] says so."""
    if recipe.launcher.name == "slurm" or (recipe.launcher.jobs or 1) > 1:
        from fsseg.jobs.run import run_as_jobs

        with JobTable() as table:
            return run_as_jobs(recipe, **how, progress=Said(), show=table.show)
    from fsseg.runs.run import run

    with follow() as bars:
        return run(recipe, **how, progress=bars, estimated=True)


def _load(
    recipe: Path, changes: list[str] | None, data: Path | None, fold: str | None, seed: str | None
) -> "Recipe":
    """The recipe with what the command line changes about it."""
    overrides = parse_changes(changes)
    if data is not None:
        overrides = _data_overrides(data, recipe, overrides) | overrides
    if fold is not None:
        overrides["protocol.fold"] = int(fold) if fold.lstrip("-").isdigit() else fold
    if seed is not None:
        seeds = [int(word) if word.strip().isdigit() else word for word in seed.split(",")]
        overrides["seed"] = seeds if len(seeds) > 1 else seeds[0]
    from fsseg.recipe.reading import load_recipe

    return load_recipe(recipe, overrides)


def _data_overrides(folder: Path, recipe: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """The changes to a recipe that put a folder in place of its dataset."""
    from fsseg.data.datasets.folders import find_dataset

    if "dataset.name" in overrides or "dataset" in overrides:
        # A dataset that is named has the last word.
        name = overrides.pop("dataset.name", None) or overrides.pop("dataset")
        return {"dataset.name": name, "dataset.root": str(folder)}
    try:
        table = find_dataset(folder)
    except FssegError:
        name = _dataset_with_root(recipe)
        if name is None:
            raise
        table = {"name": name, "root": str(folder)}  # which may know a layout of its own
    return {f"dataset.{key}": value for key, value in table.items()}


def _dataset_with_root(recipe: Path) -> str | None:
    """The name of the recipe's dataset, if it is one that lies in a folder."""
    from fsseg.plugins.manager import registry
    from fsseg.plugins.options import schema
    from fsseg.recipe.reading import load_recipe

    name = load_recipe(recipe).dataset.name
    options = schema(registry().find("dataset", name).load()).model_fields
    return name if "root" in options else None


def print_results(results: "Results") -> None:
    """Prints the table of means as people read it."""
    console = wide_console()
    about = results.about
    console.print(f"\n{_title(results)}\n", soft_wrap=True)
    console.print(_table_of_means(results, "dice"))
    for metric in results.metrics:
        unit = results.unit(metric)
        in_unit = {"%": " in percent", "": ""}.get(unit, f", {unit}")
        console.print(f"\n{metric}{in_unit}\n")
        console.print(_table_of_means(results, metric))
    if about["uses_truth"]:
        protocol = about["protocol"]
        console.print(f"\nProtocol {protocol} chooses the query's slices by its ground truth")
    if results.oracles:
        console.print("\n* uses the ground truth of the query")
    console.print(f"\nRun directory: {results.path}", soft_wrap=True)


def _title(results: "Results") -> str:
    about = results.about
    folds = ", ".join(map(str, about["folds"]))
    seeds = ", ".join(map(str, about["seeds"]))
    plural = "s" if len(about["seeds"]) > 1 else ""
    options = f" ({', '.join(about['options'])})" if about["options"] else ""
    return (
        f"{about['dataset']}, protocol {about['protocol']}{options} {about['protocol_hash']}, "
        f"folds {about['fold_scheme']} ({folds}), seed{plural} {seeds}: "
        f"3-D Dice in percent, mean of {results.cases} cases"
    )


def _table_of_means(results: "Results", metric: str) -> Table:
    means = results.table(metric)
    columns = [name.replace("sd_", "± over ").replace("_", " ") for name in means.columns]
    table = new_table("variant", numbers=columns)
    names = starred(means.index, results.oracles)
    for name, values in zip(names, means.itertuples(index=False)):
        table.add_row(name, *[number(value) for value in values])
    return table
