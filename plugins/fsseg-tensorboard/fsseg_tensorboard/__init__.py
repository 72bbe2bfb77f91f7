"""The tracker `tensorboard`. The hook lives here, apart from the code, so that listing components imports none of it."""

from fsseg import hookimpl


@hookimpl
def register_trackers(register):
    """Registers the tracker as `tensorboard`."""
    register("tensorboard", "fsseg_tensorboard.tracker:Tracker")
