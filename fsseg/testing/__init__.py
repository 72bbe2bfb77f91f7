"""Contract checks for plugin authors: what every component of a kind promises, one named check for each promise.

In a test of a plugin::

    from fsseg.testing import parametrize_with_checks

    @parametrize_with_checks("threshold/my_policy")
    def test_contract(check):
        check()
"""

from collections.abc import Callable
from typing import Any

from fsseg.errors import FssegError
from fsseg.plugins.options import nearest
from fsseg.testing import extractors, followers, general, networks, policies, scans, volumes  # noqa: F401 (they add their checks)
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
    options: dict[str, Any] | None = None,
    expected_failures: dict[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs a pytest test with each check of a component, as its argument `check`.

    Args:
        component: `KIND/NAME` of a registered component, or a class.
        kind: The class's kind.
        options: What to build it with; its defaults when omitted.
        expected_failures: Checks that it fails, each with the reason. One that passes after all fails the test.

    Raises:
        FssegError: There is no such component, or no such check.
    """
    import pytest

    checks, expected = checks_for(component, kind, options), expected_failures or {}
    names = [check.name for check in checks]
    for name in expected:
        if name not in names:
            raise FssegError(
                f"expected_failures: there is no check {name!r} of {component}; {nearest(name, names)}"
            )
    params = []
    for check in checks:
        marks = (
            [pytest.mark.xfail(reason=expected[check.name], strict=True)]
            if check.name in expected
            else []
        )
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
