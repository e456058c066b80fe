"""Programs that outlive the command that started them, and can be found by a later command.

Each writes who it is to `<directory>/run/<name>.json` before it becomes the program, and until then it holds the
cluster's lock with its parent. So the next holder of the lock knows every process, however the last holder ended.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.cluster import files, processes, waiting
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Process
from tests.cluster.programs import Program

_DESCRIPTORS = 4096
"""More than the starting command has open."""


class Daemons:
    """The processes of one cluster, and the environment variables that it adds to theirs."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._records = directory / "run"
        self._logs = directory / "log"

    def start(self, program: Program) -> bool:
        """Start the program unless it runs; tell whether that was needed."""
        found = self.find(program.name)
        if found and found.is_alive:
            return False
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        # Otherwise a caller that waits for the new process may mistake the ended one for it.
        self._record_of(program.name).unlink(missing_ok=True)
        if os.fork() == 0:
            self._become(program)
        return True

    def find(self, name: str) -> Process | None:
        """Return the process last started under this name."""
        try:
            record = json.loads(self._record_of(name).read_text())
        except FileNotFoundError:
            return None
        return Process(record["pid"], record["started"])

    def all(self) -> dict[str, Process]:
        """Return every process ever started, alive or not."""
        names = [path.stem for path in sorted(self._records.glob("*.json"))]
        return {name: found for name in names if (found := self.find(name))}

    def is_alive(self, name: str) -> bool:
        """Tell whether the process last started under this name runs."""
        found = self.find(name)
        return found is not None and found.is_alive

    def log(self, name: str) -> Path:
        """Return where a program's output goes."""
        return self._logs / f"{name}.log"

    def wait(self, name: str, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for what a started program should bring about. Raises ClusterError, at once if the program ends."""
        waiting.until(lambda: self.find(name) is not None, 30, lambda: f"{name} was not started")

        def holds() -> bool:
            if condition():
                return True
            if not self.is_alive(name):
                raise ClusterError(f"{name} ended before {what}; {self._last_words(name)}")
            return False

        waiting.until(holds, seconds, lambda: f"not {what} after {seconds:.0f} s; {self._last_words(name)}")

    def _record_of(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _last_words(self, name: str) -> str:
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join([f"its log is {log}:", *lines[-15:]])

    def _become(self, program: Program) -> None:
        """Turn this forked process into the program. Never returns."""
        try:
            os.setsid()
            _redirect(self.log(program.name))
            self._record(program.name)
            os.closerange(3, _DESCRIPTORS)
            os.chdir(program.directory)
            command = program.supervised("--restart") if program.restarts else program.command
            os.execve(command[0], command, {**os.environ, **self._environment, **program.environment})
        except BaseException as error:  # noqa: BLE001  # a second copy of the parent must not go on, whatever happened
            print(f"cannot start {program.name}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)

    def _record(self, name: str) -> None:
        me = processes.find(os.getpid())
        assert me is not None
        files.write(self._record_of(name), json.dumps({"pid": me.pid, "started": me.started}))


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
