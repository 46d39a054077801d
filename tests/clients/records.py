"""
What the checks of clients found: printed after the tests and, if HF_GPT_CLIENT_RECORDS names a file, kept
there.

    make check-onnx RECORDS=docs/clients.json
    python -m tests.clients.records        # docs/clients.md gets its table from docs/clients.json
"""

import importlib.metadata
import json
import os
import re
from collections.abc import Callable
from pathlib import Path


ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "docs/clients.json"
PAGE = ROOT / "docs/clients.md"
_TABLE = re.compile(r"(?<=<!-- clients -->\n).*?(?=<!-- /clients -->)", flags=re.DOTALL)
_KEYS = ("client", "version", "check", "compared", "metric")


def record(
    record_property: Callable[[str, object], None],
    client: str,
    check: str,
    compared: str,
    metric: str,
    *,
    package: str | None = None,
    version: str | None = None,
) -> None:
    """Keeps a metric of a test.

    Args:
        record_property: The fixture of that name.
        client: Its name for readers.
        check: The target that ran it, without `make check-`.
        compared: What was compared.
        metric: Its value, with its unit.
        package: Its distribution, whose version is looked up.
        version: Its version, where it is no Python package.
    """
    if version is None:
        version = importlib.metadata.version(package)
    record_property("client", dict(zip(_KEYS, (client, version, f"make check-{check}", compared, metric), strict=True)))


def equal_tokens(equal: int, total: int) -> str:
    """The metric of a comparison of tokens."""
    return f"{equal} of {total} tokens equal"


def pytest_terminal_summary(terminalreporter):
    found = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "client"
    ]
    for entry in found:
        terminalreporter.write_line("{client} {version}: {compared}: {metric}".format(**entry))
    path = os.environ.get("HF_GPT_CLIENT_RECORDS")
    if path and found:
        keep(Path(path), found)


def keep(path: Path, found: list[dict[str, str]]) -> None:
    """Puts records in place of those of the same client and comparison."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    records = {(entry["client"], entry["compared"]): entry for entry in [*known, *found]}
    path.write_text(json.dumps(list(records.values()), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def table(records: list[dict[str, str]]) -> str:
    """The records as a table, a client's rows together."""
    lines = ["| client | version | check | what is compared | metric |", "|---|---|---|---|---|"]
    order = {name: position for position, name in reversed(list(enumerate(entry["client"] for entry in records)))}
    for entry in sorted(records, key=lambda entry: order[entry["client"]]):
        lines.append("| {client} | {version} | `{check}` | {compared} | {metric} |".format(**entry))
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with its table made anew."""
    return _TABLE.sub(
        lambda _: table(json.loads(RECORDS.read_text(encoding="utf-8"))), PAGE.read_text(encoding="utf-8")
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
