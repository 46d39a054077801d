"""What a user can put right. Commands print these as one line, without a traceback, and exit with status 2."""


class UserError(ValueError):
    """A wrong setting, path or file; the message says what is wrong, where, and what to do."""


class ConfigError(UserError):
    """An option, recipe or combination of settings that cannot be used."""


class CorpusError(UserError):
    """A text or data file that cannot be read or trained on."""


class CheckpointError(UserError):
    """A folder that is not a usable checkpoint, or that must not be overwritten."""


def did_you_mean(wrong: str, valid: "list[str] | tuple[str, ...]") -> str:
    """`"; did you mean X?"` for the nearest of `valid`, or an empty string when none is near."""
    import difflib

    near = difflib.get_close_matches(wrong, valid, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
