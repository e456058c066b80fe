"""Exit codes: the mover's (`cinderblock.mover.report`), and others for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cinderblock.errors import CinderblockError, IntegrityError, ObjectLocked, PermanentError

SUCCESS: Final = 0
UNEXPECTED: Final = 1
"""An error that no part of this program expects."""
USAGE: Final = 2
"""The command line is invalid. argparse uses the same code."""
PERMANENT: Final = 3
TRANSIENT: Final = 4
CORRUPT: Final = 5
INCOMPLETE: Final = 6
"""The backup lacks files that could not be read, or a recovery left out claims that exist."""
LOCKED: Final = 7
"""The store keeps an object locked. Trying again helps when its retention has ended, or its legal hold is lifted."""
NO_OUTPUT: Final = 8
"""The command has succeeded, but its output could not be written."""
SIGNALLED: Final = 128
"""Added to the number of the signal that stopped the command, as in shells: 129, 130, 143."""
BROKEN_PIPE: Final = 141
"""128 + SIGPIPE: like NO_OUTPUT, because the reader has gone."""


def worst_exit_code(errors: Iterable[PermanentError]) -> int:
    """Return the exit code of a command that continued after these errors: that of the worst, or SUCCESS.

    Damage counts most, since trying again with other options does not help.
    """
    return max(map(exit_code_for, errors), default=SUCCESS)


def exit_code_for(error: CinderblockError) -> int:
    """Return the exit code of a command that failed with this error."""
    if isinstance(error, IntegrityError):
        return CORRUPT
    if isinstance(error, ObjectLocked):
        return LOCKED
    return PERMANENT if error.permanent else TRANSIENT
