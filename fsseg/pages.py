"""The page of the components, made from their docstrings and constructors: `fsseg list --markdown`."""

import inspect
from collections.abc import Iterable
from itertools import groupby

from fsseg.components import Component
from fsseg.options import options_of

HEADER = """# Components

Each can be named in a recipe and called from Python; the options below are its recipe table and its constructor's
arguments. This page is made by `fsseg list --markdown`, which also shows the plugins you have installed.
"""


def components_page(components: Iterable[Component]) -> str:
    """A Markdown page with every component's docstring and options."""
    parts = [HEADER]
    for kind, group in groupby(components, key=lambda component: component.kind):
        parts.append(f"## {kind}\n")
        parts += [_section(component) for component in group]
    return "\n".join(parts)


def _section(component: Component) -> str:
    loaded = component.load()
    lines = [
        f"### {component.name}\n",
        f"`{component.target}`, from {component.distribution}\n",
        inspect.getdoc(loaded),
        "",
    ]
    options = options_of(loaded)
    if options:
        lines += ["| option | type | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{o.name}` | {_cell(o.type)} | {_cell(o.default)} | {_cell(o.meaning)} |" for o in options]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
