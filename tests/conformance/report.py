"""Counts outcomes and holds every spec against the reference."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from conformance import deselected
from conformance.specs import BY_NAME, BY_TITLE, REFERENCES


OUTCOMES = ("passed", "skipped", "failed", "deselected")


@dataclass
class Result:
    """How one test of one spec ended."""

    outcome: str
    detail: str = ""


Results = Mapping[str, Mapping[str, Result]]


@dataclass
class Recorder:
    """A pytest plugin that keeps the outcome of every test by spec and name."""

    results: dict[str, dict[str, Result]] = field(default_factory=lambda: defaultdict(dict))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        *_, title, test = report.nodeid.split("::")
        spec = BY_TITLE[title].name
        known = self.results[spec].get(test)
        if report.failed:
            self.results[spec][test] = Result("failed", str(report.longrepr))
        elif known and known.outcome == "failed":
            return
        elif report.skipped and type(report) is pytest.TestReport:
            *_, message = report.longrepr if isinstance(report.longrepr, tuple) else (str(report.longrepr),)
            self.results[spec][test] = Result("skipped", message.removeprefix("Skipped: "))
        elif report.when == "call" and report.passed:
            self.results[spec].setdefault(test, Result("passed"))


def with_deselected(results: Results) -> dict[str, dict[str, Result]]:
    """Adds the tests that the reference ran and a spec left out on purpose."""
    complete = {spec: dict(tests) for spec, tests in results.items()}
    for spec, tests in complete.items():
        reference = _reference_of(spec, results)
        for test in reference.keys() - tests.keys():
            reason = deselected.reason_for(spec, test)
            # With a full checkout's generation tests laid over: only a class that can generate may inherit them.
            if reason is None and not {"causal_lm_class", "seq2seq_lm_class"} & set(BY_NAME[spec].heads):
                reason = deselected.BUILDS_CAUSAL_LM
            if reason:
                tests[test] = Result("deselected", reason)
    return complete


def _reference_of(spec: str, results: Results) -> Mapping[str, Result]:
    return results.get(BY_NAME[spec].reference_name, {})


def _is_excused(reference: Result | None) -> bool:
    """Whether the library's own class fails the test as well: then it is not our class that is at fault."""
    return reference is not None and reference.outcome == "failed"


def find_problems(results: Results, narrowed: bool) -> list[str]:
    """What keeps the run from being a success."""
    problems = []
    for spec, tests in results.items():
        reference = _reference_of(spec, results)
        for test, result in tests.items():
            if result.outcome == "failed" and not _is_excused(reference.get(test)):
                problems.append(f"{spec}::{test} failed")
        for test, expected in reference.items():
            actual = tests.get(test)
            if expected.outcome != "passed" or (actual and actual.outcome in ("passed", "failed", "deselected")):
                continue
            what = f"was skipped ({actual.detail})" if actual else "did not run"
            problems.append(f"{spec}::{test} {what}, and {BY_NAME[spec].reference_name} passes it")
    if not narrowed:
        used = {
            pattern
            for spec in results
            for test in _reference_of(spec, results)
            for pattern in deselected.patterns_for(spec, test)
        }
        problems += [f"deselected.py: {pattern!r} matches no test" for pattern in deselected.DESELECTED.keys() - used]
    return problems


def render(recorded: Results, narrowed: bool = False) -> tuple[str, list[str]]:
    """The report as text, and the problems that it lists."""
    results = with_deselected(recorded)
    lines = ["", f"{'spec':<16}" + "".join(f"{outcome:>12}" for outcome in OUTCOMES)]
    for spec in sorted(results, key=list(BY_NAME).index):
        counts = Counter(result.outcome for result in results[spec].values())
        lines.append(f"{spec:<16}" + "".join(f"{counts[outcome]:>12}" for outcome in OUTCOMES))

    for outcome in ("skipped", "deselected"):
        reasons: dict[str, set[str]] = defaultdict(set)
        for tests in results.values():
            for test, result in tests.items():
                if result.outcome == outcome:
                    reasons[_shorten(result.detail)].add(test)
        lines += ["", f"{outcome}, by reason (number of different tests):"] if reasons else []
        lines += [f"{len(tests):>5}  {reason}" for reason, tests in sorted(reasons.items(), key=lambda x: -len(x[1]))]

    fails = [
        f"{name}::{test}"
        for name in REFERENCES
        for test, result in results.get(name, {}).items()
        if _is_excused(result)
    ]
    lines += ["", "failed by the reference itself, so not held against us:", *sorted(fails)] if fails else []

    problems = find_problems(results, narrowed)
    lines += ["", f"{len(problems)} problems", *(f"  {problem}" for problem in sorted(problems))]
    return "\n".join(lines), problems


def _shorten(reason: str) -> str:
    """One line, without the class name that some skip messages begin with, so that equal reasons meet."""
    first = reason.strip().splitlines()[0] if reason.strip() else "(none given)"
    for title in BY_TITLE:
        first = first.replace(f"{title}::", "")
    return first if len(first) <= 150 else first[:147] + "..."
