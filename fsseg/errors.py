"""Errors a user can cause. Everything else is a bug and keeps its traceback."""

from typing import Any


class FssegError(Exception):
    """A mistake in what fsseg was given: one message saying where, what was expected, what was got and what to do.

    The shell prints the message without a traceback and exits with code 2.
    """


class RecipeError(FssegError):
    """A recipe cannot be run as written; the message lists every problem found."""


class OptionsError(RecipeError):
    """A component cannot be built with the options that it was given.

    Attributes:
        component: The component's class.
        problems: The options that are wrong, each with a sentence.
    """

    def __init__(self, component: type, problems: list[tuple[str, str]]) -> None:
        self.component = component
        self.problems = problems
        super().__init__(self.message(component.__name__))

    def message(self, name: str) -> str:
        """A line for each problem, with this name for the component."""
        lines = []
        for key, sentence in self.problems:
            place = f"{name}: {key}" if key else name
            lines.append(f"{place}: {sentence}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.component, self.problems)


class DataError(FssegError):
    """A dataset folder or one of its files cannot be used as it is."""


class PluginError(FssegError):
    """A plugin cannot be loaded, or two plugins claim the same component."""
