"""Exit codes. Those of the mover (`cinderblock.mover.report`), and those that only a person sees."""

from __future__ import annotations

from typing import Final

from cinderblock.errors import CinderblockError, IntegrityError

SUCCESS: Final = 0
USAGE: Final = 2
"""argparse's own."""
PERMANENT: Final = 3
TRANSIENT: Final = 4
CORRUPT: Final = 5
INCOMPLETE: Final = 6
"""A backup was made, but files that could not be read are not in it."""
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""
BROKEN_PIPE: Final = 141
"""128 and the number of SIGPIPE."""


def exit_code_for(error: CinderblockError) -> int:
    """The exit code of a command that ended with this error."""
    if isinstance(error, IntegrityError):
        return CORRUPT
    return PERMANENT if error.permanent else TRANSIENT
