"""What a contract check is, and how checks are found and run. No pytest here."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fsseg.errors import FssegError
from fsseg.plugins.manager import registry
from fsseg.plugins.options import nearest, validate
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
        label: What messages call it.
        component: Its class.
        options: The options to build it with.
    """

    kind: str
    label: str
    component: type
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        """A new instance."""
        return self.component(**validate(self.component, copy.deepcopy(self.options)))

    def fail(self, sentence: str) -> NoReturn:
        """Raises ContractError; the sentence says what was expected, what was got and what to do."""
        raise ContractError(f"{self.label}: {sentence}")


@dataclass(frozen=True)
class Check:
    """A named check of one component; calling it raises ContractError if the component fails.

    Attributes:
        name: Its name, as `expected_failures` takes it.
        meaning: What it looks at, in a sentence.
        subject: The component.
    """

    name: str
    meaning: str
    subject: Subject
    function: Callable[[Subject], None]

    def __call__(self) -> None:
        self.function(self.subject)


@dataclass(frozen=True)
class Result:
    """What became of a check: `status` is "passed", "failed" or "skipped", and `sentence` says why."""

    name: str
    status: str
    sentence: str = ""


_CHECKS: dict[str, list[Callable[[Subject], None]]] = {}


def check(*kinds: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Marks a function as a check of these kinds."""

    def mark(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        for kind in kinds:
            _CHECKS.setdefault(kind, []).append(function)
        return function

    return mark


def check_functions(kind: str) -> list[Callable[[Subject], None]]:
    """The checks of a kind, in the order in which they run."""
    return list(_CHECKS[kind])


def meaning_of(function: Callable[[Subject], None]) -> str:
    """What a check looks at, in a sentence."""
    return " ".join((function.__doc__ or "").split())


def subject_of(
    component: str | type, kind: str | None = None, options: dict[str, Any] | None = None
) -> Subject:
    """The component to check.

    Args:
        component: `KIND/NAME` of a registered component, or a class.
        kind: The class's kind.
        options: What to build it with; its defaults when omitted.

    Raises:
        FssegError: There is no such kind or component.
    """
    if isinstance(component, str):
        kind, _, name = component.partition("/")
    if kind not in KINDS:
        raise FssegError(
            f"{component}: there is no kind of component {kind!r}; {nearest(str(kind), list(KINDS))}"
        )
    if isinstance(component, str):
        return Subject(kind, component, registry().find(kind, name).load(), options or {})
    return Subject(kind, f"{kind} {component.__name__}", component, options or {})


def checks_for(
    component: str | type, kind: str | None = None, options: dict[str, Any] | None = None
) -> list[Check]:
    """The checks of a component: see `subject_of` for the arguments."""
    subject = subject_of(component, kind, options)
    return [
        Check(function.__name__, meaning_of(function), subject, function)
        for function in _CHECKS[subject.kind]
    ]


def run_checks(
    component: str | type, kind: str | None = None, options: dict[str, Any] | None = None
) -> list[Result]:
    """Runs the checks of a component, all of them; an exception of the component's own is a failure too."""
    return [_run(one) for one in checks_for(component, kind, options)]


def _run(one: Check) -> Result:
    try:
        one()
    except NotApplicable as reason:
        return Result(one.name, "skipped", str(reason))
    except ContractError as error:
        return Result(one.name, "failed", str(error).removeprefix(f"{one.subject.label}: "))
    except Exception as error:
        return Result(one.name, "failed", f"{type(error).__name__}: {error}")
    return Result(one.name, "passed")
