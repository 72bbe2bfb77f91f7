"""Errors a user can cause. Everything else is a bug and keeps its traceback."""


class FssegError(Exception):
    """A mistake in what fsseg was given: one message saying where, what was expected, what was got and what to do.

    The shell prints the message without a traceback and exits with code 2.
    """


class RecipeError(FssegError):
    """A recipe cannot be run as written; the message lists every problem found."""


class DataError(FssegError):
    """A dataset folder or one of its files cannot be used as it is."""


class PluginError(FssegError):
    """A plugin cannot be loaded, or two plugins claim the same component."""
