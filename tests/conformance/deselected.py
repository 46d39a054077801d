"""Tests that Llama passes and one of our specs cannot: `spec::test` pattern -> reason.

Keep it short and true. The report fails on a pattern that matches nothing, and on any test that Llama passes and we
neither pass nor list here.
"""

from fnmatch import fnmatchcase


DESELECTED: dict[str, str] = {}


def reason_for(spec: str, test: str) -> str | None:
    """The reason why `test` is not run for `spec`, if there is one."""
    return next((DESELECTED[pattern] for pattern in patterns_for(spec, test)), None)


def patterns_for(spec: str, test: str) -> list[str]:
    """Every pattern that matches."""
    return [pattern for pattern in DESELECTED if fnmatchcase(f"{spec}::{test}", pattern)]
