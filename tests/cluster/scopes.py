"""Programs that end with the block and the process that started them, however these end."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cluster import waiting
from tests.cluster.errors import ClusterError
from tests.cluster.programs import Program


class Scope:
    """Run programs on one directory, which is removed when the last of them has ended."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path) -> None:
        self._stack = stack
        self.directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, program: Program) -> None:
        """Start the program; it ends with the scope."""
        with self._log(program.name).open("wb") as log:
            # The supervisor ends when its input does: when the other end of the pipe is closed, by us or by our death.
            guard = subprocess.Popen(
                program.supervised(
                    "--until-eof", f"--remove={self.directory}", *(["--restart"] if program.restarts else [])
                ),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=program.directory,
                env={**os.environ, **program.environment},
                start_new_session=True,
            )
        self._running[program.name] = guard
        self._stack.callback(_end, guard)

    def wait(self, name: str, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a program does what it is for. Raises ClusterError, at once if it has ended."""

        def holds() -> bool:
            if self._running[name].poll() is not None:
                raise ClusterError(self._failed(name, "ended at its start"))
            return condition()

        waiting.until(holds, seconds, lambda: self._failed(name, f"is not ready after {seconds:.0f} s"))

    def _failed(self, name: str, what: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join([f"{name} {what}; it said:", *lines[-15:]])

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


@contextlib.contextmanager
def scope(prefix: str) -> Iterator[Scope]:
    """Run programs on a temporary directory for as long as the block; they end in the opposite order of their start."""
    with tempfile.TemporaryDirectory(prefix=prefix) as directory, contextlib.ExitStack() as stack:
        yield Scope(stack, Path(directory))


def _end(guard: subprocess.Popen[bytes]) -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait()
