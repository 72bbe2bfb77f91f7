"""The command that repeats a run: `fsseg reproduce`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fsseg.cli.console import follow, new_table, wide_console
from fsseg.cli.options import Device, LeftOut, PluginFiles, RunDirectory

if TYPE_CHECKING:
    from fsseg.analysis.reproduction import Reproduction

Tolerance = Annotated[
    float,
    typer.Option(
        metavar="PERCENT", help="Difference of a case's Dice that is still called the same."
    ),
]
WhereToRun = Annotated[
    Path | None,
    typer.Option(
        "--runs-dir", metavar="DIR", help="Where to run [default: reproduced, beside RUN]."
    ),
]

Trackers = Annotated[
    bool,
    typer.Option(
        "--trackers",
        help="Have the recipe's trackers listen, which may send what they hear elsewhere.",
    ),
]


def reproduce_command(
    run: RunDirectory,
    tolerance: Tolerance = 0.0,
    runs_dir: WhereToRun = None,
    device: Device = "auto",
    trackers: Trackers = False,
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
) -> None:
    """Run the recipe that a run directory holds again, from the start, and compare every score.

    Exits with 1 if they differ by more than the tolerance. On a CPU they should not differ at all; on a GPU they do
    unless the recipe says speed.determinism = "deterministic". What differs in versions, device or data is listed.
    The recipe's trackers are left out unless --trackers is given.
    """
    from fsseg.analysis.reproduction import reproduce

    with follow() as bars:
        how: dict[str, Any] = {"runs_dir": runs_dir, "device": device, "trackers": trackers}
        reproduction = reproduce(run, **how, progress=bars)
    console = wide_console()
    console.print("\n3-D Dice in percent, mean of classes\n")
    console.print(_table_of_means(reproduction))
    if reproduction.differences:
        console.print("\nWhat differs around it:")
    for name, (then, now) in reproduction.differences.items():
        console.print(f"  {name}: {then} then, {now} now", soft_wrap=True)
    same = reproduction.largest <= tolerance
    console.print(
        f"\n{'reproduced' if same else 'not reproduced'}: {reproduction.equal} of "
        f"{len(reproduction.first.scores)} scores are equal, the largest difference of a Dice is "
        f"{reproduction.largest:.3f}",
        soft_wrap=True,
    )
    console.print(f"Run directory: {reproduction.second.path}", soft_wrap=True)
    raise typer.Exit(0 if same else 1)


def _table_of_means(reproduction: "Reproduction") -> Table:
    """The mean over classes of each variant, then and now."""
    before = reproduction.first.table()["mean"]
    now = reproduction.second.table()["mean"]
    table = new_table("variant", numbers=["then", "now", "difference"])
    for name, mean in before.items():
        again = now.get(name, float("nan"))
        table.add_row(name, f"{mean:.2f}", f"{again:.2f}", f"{again - mean:+.2f}")
    return table
