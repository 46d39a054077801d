"""How the commands of the Hub end."""

import sys
from collections.abc import Callable

from hf_gpt.terminal import INTERRUPTED


def report(run: Callable[[], str]) -> int:
    """Runs a command and prints what it says; returns its exit status, 2 for what the user can put right."""
    from hf_gpt.errors import UserError

    try:
        print(run())
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
