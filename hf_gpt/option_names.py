"""Former names of options. They are refused, with the name that took their place."""

RENAMED_OPTIONS = {
    "audio_encoding": "audio_encoding",
    "media_column": "media_column",
}


def renamed(name: str) -> str | None:
    """The name to use for `name`, without dashes at the front; None if `name` was never an option."""
    return RENAMED_OPTIONS.get(name.replace("-", "_"))
