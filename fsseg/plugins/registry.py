"""Components by kind and name, as import strings that nothing imports before it is used."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsseg.errors import OptionsError, PluginError, RecipeError
from fsseg.plugins.options import Options, Problems, nearest, problems_of, schema
from fsseg.plugins.options import component as checking_its_options
from fsseg.system.code_digests import digest_at_import, keep_module

KINDS = {
    "dataset": "register_datasets",
    "supervoxels": "register_supervoxels",
    "intensity": "register_intensities",
    "episodes": "register_episodes",
    "augmentation": "register_augmentations",
    "backbone": "register_backbones",
    "prototypes": "register_prototypes",
    "head": "register_heads",
    "segmenter": "register_segmenters",
    "loss": "register_losses",
    "optimiser": "register_optimisers",
    "schedule": "register_schedules",
    "threshold": "register_thresholds",
    "refiner": "register_refiners",
    "folds": "register_folds",
    "protocol": "register_protocols",
    "metric": "register_metrics",
    "tracker": "register_trackers",
}
"""Kinds of components, in data-flow order, and the hook that registers each."""


@dataclass(frozen=True)
class Component:
    """A registered component; its code is not imported until `load`.

    Attributes:
        kind: Its kind.
        name: Its name in recipes.
        target: Its import string `"package.module:Class"`.
        distribution: The distribution it comes from; the file's name for one that was given with `--plugin`.
        version: That distribution's version; a file's is the beginning of its hash.
        plugin: The name of the plugin that registers it.
        where: File and line of the hook that registers it.
        file: The file that was given with `--plugin`, if it was.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    plugin: str = ""
    where: str = ""
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.distribution} {self.version}"

    @property
    def origin(self) -> str:
        """Its distribution, with its class and the line that registers it."""
        return f"{self.distribution} ({self.target}{at(self.where)})"

    def load(self) -> type:
        """The component's class; raises PluginError if it cannot be imported or its constructor is no schema."""
        module, _, attribute = self.target.partition(":")
        if module not in sys.modules:
            keep_module(module)
        try:
            component = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            place = place_of(error, module)
            raise PluginError(
                f"{self}: {self.target} cannot be imported ({named(error)}{place}); "
                f"repair or uninstall that distribution, or leave it out with --no-plugin {self.distribution}"
            ) from error
        try:
            schema(component)
        except PluginError as error:
            raise PluginError(f"{self}: {error}") from error
        return checking_its_options(component)

    def dumps(self) -> dict[str, Any]:
        """The component as plain values, as JSON has them."""
        return vars(self) | {"file": str(self.file or "")}

    def sources(self) -> list[Path]:
        """The files that its results depend on: those of its folder, or the one file it was given in."""
        if self.file:
            return [self.file]
        module = Path(inspect.getfile(self.load()))
        return sorted(module.parent.glob("*.py"))

    @property
    def digest(self) -> str:
        """The digest of its source files as they were when they were imported."""
        return digest_at_import(*self.sources())


class Registry:
    """All registered components by kind and name.

    Example:
        >>> fsseg.registry().names("head")
        ['adnet', 'adnetpp', 'tpm']
        >>> fsseg.registry().build("prototypes", "em_gmm", {"count": 3}).count
        3
    """

    def __init__(self) -> None:
        self._components: dict[tuple[str, str], Component] = {}

    def __iter__(self) -> Iterator[Component]:
        kinds = list(KINDS)
        components = self._components.values()
        return iter(sorted(components, key=lambda component: kinds.index(component.kind)))

    def add(self, component: Component) -> None:
        """Registers a component; raises PluginError where the name is taken, naming both distributions."""
        other = self._components.setdefault((component.kind, component.name), component)
        if other != component:
            raise PluginError(
                f"{component.kind} {component.name!r} is registered twice: by {other.origin} and by {component.origin}; "
                f"rename one of them, or leave one plugin out with --no-plugin {component.distribution}"
            )

    def names(self, kind: str) -> list[str]:
        """The names of the components of a kind, in the order in which they were registered."""
        return [component.name for component in self if component.kind == kind]

    def find(self, kind: str, name: str) -> Component:
        """The component of this kind and name; raises RecipeError with the nearest name."""
        if (kind, name) not in self._components:
            raise RecipeError(f"there is no {kind} {name!r}; {nearest(name, self.names(kind))}")
        return self._components[kind, name]

    def problems(
        self, kind: str, name: str, options: Options, beside: Sequence[str] = ()
    ) -> Problems:
        """The problems with a component's recipe table: an unknown name, or options that do not fit.

        Args:
            kind: The component's kind.
            name: Its name.
            options: Its options by name.
            beside: Further keys that stand beside the options in the table, and may have been meant.
        """
        try:
            component = self.find(kind, name).load()
        except RecipeError as error:
            return [("name", str(error))]
        return problems_of(component, options, beside)

    def build(self, kind: str, name: str, options: Options) -> Any:
        """An instance of a component.

        Args:
            kind: The component's kind.
            name: Its name in recipes.
            options: Its options by name; those left out have their defaults.

        Raises:
            RecipeError: There is no such component, or the options do not fit; a line for each that does not.
        """
        component = self.find(kind, name).load()
        try:
            return component(**options)
        except OptionsError as error:
            if error.component is not component:
                raise
            raise RecipeError(error.message(f"{kind} {name}")) from None


def import_string(target: str | type) -> str:
    """The string `"package.module:Class"` of a component's class; raises ValueError for what is neither."""
    if isinstance(target, type):
        return f"{target.__module__}:{target.__qualname__}"
    module, _, attribute = str(target).partition(":")
    if not (module and attribute):
        raise ValueError(f'expected "package.module:Class", got {target!r}')
    return str(target)


def line_of(function: Callable[..., Any]) -> str:
    """The file and line in which a function is defined."""
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def at(where: str) -> str:
    """The place behind a comma; nothing if it is not known."""
    return f", {where}" if where else ""


def named(error: BaseException) -> str:
    """The message of an error behind the name of its class."""
    return f"{type(error).__name__}: {error}"


def place_of(error: BaseException, module: str) -> str:
    """The innermost line in a plugin's own package at which its import failed; nothing if there is none."""
    if isinstance(error, SyntaxError):
        return ""  # its message says so
    package, _, _ = module.partition(".")
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        top, _, _ = frame.f_globals.get("__name__", "").partition(".")
        if top == package:
            place = f"{frame.f_code.co_filename}:{line}"
    return at(place)
