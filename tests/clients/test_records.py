"""The table of docs/clients.md."""

import json

from tests.clients import records


def test_the_page_has_the_table_of_the_records():
    assert records.PAGE.read_text(encoding="utf-8") == records.page(), "make it anew: python -m tests.clients.records"


def test_a_record_takes_the_place_of_its_like(tmp_path):
    first = dict.fromkeys(("client", "version", "check", "compared", "metric"), "a")
    other, newer = {**first, "compared": "b"}, {**first, "metric": "c"}
    records.keep(tmp_path / "records.json", [first, other])
    records.keep(tmp_path / "records.json", [newer])
    assert json.loads((tmp_path / "records.json").read_text()) == [newer, other]
