"""What of the data was cut or left out, as a section of the report."""

from collections.abc import Mapping

from hf_gpt.data.truncation import Cuts
from hf_gpt.reporting.report import Section, table_section


def cuts_section(parts: Mapping[str, Cuts]) -> Section | None:
    """A section of the report with the counts; None if nothing was cut."""
    rows = [
        [name, cause.replace("_", " "), f"{number:,}", "" if cause == "tokens_cut" else f"{cuts.total:,} {cuts.unit}"]
        for name, cuts in parts.items()
        for cause, number in cuts.counts.items()
    ]
    if not rows:
        return None
    note = " ".join(f"{name}: {cuts.describe()}." for name, cuts in parts.items() if cuts)
    return table_section("cut", "Cut or left out", ["Data", "Cause", "Number", "Of"], rows, note)
