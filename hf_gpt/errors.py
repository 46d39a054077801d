"""What a user can put right. Commands print these as one line, without a traceback, and exit with status 2."""

import difflib
from collections.abc import Sequence


class UserError(ValueError):
    """A wrong setting, path or file; the message says what is wrong, where, and what to do."""


class ConfigError(UserError):
    """An option, recipe or combination of settings that cannot be used."""


class CorpusError(UserError):
    """A text or data file that cannot be read or trained on."""


class CheckpointError(UserError):
    """A folder that is not a usable checkpoint, or that must not be overwritten."""


class ConversionError(UserError):
    """Weights or settings that another architecture cannot hold, or that are not what they claim to be."""


class HubError(UserError):
    """What must not go to the Hub, or what the Hub refused."""


class WorkerError(UserError):
    """A process that prepares batches died."""


# Bounds on how long the search for a near name may take.
_MOST_COMPARED, _LONGEST_NAME = 1000, 200


def did_you_mean(wrong: str, valid: Sequence[str]) -> str:
    """The end of a sentence: `"; did you mean X?"` with the nearest of `valid`, or `"."` when none is near."""
    if len(valid) > _MOST_COMPARED:
        # Each comparison costs the product of the lengths; what is near has about the same length.
        valid = [name for name in valid if abs(len(name) - len(wrong)) <= 2][:_MOST_COMPARED]
    near = difflib.get_close_matches(wrong[:_LONGEST_NAME], [name for name in valid if len(name) <= _LONGEST_NAME], n=1)
    return f"; did you mean {near[0]}?" if near else "."
