"""Exit codes: the mover's (`cinderblock.mover.report`), and others for people."""

from __future__ import annotations

from typing import Final

from cinderblock.errors import CinderblockError, IntegrityError, ObjectLocked

SUCCESS: Final = 0
USAGE: Final = 2
"""The command line is invalid. argparse uses the same code."""
PERMANENT: Final = 3
TRANSIENT: Final = 4
CORRUPT: Final = 5
INCOMPLETE: Final = 6
"""The backup lacks files that could not be read."""
LOCKED: Final = 7
"""The store keeps an object locked. Trying again helps when its retention has ended, or its legal hold is lifted."""
INTERRUPTED: Final = 130
"""128 + SIGINT, as in shells."""
BROKEN_PIPE: Final = 141
"""128 + SIGPIPE."""


def exit_code_for(error: CinderblockError) -> int:
    """Return the exit code of a command that failed with this error."""
    if isinstance(error, IntegrityError):
        return CORRUPT
    if isinstance(error, ObjectLocked):
        return LOCKED
    return PERMANENT if error.permanent else TRANSIENT
