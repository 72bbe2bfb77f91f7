"""The tracker `wandb`. The hook lives here, apart from the code, so that listing components imports none of it."""

from fsseg import hookimpl


@hookimpl
def register_trackers(register):
    """Registers the tracker as `wandb`."""
    register("wandb", "fsseg_wandb.tracker:Tracker")
