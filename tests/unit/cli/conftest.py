"""The command line with a store in memory. Only `open_store` is replaced."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.cli import store_arguments
from cinderblock.cli.main import main
from cinderblock.cli.signals import STOP_SIGNALS
from cinderblock.store.memory import MemoryStore
from cinderblock.store.s3 import client
from tests.support.store.faults import FaultyStore


@dataclass(frozen=True)
class Outcome:
    """The result of a command line."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


Cli = Callable[..., Outcome]


@dataclass
class Opened:
    """The store in memory, and the locations that command lines opened it with."""

    inside: MemoryStore
    faulty: FaultyStore
    locations: list[StoreLocation]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Replace `open_store` so that all command lines of a test use one store in memory."""
    inside = MemoryStore()
    result = Opened(inside, FaultyStore(inside), [])

    def open_store(location: StoreLocation, *_: object) -> FaultyStore:
        result.locations.append(location)
        return result.faulty

    monkeypatch.setattr(store_arguments, "open_store", open_store)
    monkeypatch.setattr(client, "ambient_region", lambda: None)
    return result


@pytest.fixture
def cli(opened: Opened, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs a command line."""

    def run(*words: str) -> Outcome:
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        try:
            code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Create a directory with a hard link, a symbolic link and an empty directory."""
    root = tmp_path / "tree"
    (root / "etc" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc" / "deep" / "data").write_bytes(os.urandom(200_000))
    (root / "link").hardlink_to(root / "etc" / "deep" / "data")
    (root / "symlink").symlink_to("etc/hosts")
    (root / "top").write_text("top\n")
    return root


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Create two key files."""
    files = {name: tmp_path / f"{name}.key" for name in ("old", "young")}
    for file in files.values():
        file.write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
    return files
