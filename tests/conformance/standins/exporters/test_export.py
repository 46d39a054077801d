"""Stands in for the export tests: the archive's model mixin inherits from this name."""


class ExportTesterMixin:
    """Holds no tests."""
