"""OpenStack's clients, run by tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.openstack import environments
from tests.openstack.answers import Names

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """The result of a client.

    Attributes:
        line: the command line.
        code: exit code.
    """

    line: str
    code: int
    out: str
    err: str

    def row(self, field: str) -> str:
        """Return the value of a row in a printed table of properties. Raises AssertionError if there is none."""
        found = re.search(rf"^\|\s*{re.escape(field)}\s*\|\s*(.*?)\s*\|$", self.out, re.MULTILINE)
        assert found, f"No row {field} in:\n{self.out}{self.err}"
        return found[1]

    def comparable(self, names: Names) -> dict[str, Any]:
        """Return exit code and outputs without what differs from run to run: ids, times, records, column widths.

        Lists without --sort come in order of ids. Here, their lines are sorted as text.
        """
        out = _plain(names.hide(self.out))
        is_unsorted = "list" in self.line and "--sort" not in self.line
        return {"code": self.code, "out": sorted(out) if is_unsorted else out, "err": _plain(names.hide(self.err))}


class Clients:
    """A process that runs clients."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, line: str, environment: dict[str, str]) -> Outcome:
        """Run a command line. Its first word is the client: cinder, openstack, or python for client_calls."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"argv": shlex.split(line), "env": environment}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"The clients' process ended in: {line}"
        return Outcome(line, **json.loads(answer))


@contextmanager
def running(name: str = "clients") -> Iterator[Clients]:
    """Start a process with the clients of an environment in tests/openstack/locks."""
    python = environments.programs(name) / "python"
    surroundings = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    with subprocess.Popen(
        [str(python), "-m", "tests.openstack.client_host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=surroundings | {"PYTHONWARNINGS": "ignore"},
    ) as process:
        yield Clients(process)
        assert process.stdin
        process.stdin.close()


def login(identity: str, project: str, password: str, user: str = "admin") -> dict[str, str]:
    """Return the environment variables for a login with a password, which all OpenStack clients read."""
    return {
        "OS_AUTH_URL": identity,
        "OS_PROJECT_NAME": project,
        "OS_USERNAME": user,
        "OS_PASSWORD": password,
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_IDENTITY_API_VERSION": "3",
    }


def _plain(text: str) -> list[str]:
    """Return lines without records, with each run of blanks or dashes as one, because column widths vary."""
    text = re.sub(r"[A-Za-z0-9+/]{200,}=*", "<record>", text)
    lines = [re.sub(r"-{2,}", "--", re.sub(r" {2,}", " ", line)).rstrip() for line in text.splitlines()]
    return [line for line in lines if line]
