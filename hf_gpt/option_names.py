"""Former names of options. They are refused, with the name that took their place."""

from collections.abc import Collection, Iterable


RENAMED_OPTIONS = {
    "corpus": "train_file",
    "corpus_weights": "train_file_weights",
    "data": "train_file",
    "sound_encoding": "audio_encoding",
    "signal_column": "media_column",
}


def renamed(name: str, options: Collection[str]) -> str | None:
    """The present name of an option.

    Args:
        name: Without dashes at the front.
        options: Names that are in use.

    Returns:
        The name that took its place; None if `name` is in use or never was an option, or its successor is not in use.
    """
    successor = RENAMED_OPTIONS.get(name.replace("-", "_"))
    return successor if successor in options and name not in options else None


def former_name_in(argv: Iterable[str], options: Collection[str]) -> str | None:
    """The sentence about the first former name on a command line; None where there is none."""
    for token in argv:
        if token == "--":
            return None
        name = token.partition("=")[0].removeprefix("--")
        if token.startswith("--") and (successor := renamed(name, options)) is not None:
            return f"--{name} is now --{successor}. Rename it."
    return None
