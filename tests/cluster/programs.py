"""A component of the cluster before it runs: a name and a command line."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervisor.py")


@dataclass(frozen=True)
class Program:
    """A program to run, and its options."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Settings on top of the environment of the starting process."""
    directory: str = "/"
    restarts: bool = False
    """Whether it is started again whenever it ends."""

    def supervised(self, *options: str) -> tuple[str, ...]:
        """Return the command line under the supervisor."""
        # -I -S: the supervisor needs the standard library only, and starts twice as fast without the rest.
        return (sys.executable, "-I", "-S", str(SUPERVISOR), *options, "--", *self.command)
