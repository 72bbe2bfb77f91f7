"""Names that are imported when they are first used, and modules that go by a second name."""

import importlib
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def on_first_use(
    module: str, homes: dict[str, list[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a module whose names live in other modules.

    Args:
        module: The module's name, as its `__name__` says.
        homes: By module, the names that are imported from it.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home_of[name]), name)

    def names() -> list[str]:
        return sorted(home_of)

    return get, names


class SecondNames:
    """Finds modules under second names: the very same modules, imported when they are asked for.

    It is a finder for `sys.meta_path`, and the loader of what it finds.
    """

    def __init__(self, first_names: dict[str, str]) -> None:
        """By second name, the name that a module or package has itself."""
        self._first_names = first_names

    def find_spec(
        self, name: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds the module, or one in a package, if it goes by a second name."""
        package = next((key for key in self._first_names if f"{name}.".startswith(f"{key}.")), None)
        if package is None:
            return None
        import importlib.util  # here, so that `import fsseg` does not pay for it

        first_name = self._first_names[package] + name.removeprefix(package)
        if importlib.util.find_spec(first_name) is None:
            return None
        loader: Any = self
        return ModuleSpec(name, loader, origin=first_name)  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, which is imported if it is not yet."""
        module = importlib.import_module(str(spec.origin))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module its own specification back, which the import system has replaced."""
        if module.__spec__:
            module.__spec__ = module.__spec__.loader_state
