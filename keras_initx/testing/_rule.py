"""How a check tells that its rule is broken: one sentence with the rule and the finding."""

import functools
from collections.abc import Callable
from typing import TypeAlias

from keras_initx.checks import first_line
from keras_initx.testing._case import Case

__all__ = ["Check", "expect", "rule"]

# A function of a case that returns nothing, or raises AssertionError.
Check: TypeAlias = Callable[[Case], None]


class _BrokenError(Exception):
    """A rule is broken; the text is the finding."""


def expect(kept: bool, found: str) -> None:
    """Ends a check unless its rule is kept.

    Args:
        kept: Whether the rule is kept.
        found: The finding that breaks the rule, for the message.
    """
    if not kept:
        raise _BrokenError(found)


def rule(text: str) -> Callable[[Check], Check]:
    """Makes every failure of a check an AssertionError with the class, the rule and the finding.

    Args:
        text: The rule, as the end of a sentence that begins with "must".
    """

    def wrap(check: Check) -> Check:
        @functools.wraps(check)
        def checked(case: Case) -> None:
            try:
                check(case)
            except _BrokenError as broken:
                raise AssertionError(_sentence(case, text, str(broken))) from None
            except Exception as error:  # the initializer's own error is a finding, too
                raise AssertionError(_sentence(case, text, _told(error))) from error

        return checked

    return wrap


def _told(error: Exception) -> str:
    """Returns an error in a line, with the error behind it."""
    # Keras wraps what an initializer raises: "Dense could not be deserialized" does not tell the reason.
    root: BaseException = error
    while (behind := root.__cause__ or (None if root.__suppress_context__ else root.__context__)) is not None:
        root = behind
    told = first_line(error, kind=True)
    return told if root is error else f"{told.rstrip('.')}, because of {first_line(root, kind=True)}"


def _sentence(case: Case, text: str, found: str) -> str:
    return f"`{case.cls.__name__}` must {text}. Found: {found.rstrip('.')}."
