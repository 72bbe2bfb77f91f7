"""Contract checks: named functions that are marked with the kinds they are for, found and run without pytest."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fsseg.errors import FssegError
from fsseg.plugins.manager import registry
from fsseg.plugins.options import Options, nearest, validate
from fsseg.plugins.registry import KINDS


class ContractError(FssegError, AssertionError):
    """A component breaks a promise of its kind."""


class NotApplicable(Exception):
    """A check has nothing to look at, for example no GPU; the message says why."""


@dataclass(frozen=True)
class Subject:
    """The component that is checked.

    Attributes:
        kind: Its kind.
        label: Its name in messages.
        component: Its class.
        options: The options to build it with.
    """

    kind: str
    label: str
    component: type
    options: Options = field(default_factory=dict)

    def build(self) -> Any:
        """A new instance of the component with these options."""
        options = copy.deepcopy(self.options)
        return self.component(**validate(self.component, options))

    def fail(self, sentence: str) -> NoReturn:
        """Raises ContractError; the sentence says what was expected, what was got and what to do."""
        raise ContractError(f"{self.label}: {sentence}")


Function = Callable[[Subject], None]
"""A check before it is given a component; it calls `Subject.fail` or raises NotApplicable."""


@dataclass(frozen=True)
class Check:
    """A named check of one component; calling it raises ContractError if the component fails.

    Attributes:
        name: Its name, as `expected_failures` takes it.
        meaning: A sentence that says what is promised.
        subject: The component.
        function: The function that looks at it.
    """

    name: str
    meaning: str
    subject: Subject
    function: Function

    def __call__(self) -> None:
        self.function(self.subject)


@dataclass(frozen=True)
class Result:
    """The outcome of a check.

    Attributes:
        name: The check's name.
        status: "passed", "failed" or "skipped".
        sentence: The reason, unless it passed.
    """

    name: str
    status: str
    sentence: str = ""


_CHECKS: dict[str, list[Function]] = {kind: [] for kind in KINDS}


def check(*kinds: str) -> Callable[[Function], Function]:
    """Marks a function as a check of these kinds."""

    def mark(function: Function) -> Function:
        for kind in kinds:
            _CHECKS[kind].append(function)
        return function

    return mark


def check_functions(kind: str) -> list[Function]:
    """The checks of a kind, in the order in which they run."""
    return list(_CHECKS[kind])


def meaning_of(function: Function) -> str:
    """The sentence in which a check says what is promised."""
    return " ".join((function.__doc__ or "").split())


def subject_of(
    component: str | type, kind: str | None = None, options: Options | None = None
) -> Subject:
    """The component to check.

    Args:
        component: `KIND/NAME` of a registered component, or a class.
        kind: The class's kind.
        options: The options to build it with; its defaults when omitted.

    Raises:
        FssegError: There is no such kind or component.
    """
    name = ""
    if isinstance(component, str):
        kind, _, name = component.partition("/")
    if kind not in KINDS:
        raise FssegError(
            f"{component}: there is no kind of component {kind!r}; {nearest(str(kind), list(KINDS))}"
        )
    if isinstance(component, str):
        loaded = registry().find(kind, name).load()
        return Subject(kind, component, loaded, options or {})
    return Subject(kind, f"{kind} {component.__name__}", component, options or {})


def checks_for(
    component: str | type, kind: str | None = None, options: Options | None = None
) -> list[Check]:
    """The checks of a component: see `subject_of` for the arguments."""
    subject = subject_of(component, kind, options)
    checks = []
    for function in check_functions(subject.kind):
        checks.append(Check(function.__name__, meaning_of(function), subject, function))
    return checks


def run_checks(
    component: str | type, kind: str | None = None, options: Options | None = None
) -> list[Result]:
    """Runs all checks of a component; an exception of the component's own is a failure too.

    Args:
        component: `KIND/NAME` of a registered component, or a class.
        kind: The class's kind.
        options: The options to build it with; its defaults when omitted.

    Example:
        >>> from fsseg.testing import run_checks
        >>> [result.name for result in run_checks("threshold/ce_t") if result.status == "failed"]
        []
    """
    return [_run(check) for check in checks_for(component, kind, options)]


def _run(check: Check) -> Result:
    try:
        check()
    except NotApplicable as reason:
        return Result(check.name, "skipped", str(reason))
    except ContractError as error:
        sentence = str(error).removeprefix(f"{check.subject.label}: ")
        return Result(check.name, "failed", sentence)
    except Exception as error:
        return Result(check.name, "failed", f"{type(error).__name__}: {error}")
    return Result(check.name, "passed")
