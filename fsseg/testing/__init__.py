"""Contract checks for plugin authors: what every component of a kind promises, one named check for each promise.

In a test of a plugin::

    from fsseg.testing import parametrize_with_checks

    @parametrize_with_checks("threshold/my_policy")
    def test_contract(check):
        check()
"""

from collections.abc import Callable

from fsseg.errors import FssegError
from fsseg.plugins.options import Options, nearest
from fsseg.testing import (  # noqa: F401 (they add their checks)
    augmentations,
    backbones,
    datasets,
    folds,
    general,
    heads,
    intensities,
    losses,
    metrics,
    optimisers,
    protocols,
    prototypes,
    refiners,
    schedules,
    segmenters,
    sources,
    supervoxels,
    thresholds,
    trackers,
)
from fsseg.testing.contract import (
    Check,
    ContractError,
    NotApplicable,
    Result,
    check_functions,
    checks_for,
    meaning_of,
    run_checks,
)

__all__ = [
    "Check",
    "ContractError",
    "NotApplicable",
    "Result",
    "check_functions",
    "checks_for",
    "meaning_of",
    "parametrize_with_checks",
    "run_checks",
]


def parametrize_with_checks(
    component: str | type,
    *,
    kind: str | None = None,
    options: Options | None = None,
    expected_failures: dict[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a pytest test that is run with each check of a component, as its argument `check`.

    Args:
        component: `KIND/NAME` of a registered component, or a class.
        kind: The class's kind.
        options: The options to build it with; its defaults when omitted.
        expected_failures: Checks that it fails, each with the reason. One that passes after all fails the test.

    Raises:
        FssegError: There is no such component, or no such check.

    Example:
        >>> @parametrize_with_checks("prototypes/em_gmm", options={"count": 3})
        ... def test_contract(check):
        ...     check()
    """
    import pytest

    checks = checks_for(component, kind, options)
    reasons = expected_failures or {}
    names = [check.name for check in checks]
    for name in reasons:
        if name not in names:
            raise FssegError(
                f"expected_failures: there is no check {name!r} of {component}; {nearest(name, names)}"
            )
    params = []
    for check in checks:
        marks = []
        if check.name in reasons:
            marks.append(pytest.mark.xfail(reason=reasons[check.name], strict=True))
        params.append(pytest.param(_skipping(check), id=check.name, marks=marks))
    return pytest.mark.parametrize("check", params)


def _skipping(check: Check) -> Callable[[], None]:
    """The check as pytest runs it: one with nothing to look at is skipped."""
    import pytest

    def run() -> None:
        try:
            check()
        except NotApplicable as reason:
            pytest.skip(str(reason))

    return run
