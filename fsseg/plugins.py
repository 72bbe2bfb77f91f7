"""Finding components: the pluggy manager, and a registry of import strings per kind."""

import importlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pluggy
from pydantic import ValidationError

from fsseg import hookspecs
from fsseg.errors import PluginError, RecipeError
from fsseg.options import explain, nearest, schema, validate

KINDS = {
    "dataset": "register_datasets",
    "supervoxels": "register_supervoxels",
    "backbone": "register_backbones",
    "prototypes": "register_prototypes",
    "head": "register_heads",
    "threshold": "register_thresholds",
}
"""Kinds of components, in data-flow order, and the hook that registers each."""


@dataclass(frozen=True)
class Component:
    """A registered component; its code is not imported until `load`."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str

    def load(self) -> type:
        """The component's class; raises PluginError if it cannot be imported."""
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.distribution} {self.version}: {self.target} cannot be imported "
                f"({error}); repair or uninstall that distribution"
            ) from error


class Registry:
    """All registered components by kind and name."""

    def __init__(self) -> None:
        self._components: dict[tuple[str, str], Component] = {}

    def __iter__(self) -> Iterator[Component]:
        order = list(KINDS)
        return iter(sorted(self._components.values(), key=lambda c: order.index(c.kind)))

    def add(self, component: Component) -> None:
        """Registers a component; raises PluginError where the name is taken, naming both distributions."""
        other = self._components.setdefault((component.kind, component.name), component)
        if other != component:
            raise PluginError(
                f"{component.kind} {component.name!r} is registered twice: by {other.distribution} ({other.target}) and by "
                f"{component.distribution} ({component.target}); uninstall one of them"
            )

    def names(self, kind: str) -> list[str]:
        """Names of the components of this kind."""
        return [component.name for component in self if component.kind == kind]

    def find(self, kind: str, name: str) -> Component:
        """The component of this kind and name; raises RecipeError with the nearest name."""
        if (kind, name) not in self._components:
            raise RecipeError(f"there is no {kind} {name!r}; {nearest(name, self.names(kind))}")
        return self._components[kind, name]

    def problems(self, kind: str, name: str, options: dict[str, Any]) -> list[tuple[str, str]]:
        """What is wrong with a component's recipe table, as (key, sentence) pairs."""
        try:
            component = self.find(kind, name).load()
            validate(component, options)
        except RecipeError as error:
            return [("name", str(error))]
        except ValidationError as error:
            return explain(error, lambda _: list(schema(component).model_fields))
        return []

    def build(self, kind: str, name: str, options: dict[str, Any]) -> Any:
        """An instance of the component with these options; raises RecipeError if they do not fit."""
        problems = self.problems(kind, name, options)
        if problems:
            raise RecipeError("\n".join(f"{kind} {name}: {key}: {sentence}" for key, sentence in problems))
        component = self.find(kind, name).load()
        return component(**validate(component, options))


@cache
def registry() -> Registry:
    """The components of fsseg and of every installed plugin; raises PluginError for a plugin that cannot be used."""
    manager = pluggy.PluginManager("fsseg")
    manager.add_hookspecs(hookspecs)
    origins = {}
    entries = importlib.metadata.entry_points(group="fsseg")
    for entry in sorted(entries, key=lambda e: (e.dist.name != "fsseg", e.dist.name, e.name)):  # our own come first
        origin = (entry.dist.name, entry.dist.version)
        name = manager.register(_import(entry, origin), f"{origin[0]}:{entry.name}")
        origins[name] = origin
    _check_names(manager)
    return collect(manager, origins)


def collect(manager: pluggy.PluginManager, origins: dict[str, tuple[str, str]]) -> Registry:
    """Calls every plugin's register hooks; `origins` tells the distribution and version of each plugin."""
    found = Registry()
    for kind, hook in KINDS.items():
        # One by one instead of through the hook's caller, to know whose component it is. pluggy calls the latest
        # first; here the order of registration is the order of a listing.
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            distribution, version = origins[implementation.plugin_name]

            def register(name: str, target: str) -> None:
                found.add(Component(kind, name, target, distribution, version))  # noqa: B023 (called at once)

            implementation.function(register)
    return found


def _import(entry: importlib.metadata.EntryPoint, origin: tuple[str, str]) -> Any:
    try:
        return entry.load()
    except Exception as error:
        raise PluginError(
            f"plugin {entry.name!r} of {origin[0]} {origin[1]}: {entry.value} cannot be imported "
            f"({type(error).__name__}: {error}); repair or uninstall that distribution"
        ) from error


def _check_names(manager: pluggy.PluginManager) -> None:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        known = ", ".join(KINDS.values())
        raise PluginError(f"{error.args[-1]}; the hooks are {known}") from error
