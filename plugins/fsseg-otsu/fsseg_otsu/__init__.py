"""A third-party threshold policy for fsseg. Hooks live here, apart from the code, so that listing it imports no torch."""

from fsseg import hookimpl


@hookimpl
def register_thresholds(register):
    """Registers the policy as `otsu`."""
    register("otsu", "fsseg_otsu.otsu:Otsu")
