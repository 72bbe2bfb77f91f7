"""The shell's command that repeats a run: `fsseg reproduce`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fsseg.cli.console import Device, LeftOut, PluginFiles, follow, plain, wide_console


def reproduce_command(
    run: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")],
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="PERCENT", help="Difference of a case's Dice that is still called the same."
        ),
    ] = 0.0,
    runs_dir: Annotated[
        Path | None,
        typer.Option(
            "--runs-dir", metavar="DIR", help="Where to run [default: reproduced, beside RUN]."
        ),
    ] = None,
    device: Device = "auto",
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
) -> None:
    """Run the recipe that a run directory holds again, from the start, and compare every score.

    Exits with 1 if they differ by more than the tolerance. On a CPU they should not differ at all; on a GPU they do
    unless the recipe says speed.determinism = "deterministic". What differs in versions, device or data is listed.
    """
    from fsseg.analysis.reproduction import reproduce

    with follow() as bars:
        found = reproduce(run, runs_dir=runs_dir, device=device, progress=bars)
    console, before, now = wide_console(), found.first.table()["mean"], found.second.table()["mean"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variant")
    for column in ("then", "now", "difference"):
        table.add_column(column, justify="right")
    for name in before.index:
        again = now.get(name, float("nan"))
        table.add_row(
            plain(name), f"{before[name]:.2f}", f"{again:.2f}", f"{again - before[name]:+.2f}"
        )
    console.print("\n3-D Dice in percent, mean of classes\n")
    console.print(table)
    if found.differences:
        console.print("\nWhat differs around it:")
        for name, (then, there) in found.differences.items():
            console.print(
                f"  {plain(name)}: {plain(then)} then, {plain(there)} now", soft_wrap=True
            )
    count, same = len(found.first.scores), found.largest <= tolerance
    console.print(
        f"\n{'reproduced' if same else 'not reproduced'}: {found.equal} of {count} scores are equal, the largest "
        f"difference of a Dice is {found.largest:.3f}",
        soft_wrap=True,
    )
    console.print(f"Run directory: {found.second.path}", soft_wrap=True)
    raise typer.Exit(0 if same else 1)
