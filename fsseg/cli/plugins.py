"""The commands around components and plugins: `fsseg list`, `fsseg plugin new`, `list` and `check`."""

import inspect
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fsseg.cli.console import new_table, print_text, styled, wide_console
from fsseg.cli.options import AsJson, LeftOut, PluginFiles, parse_change
from fsseg.errors import FssegError

COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}
"""The colours of what checks end with."""

KindOrComponent = Annotated[
    str | None,
    typer.Argument(metavar="[KIND[/NAME]]", help="A kind of component, or one component."),
]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print a page with all options.")]
NewKind = Annotated[
    str, typer.Argument(metavar="KIND", help="threshold, head, ...: see fsseg list.")
]
NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="The component's name in recipes, such as my_policy.")
]
NewFolder = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Where to write it [default: fsseg-NAME]."),
]
WhatToCheck = Annotated[
    str,
    typer.Argument(
        metavar="NAME|PATH", help="A plugin, its distribution, KIND/NAME, a file, or its folder."
    ),
]
ComponentOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KIND/NAME.OPTION=VALUE",
        help="An option to build the component with; may be given again.",
    ),
]

plugin_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Write a plugin, see which are installed, and check that they keep what their kind promises.",
)


def list_command(
    what: KindOrComponent = None,
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """List components and the distributions they come from, or the options of one (KIND/NAME)."""
    kind, _, name = (what or "").partition("/")
    if as_markdown:
        from fsseg.cli.pages import components_page
        from fsseg.plugins.manager import registry

        print_text(components_page(registry()))
    elif name:
        _list_options(kind, name, as_json)
    else:
        _list_components(kind, as_json)


def _list_components(kind: str, as_json: bool) -> None:
    from fsseg.plugins.manager import registry
    from fsseg.plugins.options import nearest
    from fsseg.plugins.registry import KINDS

    if kind and kind not in KINDS:
        raise FssegError(f"there is no kind of component {kind!r}; {nearest(kind, list(KINDS))}")
    components = [component for component in registry() if kind in ("", component.kind)]
    if as_json:
        print(json.dumps([component.dumps() for component in components], indent=2))
        return
    table = new_table("kind", "name", "from", "where")
    for component in components:
        origin = f"{component.distribution} {component.version}"
        table.add_row(component.kind, component.name, origin, component.target)
    wide_console().print(table)


def _list_options(kind: str, name: str, as_json: bool) -> None:
    from fsseg.plugins.manager import registry
    from fsseg.plugins.options import options_of

    component = registry().find(kind, name)
    loaded = component.load()
    options = options_of(loaded)
    if as_json:
        record = component.dumps() | {"options": [vars(option) for option in options]}
        print(json.dumps(record, indent=2))
        return
    console = wide_console()
    origin = f"{component.distribution} {component.version}, {component.target}"
    console.print(styled(f"{kind}/{name}", "bold"), f" {origin}\n")
    console.print(inspect.getdoc(loaded) or "", "\n")
    if not options:
        console.print("It has no options.")
        return
    table = new_table("option", "type", "default", "meaning")
    for option in options:
        cells = (option.type, option.default, option.meaning)
        table.add_row(option.name, *cells)
    console.print(table)


@plugin_app.command("new")
def new_command(kind: NewKind, name: NewName, folder: NewFolder = None) -> None:
    """Write a package with a component that works, its test and its README, ready to be changed.

    `uv run pytest` inside it runs the contract checks of its kind. Nothing that exists is overwritten.
    """
    from fsseg.plugins.scaffold import write_plugin

    written = write_plugin(kind, name, folder)
    console = wide_console()
    for file in written.files:
        console.print(f"  {file}")
    console.print(
        f"\n{written.distribution}: the {kind} {name!r}, in {written.folder}\n\n"
        f"    cd {written.folder}\n"
        "    uv run pytest                        # the contract checks\n"
        f"    uv run fsseg list {kind}/{name}",
        soft_wrap=True,
    )


@plugin_app.command("list")
def list_plugins_command(
    context: typer.Context,
    plugin: PluginFiles = None,
    no_plugin: LeftOut = None,
    as_json: AsJson = False,
) -> None:
    """List the installed plugins with what they bring, also those that cannot be loaded.

    Exits with 1 if there are any of these.
    """
    from fsseg.cli.commands import surveyed_commands
    from fsseg.plugins.manager import survey

    shell: Any = context.find_root().command
    lines = [*survey(), *surveyed_commands(list(shell.commands))]
    if as_json:
        print(json.dumps([vars(line) for line in lines], indent=2))
    else:
        table = new_table("plugin", "from", "brings", "listens to")
        for line in lines:
            brings = styled(", ".join(line.components), "")
            if line.problem is not None:
                brings = styled(line.problem, "red")
            origin = f"{line.distribution} {line.version}"
            table.add_row(line.name, origin, brings, ", ".join(line.listens))
        wide_console().print(table)
    raise typer.Exit(1 if any(line.problem for line in lines) else 0)


@plugin_app.command("check")
def check_plugin_command(
    what: WhatToCheck,
    changes: ComponentOptions = None,
    no_plugin: LeftOut = None,
    as_json: AsJson = False,
) -> None:
    """Run the contract checks of every component of a plugin. Exits with 1 if one fails."""
    from fsseg.plugins.manager import components_of
    from fsseg.testing import run_checks

    options: dict[str, dict[str, object]] = {}
    for change in changes or []:
        key, value = parse_change(change)
        where, _, option = key.rpartition(".")
        options.setdefault(where, {})[option] = value
    lines = []
    for component in components_of(what):
        label = f"{component.kind}/{component.name}"
        results = run_checks(label, options=options.pop(label, {}))
        lines += [{"component": label, **vars(result)} for result in results]
    if options:
        raise FssegError(
            f"--set {next(iter(options))}: that component is not part of {what}, "
            "expected KIND/NAME.OPTION=VALUE"
        )
    if as_json:
        print(json.dumps(lines, indent=2))
    else:
        _print_checks(lines)
    raise typer.Exit(1 if any(line["status"] == "failed" for line in lines) else 0)


def _print_checks(lines: list[dict[str, str]]) -> None:
    """Prints a line for each check, and how many ended in which way."""
    console = wide_console()
    table = new_table("component", "check", "")
    for line in lines:
        status = line["status"]
        sentence = "" if status == "passed" else f": {line['sentence']}"
        outcome = styled(status, COLOURS[status]) + styled(sentence, "")
        table.add_row(line["component"], line["name"], outcome)
    console.print(table)
    statuses = [line["status"] for line in lines]
    counts = [f"{statuses.count(status)} {status}" for status in COLOURS]
    console.print(f"\n{', '.join(counts)}")
